"""`evertune cards`: the flows' cards as HTML files."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from shared.cli.options import UseCaseName
from shared.errors import FlowError

if TYPE_CHECKING:
    from metaflow import Run

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
    from metaflow.cards import get_cards

    from shared.settings import settings

    folder = settings().home.absolute() / "cards" / use_case.name
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for run in _runs(use_case):
        found = [(step.id, card) for step in run for card in get_cards(step.task)]
        for step, card in found:
            name = run.parent.id if len(found) == 1 else f"{run.parent.id}-{step}"
            written.append(folder / f"{name}.html")
            written[-1].write_text(card.get(), encoding="utf-8")
    return written


def _runs(use_case: UseCase) -> list[Run]:
    """The run of each flow that finished its newest study, else its newest run; flows without any are left out."""
    from metaflow import Flow, Run, namespace
    from metaflow.exception import MetaflowNotFound

    from shared.events.graph import read_graph
    from shared.events.summary import newest_done
    from shared.settings import project_root
    from shared.storage.ledger import Ledger

    namespace(None)
    studies = newest_done(Ledger().entries(use_case.name)).values()
    by_flow = {entry.run.split("/")[0]: entry.run for entry in studies if entry.run}
    runs = []
    for name in read_graph(project_root()).flows:
        with suppress(MetaflowNotFound):
            tuned = by_flow.get(name)
            runs += [Run(tuned)] if tuned else [*islice(Flow(name).runs(f"project:{use_case.project}"), 1)]
    return runs
