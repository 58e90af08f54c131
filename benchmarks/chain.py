"""The whole chain on digits, from an installed environment: the first run by part, and again with unchanged data."""

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from statistics import median

from benchmarks.report import Table
from benchmarks.sandbox import ROOT, Sandbox, sandbox

Interval = tuple[datetime, datetime]


def measure(repeat: int) -> Table:
    """One first run (its study differs every time) and `repeat` runs on unchanged data."""
    with sandbox() as box:
        first = box.evertune("run", "digits")
        busy = covered(box)
        again = median(box.evertune("run", "digits") for _ in range(repeat))
    return Table(
        "chain",
        "evertune run digits",
        ("figure", "seconds", "goal, s"),
        [
            ("first run, whole chain", first, 150.0),
            ("  of it while a trial or fit runs", busy, "-"),
            ("  of it while none runs", first - busy, 45.0),
            (f"again, unchanged data (median of {repeat})", again, 12.0),
        ],
    )


def covered(box: Sandbox) -> float:
    """Wall seconds during which at least one trial or retraining ran."""
    command = (sys.executable, "-m", "benchmarks.intervals", "digits")
    done = subprocess.run(command, cwd=ROOT, env=box.env, capture_output=True, text=True, check=True)
    intervals = [(datetime.fromisoformat(a), datetime.fromisoformat(b)) for a, b in json.loads(done.stdout)]
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
