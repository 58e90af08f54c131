"""The commands of `evertune`, one module per group. They import what they need when they run."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from shared.cli import (
    cards,
    catch_up,
    config,
    dashboard,
    deploy,
    lineage,
    models,
    prune,
    replay,
    run,
    serve,
    services,
    status,
    tune,
)
from shared.errors import EvertuneError

INTERRUPTED = 130  # what shells say of a command that Ctrl-C has ended


class Commands(TyperGroup):
    """Shows an error that Evertune raised on purpose as its message, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EvertuneError as err:
            typer.secho(f"error: {err}", fg=typer.colors.RED, err=True)
            raise typer.Exit(1) from err
        except KeyboardInterrupt as err:
            raise typer.Exit(INTERRUPTED) from err


app = typer.Typer(
    cls=Commands,
    name="evertune",
    help="Keeps a model tuned: prepare data, search hyperparameters, tune the system, promote it if it is better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("run")(run.run)
app.command("tune")(tune.tune)
app.command("catch-up")(catch_up.catch_up)
app.command("status")(status.status)
app.command("best")(status.best)
app.command("replay")(replay.replay)
app.command("cards")(cards.cards)
app.command("dashboard")(dashboard.dashboard)
app.command("serve")(serve.serve)
app.command("deploy")(deploy.deploy)
app.command("undeploy")(deploy.undeploy)
app.command("prune")(prune.prune)
app.add_typer(config.app, name="config")
models.app.command("lineage")(lineage.lineage)
models.app.command("reproduce")(lineage.reproduce)
models.app.command("trust")(lineage.trust)
app.add_typer(models.app, name="models")
app.add_typer(services.app, name="services")
