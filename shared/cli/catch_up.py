"""`evertune catch-up`: starts what is due and was not started, since an event was lost or a run has died."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from shared.cli.options import OptionalUseCase
from shared.errors import FlowError

if TYPE_CHECKING:
    from rich.console import Console

    from shared.config import UseCase


def catch_up(use_case: OptionalUseCase = None) -> None:
    """Tune what is due on the newest dataset version, without looking for new data; all use cases by default."""
    from shared.cli.console import stdout
    from shared.cli.run import EXIT_STATUS
    from shared.config import load_use_case, use_cases

    console = stdout()
    states = [_catch_up(load_use_case(name), console) for name in ([use_case] if use_case else use_cases())]
    raise typer.Exit(max((EXIT_STATUS[state] for state in states if state), default=0))


def _catch_up(use_case: UseCase, console: Console) -> str | None:
    """Start what is due of a use case on this machine; returns how it ended, None where nothing was due."""
    from shared.cli.run import run_chain
    from shared.cli.show import show_end
    from shared.events.chain import refuse_a_second_chain
    from shared.events.due import due_flows, startable
    from shared.events.graph import ROOT_FLOW, read_graph
    from shared.settings import project_root
    from shared.storage.ledger import Ledger

    if Ledger().newest_dataset(use_case.name) is None:
        told = f"{use_case.name}: no dataset version yet; `evertune run {use_case.name}` makes one"
        console.print(told, markup=False, highlight=False)
        return None
    due = startable(due_flows(use_case, read_graph(project_root()).chain(ROOT_FLOW)))
    if not due:
        console.print(f"{use_case.name}: nothing is due", markup=False, highlight=False)
        return None
    try:
        refuse_a_second_chain(use_case.name)
    except FlowError as err:  # what is due is at work
        console.print(f"{use_case.name}: {err}", markup=False, highlight=False)
        return None
    for one in due:
        console.print(f"{use_case.name}: {one.flow.name} is due, {one.why}", markup=False, highlight=False)
    chain = run_chain(use_case, console, prepare=False)
    if chain.state != "done":
        show_end(console, chain)
    return chain.state
