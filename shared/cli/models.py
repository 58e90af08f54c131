"""`evertune models`: the versions in the registry, what is known of each, and which one is served."""

from __future__ import annotations

import typer

from shared.cli.options import OptionalUseCase

app = typer.Typer(help="The models in the registry, and which of them are served.", no_args_is_help=True)


@app.command("list")
def list_models(use_case: OptionalUseCase = None) -> None:
    """The versions of each registered model, newest first."""
    from rich.table import Table

    from shared.cli.console import stdout
    from shared.cli.show import local_time
    from shared.config import load_use_case, use_cases
    from shared.domain import model_name
    from shared.registry import client

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("model", "version", "aliases", "made", "study", "trial"):
        table.add_column(column, no_wrap=True)
    for name in [load_use_case(use_case).name] if use_case else use_cases():
        for variant in ("system", "classical", "deep"):
            for found in client.versions(model_name(name, variant)):
                made = local_time(found.created_at) if found.created_at else ""
                facts = (found.lineage.get("study", ""), found.lineage.get("trial", ""))
                table.add_row(found.name, str(found.version), ", ".join(found.aliases), made, *facts)
    stdout().print(table)
