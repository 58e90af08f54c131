"""The whole chain on digits, from an installed environment: the first run by flow, and again with unchanged data."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from statistics import median

from benchmarks.report import Table
from benchmarks.sandbox import ROOT, Sandbox, sandbox

Interval = tuple[datetime, datetime]
Row = tuple[str | float, ...]


def measure(repeat: int) -> Table:
    """One first run (its study differs every time) and `repeat` runs on unchanged data."""
    with sandbox() as box:
        first = box.evertune("run", "digits")
        flows = by_flow(box)
        again = median(box.evertune("run", "digits") for _ in range(repeat))
    busy = covered([interval for _, intervals in flows.values() for interval in intervals])
    return Table(
        "chain",
        "evertune run digits",
        ("run", "wall, s", "of it trials and fits, s", "rest, s", "goal, s"),
        [
            ("first run, whole chain", first, busy, first - busy, "150, rest 45"),
            *flow_rows(flows),
            (f"again, unchanged data (median of {repeat})", again, "-", "-", "12"),
        ],
        notes=("ClassicalHPOFlow and DeepHPOFlow run side by side.",),
    )


def by_flow(box: Sandbox) -> dict[str, tuple[Interval, list[Interval]]]:
    """When each flow of the newest chain ran, and its trials and fits."""
    command = (sys.executable, "-m", "benchmarks.intervals", "digits")
    done = subprocess.run(command, cwd=ROOT, env=box.env, capture_output=True, text=True, check=True)
    return {name: (parsed(ran), [*map(parsed, busy)]) for name, (ran, busy) in json.loads(done.stdout).items()}


def parsed(times: Sequence[str]) -> Interval:
    begin, end = map(datetime.fromisoformat, times)
    return begin, end


def flow_rows(flows: Mapping[str, tuple[Interval, Iterable[Interval]]]) -> list[Row]:
    """A row per flow: how long it ran, of it while a trial or fit ran, and the rest."""
    timed = [(name, covered([ran]), covered(busy)) for name, (ran, busy) in flows.items()]
    return [(f"  {name}", wall, busy, wall - busy, "-") for name, wall, busy in timed]


def covered(intervals: Iterable[Interval]) -> float:
    """Seconds that are in at least one of the intervals."""
    return sum((end - begin).total_seconds() for begin, end in merged(intervals))


def merged(intervals: Iterable[Interval]) -> Sequence[Interval]:
    """The union of intervals as disjoint ones, in order."""
    union: list[Interval] = []
    for begin, end in sorted(intervals):
        if union and begin <= union[-1][1]:
            union[-1] = (union[-1][0], max(end, union[-1][1]))
        else:
            union.append((begin, end))
    return union
