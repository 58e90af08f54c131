"""`evertune models`: the versions in the registry, what is known of each, and which one is served."""

from __future__ import annotations

from typing import Annotated

import typer

from shared.cli.options import ModelName, OptionalUseCase, OptionalVersion, UseCaseName, Version
from shared.cli.versions import ask, find_version
from shared.errors import RegistryError

app = typer.Typer(help="The models in the registry, and which of them are served.", no_args_is_help=True)

Reason = Annotated[str, typer.Option(help="Why; the promotion log keeps it.", metavar="TEXT", show_default=False)]


@app.command("list")
def list_models(use_case: OptionalUseCase = None) -> None:
    """The versions of each registered model, newest first: how good, from where, by whom promoted."""
    from shared.cli.console import stdout
    from shared.cli.show_models import show_versions
    from shared.domain import model_names
    from shared.registry import client, promotion
    from shared.storage.ledger import Ledger

    shown = False
    for name in [model for known in _use_cases(use_case) for model in model_names(known)]:
        promotion.log_champion(name)
        if versions := client.versions(name, with_metrics=True):
            show_versions(stdout(), versions, Ledger().promotions(name))
            shown = True
    if not shown:
        typer.echo(f"nothing is registered yet; `evertune run {use_case or '<use_case>'}` ends with a model")


@app.command()
def show(model: ModelName, version: OptionalVersion = None) -> None:
    """All that is known of a version: metrics, parameters, lineage, the gate's figures, its promotions."""
    from shared.cli.console import stdout
    from shared.cli.show_models import show_version
    from shared.registry import client, promotion
    from shared.storage.ledger import Ledger

    promotion.log_champion(model)
    found = find_version(model, version)
    show_version(stdout(), found, client.params(found), Ledger().promotions(model))


@app.command()
def promote(
    use_case: UseCaseName,
    version: Version,
    reason: Reason = "",
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
) -> None:
    """Make a version the champion by hand, whatever the gate has said of it; it is loaded first, and must predict."""
    from shared.cli.show import decision_line
    from shared.config import load_use_case
    from shared.domain import PromotionDecision
    from shared.flow.environment import user_name
    from shared.registry import aliases, client, history, promotion
    from shared.storage.ledger import Ledger

    name = load_use_case(use_case).name
    promotion.log_champion(name)
    number, seen = aliases.version_of(name, version), aliases.champion(name)
    if number == seen:
        raise RegistryError(f"what is promoted must be another version, but {number} is the champion of {name} already")
    client.try_out(client.version(name, number))
    gate = history.gate(Ledger().promotions(name), number)
    typer.echo(f"the gate has said: {decision_line(gate)}" if gate else f"the gate hasn't judged version {number}")
    typer.echo(f"version {number} loads, and predicts its input example")
    ask(f"make it the champion of {name}, instead of {f'version {seen}' if seen else 'none'}?", yes)
    decision = PromotionDecision(promote=True, reason=reason or "promoted by hand")
    promotion.promote(name, number, decision, seen=seen, actor=user_name(), kind="hand")
    typer.echo(f"{name}: version {number} is champion; `evertune models rollback {name}` takes it back")


@app.command()
def rollback(
    use_case: UseCaseName,
    to: Annotated[
        int | None,
        typer.Option(help="Any version that ever was champion; by default the one before.", metavar="VERSION"),
    ] = None,
    reason: Reason = "",
) -> None:
    """Let the champion of before be it again, at once. What is rolled back isn't promoted again by the gate."""
    from shared.flow.environment import user_name
    from shared.registry import promotion

    done = promotion.rollback(use_case, to, reason=reason, actor=user_name())
    instead = f" instead of version {done.previous}" if done.previous else ""
    typer.echo(f"{use_case}: version {done.version} is champion{instead}; who serves it follows within seconds")


@app.command()
def compare(
    use_case: UseCaseName,
    a: Annotated[str, typer.Argument(help="A version: a number or an alias.")],
    b: Annotated[str, typer.Argument(help="The version to compare it with.")] = "champion",
) -> None:
    """Two versions side by side, and how they do on the holdout rows that are fair to both."""
    from shared.cli.console import stdout
    from shared.cli.show_models import show_comparison
    from shared.config import load_use_case
    from shared.flow import compare as comparing
    from shared.registry import aliases

    config = load_use_case(use_case)
    found = comparing.compare(config, *(aliases.version_of(config.name, given) for given in (a, b)))
    show_comparison(stdout(), found)


@app.command()
def verify(use_case: OptionalUseCase = None) -> None:
    """Check that log and registry agree and the files are there, and mend what a crash has left. Exit status 1: no."""
    from shared.cli.console import stdout
    from shared.cli.show_models import show_finding
    from shared.registry import verify as checks

    console, wrong = stdout(), False
    for name in _use_cases(use_case):
        for finding in checks.verify(name):
            show_finding(console, name, finding)
            wrong |= finding.wrong
    raise typer.Exit(int(wrong))


def _use_cases(use_case: str | None) -> list[str]:
    """The one that is named, or all of the project."""
    from shared.config import load_use_case, use_cases

    return [load_use_case(use_case).name] if use_case else use_cases()
