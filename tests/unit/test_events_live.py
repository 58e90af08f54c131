"""What people see of a running chain."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from shared.events.chain import Chain
from shared.events.graph import Flow, Graph
from shared.events.live import LiveDisplay, PlainDisplay, display_for, duration
from shared.storage.progress import Progress

START = datetime(2026, 11, 24, 6, 30, tzinfo=UTC)
GRAPH = Graph.of(Flow("DataPrepFlow", Path("a")), Flow("ClassicalHPOFlow", Path("b"), frozenset({"DataPrepFlow"})))


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def tick(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def console(width: int = 100, terminal: bool = False) -> Console:
    return Console(file=StringIO(), width=width, force_terminal=terminal, color_system=None)


def shown(console: Console) -> list[str]:
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def progress(finished: int, best: float | None = -0.0412) -> dict[str, Progress]:
    return {"ClassicalHPOFlow": Progress("s", 40, finished, 0, 0, 1, best)}


def test_a_pipe_gets_a_line_for_each_event():
    out, clock = console(), Clock()
    display, chain = PlainDisplay(out, clock), Chain.begin("digits", GRAPH, 1, START)

    display.changed(chain)
    display.changed(chain := chain.update("DataPrepFlow", state="running", started_at=START))
    display.changed(chain := chain.update("DataPrepFlow", run="DataPrepFlow/1"))
    clock.tick(4.2)
    chain = chain.update("DataPrepFlow", state="failed", finished_at=clock())
    display.changed(chain.update("ClassicalHPOFlow", state="skipped", note="DataPrepFlow failed"))

    assert [line[10:] for line in shown(out)] == [
        "DataPrepFlow started",
        "DataPrepFlow failed after 4.2 s",
        "ClassicalHPOFlow skipped: DataPrepFlow failed",
    ]


def test_a_pipe_gets_the_progress_every_ten_seconds_only():
    out, clock = console(), Clock()
    display = PlainDisplay(out, clock)

    for finished in range(12):
        display.progressed(progress(finished))
        clock.tick(1)

    assert [line[10:] for line in shown(out)] == [
        "ClassicalHPOFlow: 0 of 40 trials, best -0.0412",
        "ClassicalHPOFlow: 10 of 40 trials, best -0.0412",
    ]


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_fits_a_terminal_and_tells_how_far_each_flow_is(width: int):
    out, clock = console(width), Clock()
    display = LiveDisplay(out, clock)
    chain = Chain.begin("digits", GRAPH, 1, START).update(
        "DataPrepFlow", state="done", started_at=START, finished_at=START
    )
    display.changed(chain.update("ClassicalHPOFlow", state="running", started_at=START))
    display.progressed(progress(17))
    clock.tick(187)

    out.print(display.table())

    text = "\n".join(shown(out))
    assert "✓ DataPrepFlow" in text
    assert "3 min 07 s" in text
    assert "17 of 40 trials, best -0.0412" in text


def test_a_study_without_a_finished_trial_has_no_best_value():
    out = console()

    PlainDisplay(out, Clock()).progressed(progress(0, best=None))

    assert shown(out)[0].endswith("0 of 40 trials")


def test_the_table_is_for_terminals():
    assert isinstance(display_for(console(terminal=True)), LiveDisplay)
    assert isinstance(display_for(console(terminal=False)), PlainDisplay)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (187, "3 min 07 s")]
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text
