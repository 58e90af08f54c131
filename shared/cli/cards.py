"""`evertune cards`: the flows' cards as HTML files."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from shared.cli.options import UseCaseName
from shared.errors import FlowError

if TYPE_CHECKING:
    from metaflow import Run, Task
    from metaflow.plugins.cards.card_client import Card

    from shared.config import UseCase


def cards(use_case: UseCaseName) -> None:
    """Write the cards of the newest runs as HTML, one file per flow, and say where."""
    from shared.config import load_use_case

    written = write_cards(load_use_case(use_case))
    if not written:
        raise FlowError(f"cards come from runs, but {use_case!r} has none here; run `evertune run {use_case}`")
    for path in written:
        typer.echo(path)


def write_cards(use_case: UseCase) -> list[Path]:
    """Write the cards into `<EVERTUNE_HOME>/cards/<use_case>/<flow>.html`; returns the files."""
    from shared.settings import make_folder, settings

    folder = settings().home.absolute() / "cards" / use_case.name
    make_folder(folder)
    written = []
    for run in _runs(use_case):
        found = [(step.id, card) for step in run for card in _cards(step.task)]
        for step, card in found:
            name = run.parent.id if len(found) == 1 else f"{run.parent.id}-{step}"
            written.append(folder / f"{name}.html")
            written[-1].write_text(card.get(), encoding="utf-8")
    return written


def _cards(task: Task) -> list[Card]:
    from metaflow.cards import get_cards
    from metaflow.plugins.cards.exception import CardNotPresentException

    try:
        return list(get_cards(task))
    except CardNotPresentException:
        return []


def _runs(use_case: UseCase) -> list[Run]:
    """The run of each flow that finished its newest study, else its newest run; flows without any are left out."""
    from metaflow import namespace

    from shared.events.graph import read_graph
    from shared.flow.plan import newest_done, use_case_tag
    from shared.settings import project_root
    from shared.storage.ledger import Ledger

    namespace(None)
    studies = newest_done(Ledger().entries(use_case.name)).values()
    tuned = {entry.run.split("/")[0]: entry.run for entry in studies if entry.run}
    found = (_run(flow, tuned.get(flow), use_case_tag(use_case)) for flow in read_graph(project_root()).flows)
    return [run for run in found if run]


def _run(flow: str, tuned: str | None, tag: str) -> Run | None:
    """The run `tuned`, if this machine has it, else the newest of the flow with a tag."""
    from metaflow import Flow, Run
    from metaflow.exception import MetaflowNotFound

    with suppress(MetaflowNotFound):
        if tuned:
            return Run(tuned)
    with suppress(MetaflowNotFound):
        return next(iter(Flow(flow).runs(tag)), None)
    return None
