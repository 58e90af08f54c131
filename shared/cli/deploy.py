"""`evertune deploy` and `evertune undeploy`: the chain on Argo Workflows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from shared.events.argo.cluster import Cluster, Target
    from shared.events.argo.template import Change, Template
    from shared.events.graph import Graph

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
    from shared.cli.run import ROOT_FLOW
    from shared.events.argo.verify import check_database, check_settings, read_cluster
    from shared.events.due import check_members
    from shared.events.graph import read_graph
    from shared.flow.environment import prepare_environment
    from shared.settings import project_root

    prepare_environment()
    targets = _targets(use_case, branch, production)
    graph = read_graph(project_root()).chain(ROOT_FLOW)
    for target in targets:
        check_members(target.use_case, graph)
    check_settings([target.use_case for target in targets], read_cluster())
    check_database()
    console = stdout()
    with _clusters(targets) as clusters:
        with console.status("compiling"):
            planned = [(target, cluster, _plan(graph, target, cluster)) for target, cluster in clusters]
        for target, cluster, changes in planned:
            _show(console, target, changes)
            if not dry_run:
                with console.status("deploying"):
                    _apply(graph, cluster, changes)


def undeploy(use_case: UseCases = None, branch: Branch = None, production: Production = False) -> None:
    """Take the chain away from Argo Workflows; runs that have begun go on."""
    from shared.cli.console import stdout
    from shared.events.argo.cluster import delete, deployed
    from shared.flow.environment import prepare_environment

    prepare_environment()
    console = stdout()
    for target in _targets(use_case, branch, production):
        found = deployed(target.scope)
        _headline(console, target)
        for there in found.values():
            _line(console, "deleted", there.template)
            delete(there.template)
        if not found:
            console.print("  nothing is deployed", style="dim")


def _targets(names: Sequence[str] | None, branch: str | None, production: bool) -> list[Target]:
    from shared.config import load_use_case, use_cases
    from shared.events.argo.cluster import Target

    return [Target(load_use_case(name), branch, production) for name in names or use_cases()]


@contextmanager
def _clusters(targets: Sequence[Target]) -> Iterator[list[tuple[Target, Cluster]]]:
    """Each target with its flows' Configs as files, which last as long as this does."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from shared.events.argo.cluster import Cluster
    from shared.events.configs import write_configs
    from shared.settings import project_root

    with TemporaryDirectory(prefix="evertune-deploy-") as folder:
        found = []
        for target in targets:
            own = Path(folder, target.use_case.name)
            own.mkdir()
            found.append((target, Cluster(target, project_root(), write_configs(target.use_case, own))))
        yield found


def _plan(graph: Graph, target: Target, cluster: Cluster) -> list[Change]:
    """What deploying changes, in the order of the chain, after the compiled flows were verified."""
    from shared.events.argo.cluster import deployed
    from shared.events.argo.template import change, check_events

    there = deployed(target.scope)
    templates = {template.flow: template for template in cluster.compile([*graph.flows.values()])}
    check_events(graph, templates)
    return [change(template, there.get(name)) for name, template in templates.items()]


def _apply(graph: Graph, cluster: Cluster, changes: Sequence[Change]) -> None:
    """Deploy what changes, each flow after those that it waits for."""
    settled = [change.wanted.flow for change in changes if change.kind == "unchanged"]
    while flows := graph.ready(settled, settled):
        cluster.create(flows)
        settled += [flow.name for flow in flows]


def _show(console: Console, target: Target, changes: Sequence[Change]) -> None:
    _headline(console, target)
    for change in changes:
        _line(console, change.kind, change.wanted)
        for field, (old, new) in change.fields.items():
            shown = f"{_short(old)} → {_short(new)}"
            console.print(f"             {field}: {shown}", markup=False, highlight=False, style="dim")


def _headline(console: Console, target: Target) -> None:
    console.print(f"{target.use_case.title} ({'/'.join(target.scope)})", markup=False, highlight=False)


def _line(console: Console, kind: str, template: Template) -> None:
    console.print(f"  [{COLORS[kind]}]{kind:<11}[/]{template.flow:<18}{template.name}", highlight=False)


def _short(value: str | None) -> str:
    if value is None:
        return "nothing"
    line = " ".join(value.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"
