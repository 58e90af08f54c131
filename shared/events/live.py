"""Displays of a running chain: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from shared.events.chain import Chain, FlowRun, FlowState, utc_now

if TYPE_CHECKING:
    from shared.storage.progress import Progress

MARKS: Mapping[FlowState, tuple[str, str]] = {
    "waiting": ("·", "dim"),
    "running": ("●", "cyan"),
    "done": ("✓", "green"),
    "idle": ("✓", "dim"),
    "failed": ("✗", "red"),
    "skipped": ("–", "dim"),
    "stopped": ("■", "yellow"),
}
WORDS: Mapping[FlowState, str] = {"done": "finished", "running": "started"}
NOTED: tuple[FlowState, ...] = ("idle", "skipped")
BAR_WIDTH = 16
PLAIN_PERIOD_S = 10.0


def duration(seconds: float) -> str:
    """`4.2 s`, or `3 min 07 s`."""
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)} min {int(rest):02d} s" if minutes else f"{rest:.1f} s"


def trials(progress: Progress) -> str:
    """`17 of 40 trials, best -0.0412`."""
    best = f", best {progress.best:.4g}" if progress.best is not None else ""
    return f"{progress.finished} of {progress.budget} trials{best}"


def flow_line(flow: FlowRun, now: datetime) -> str:
    """What happened to a flow, as a line of a log."""
    line = f"{flow.flow} {WORDS.get(flow.state, flow.state)}"
    if flow.state in ("done", "failed", "stopped") and (elapsed := flow.elapsed_s(now)) is not None:
        line += f" after {duration(elapsed)}"
    return f"{line}: {flow.note}" if flow.state in NOTED else line


class PlainDisplay:
    """A line for each event, and one for each study every ten seconds: for logs and pipes."""

    def __init__(self, console: Console, now: Callable[[], datetime] = utc_now) -> None:
        self._console, self._now = console, now
        self._shown: dict[str, FlowState] = {}
        self._told_at: datetime | None = None

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def changed(self, chain: Chain) -> None:
        for flow in chain.flows.values():
            if flow.state != self._shown.get(flow.flow, "waiting"):
                self._shown[flow.flow] = flow.state
                self._say(flow_line(flow, self._now()))

    def progressed(self, progress: Mapping[str, Progress]) -> None:
        now = self._now()
        if progress and (self._told_at is None or (now - self._told_at).total_seconds() >= PLAIN_PERIOD_S):
            self._told_at = now
            for name, found in progress.items():
                self._say(f"{name}: {trials(found)}")

    def _say(self, line: str) -> None:
        self._console.print(
            f"{self._now().astimezone():%H:%M:%S}  {line}", markup=False, highlight=False, soft_wrap=True
        )


class LiveDisplay:
    """A table with a row per flow, drawn anew a few times a second."""

    def __init__(self, console: Console, now: Callable[[], datetime] = utc_now) -> None:
        self._now = now
        self._chain: Chain | None = None
        self._progress: dict[str, Progress] = {}
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(console=console, get_renderable=self.table, refresh_per_second=8)

    def __enter__(self) -> LiveDisplay:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def changed(self, chain: Chain) -> None:
        self._chain = chain

    def progressed(self, progress: Mapping[str, Progress]) -> None:
        self._progress.update(progress)

    def table(self) -> RenderableType:
        """Mark, flow, elapsed, bar and trials of each flow."""
        table = Table.grid(padding=(0, 1))
        for column in ("mark", "flow", "elapsed", "bar", "trials"):
            table.add_column(no_wrap=True, justify="right" if column == "elapsed" else "left")
        for flow in self._chain.flows.values() if self._chain else ():
            table.add_row(*self._row(flow))
        return Padding(table, (1, 0, 1, 1))

    def _row(self, flow: FlowRun) -> list[RenderableType]:
        mark, style = MARKS[flow.state]
        elapsed = flow.elapsed_s(self._now())
        return [
            self._spinner if flow.state == "running" else Text(mark, style=style),
            Text(flow.flow, style="" if flow.state in ("running", "done") else style),
            Text(duration(elapsed), style="dim") if elapsed is not None else Text(flow.state, style="dim"),
            *self._study(flow),
        ]

    def _study(self, flow: FlowRun) -> list[RenderableType]:
        progress = self._progress.get(flow.flow)
        if progress is None:
            return ["", Text(flow.note if flow.state in NOTED else "", style="dim")]
        total = max(progress.budget, progress.finished, 1)
        bar = ProgressBar(total=total, completed=progress.finished, width=BAR_WIDTH, complete_style="cyan")
        return [bar, Text(trials(progress))]


def display_for(console: Console) -> LiveDisplay | PlainDisplay:
    """The live table on a terminal, else plain lines."""
    return LiveDisplay(console) if console.is_terminal else PlainDisplay(console)
