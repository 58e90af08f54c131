"""`evertune deploy` and `evertune undeploy`: the chain on Argo Workflows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from shared.events.argo.cluster import Target
    from shared.events.argo.template import Change

COLORS = {"created": "green", "changed": "yellow", "unchanged": "dim", "deleted": "red"}
SHOWN = 60  # characters of a value

UseCases = Annotated[
    list[str] | None,
    typer.Option(
        "--use-case", help="Name of configs/<use_case>.toml, any number of times; by default all.", metavar="X"
    ),
]
Branch = Annotated[str | None, typer.Option(help="A branch of the Metaflow project; by default your own.", metavar="B")]
Production = Annotated[bool, typer.Option("--production", help="The production branch of the Metaflow project.")]


def deploy(
    use_case: UseCases = None,
    branch: Branch = None,
    production: Production = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Verify and show what would change, no more.")] = False,
) -> None:
    """Put the chain on Argo Workflows: verify it, show what differs from what is deployed, and deploy that."""
    from shared.cli.console import stdout
    from shared.events.argo.deployment import deploy_chain
    from shared.events.graph import read_graph
    from shared.flow.environment import prepare_environment
    from shared.settings import project_root

    prepare_environment()
    targets = _targets(use_case, branch, production)
    console = stdout()
    with console.status("compiling") as status:

        def show(target: Target, changes: Sequence[Change]) -> None:
            _show(console, target, changes)
            status.update("deploying")

        deploy_chain(read_graph(project_root()), targets, apply=not dry_run, on_planned=show)


def undeploy(use_case: UseCases = None, branch: Branch = None, production: Production = False) -> None:
    """Take the chain away from Argo Workflows; runs that have begun go on."""
    from shared.cli.console import stdout
    from shared.events.argo.deployment import undeploy_chain
    from shared.flow.environment import prepare_environment

    prepare_environment()
    undeploy_chain(_targets(use_case, branch, production), on_planned=partial(_show, stdout()))


def _targets(names: Sequence[str] | None, branch: str | None, production: bool) -> list[Target]:
    from shared.config import load_use_case, use_cases
    from shared.events.argo.cluster import Target

    return [Target(load_use_case(name), branch, production) for name in dict.fromkeys(names or use_cases())]


def _show(console: Console, target: Target, changes: Sequence[Change]) -> None:
    console.print(f"{target.use_case.title} ({'/'.join(target.scope)})", markup=False, highlight=False)
    if not changes:
        console.print("  nothing is deployed", style="dim")
    for change in changes:
        name = f"{change.template.flow:<18}{change.template.name}"
        console.print(f"  [{COLORS[change.kind]}]{change.kind:<11}[/]{name}", highlight=False)
        for field, (old, new) in change.fields.items():
            shown = f"{_short(old)} → {_short(new)}"
            console.print(f"             {field}: {shown}", markup=False, highlight=False, style="dim")


def _short(value: str | None) -> str:
    if value is None:
        return "nothing"
    line = " ".join(value.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"
