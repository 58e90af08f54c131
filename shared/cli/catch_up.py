"""`evertune catch-up`: starts what is due and was not started, since an event was lost or a run has died."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from shared.cli.deploy import Branch, Production
from shared.cli.options import OptionalUseCase
from shared.errors import ConfigError, EvertuneError, FlowError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from shared.config import UseCase
    from shared.events.argo.cluster import Target
    from shared.events.due import Due
    from shared.events.graph import Graph


def catch_up(
    use_case: OptionalUseCase = None,
    trigger: Annotated[
        bool, typer.Option("--trigger", help="Start it where it is deployed, instead of on this machine.")
    ] = False,
    branch: Branch = None,
    production: Production = False,
) -> None:
    """Tune what is due on the newest dataset version, without looking for new data; all use cases by default."""
    from shared.cli.console import stdout
    from shared.cli.run import EXIT_STATUS
    from shared.config import load_use_case, use_cases
    from shared.events.argo.cluster import Target
    from shared.events.argo.verify import check_database
    from shared.events.graph import ROOT_FLOW, read_graph
    from shared.flow.environment import prepare_environment
    from shared.settings import project_root

    if (branch or production) and not trigger:
        raise ConfigError("--branch and --production say where it is deployed; add --trigger, or leave them out")
    prepare_environment()
    if trigger:
        check_database()  # what is due there is known there
    console, graph, worst = stdout(), read_graph(project_root()).chain(ROOT_FLOW), 0
    for name in [use_case] if use_case else use_cases():
        try:
            config = load_use_case(name)
            due = _due(config, graph, console)
            if due and trigger:
                _trigger(Target(config, branch, production), graph, due, console)
            elif due and (state := _run(config, console)):
                worst = max(worst, EXIT_STATUS[state])
        except EvertuneError as err:  # of this one; the others are caught up on all the same
            console.print(f"{name}: {err}", markup=False, highlight=False, style="red")
            worst = max(worst, 1)
    raise typer.Exit(worst)


def _due(use_case: UseCase, graph: Graph, console: Console) -> list[Due]:
    """What is to be started of a use case, after it was shown."""
    from shared.events.due import due_flows, startable
    from shared.storage.ledger import Ledger

    if Ledger().newest_dataset(use_case.name) is None:
        _say(console, use_case, f"no dataset version yet; `evertune run {use_case.name}` makes one")
        return []
    found = due_flows(use_case, graph)
    due = startable(found)
    for one in found:
        _say(console, use_case, f"{one.flow.name} is due, {one.why}" if one in due else f"{one.flow.name}: {one.why}")
    if not found:
        _say(console, use_case, "nothing is due")
    return due


def _trigger(target: Target, graph: Graph, due: Sequence[Due], console: Console) -> None:
    """Start deployed flows; those that wait for them are started by their events."""
    from shared.events.argo.trigger import submit
    from shared.events.due import first_flows

    for flow in first_flows(due, graph):
        _say(console, target.use_case, f"{submit(target, flow.name, {}).run} has been started")


def _run(use_case: UseCase, console: Console) -> str | None:
    """Run the chain on this machine; returns how it ended, None where another one is at it."""
    from shared.cli.run import run_chain
    from shared.cli.show import show_end
    from shared.events.chain import refuse_a_second_chain

    try:
        refuse_a_second_chain(use_case.name)
    except FlowError as err:  # what is due is at work
        _say(console, use_case, str(err))
        return None
    chain = run_chain(use_case, console, prepare=False)
    if chain.state != "done":
        show_end(console, chain)
    return chain.state


def _say(console: Console, use_case: UseCase, text: str) -> None:
    console.print(f"{use_case.name}: {text}", markup=False, highlight=False)
