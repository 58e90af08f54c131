"""What Evertune's loop adds to a trial over Optuna in memory, and whether a large study slows it down."""

import json
import subprocess
import sys
from statistics import median

from benchmarks.report import Table
from benchmarks.sandbox import ROOT, Sandbox, sandbox

FEW, MANY = 1000, 10_000


def measure(repeat: int) -> Table:
    """Medians of `repeat` runs; one worker, RandomSampler, 4 parameters and 5 reports a trial, budget and leases on."""
    few, memory, many, opened = [], [], [], []
    for _ in range(repeat):
        with sandbox() as box:
            box.evertune("services", "start")
            memory.append(worker(box, "memory", FEW)["ms"])
            few.append(worker(box, "engine", FEW)["ms"])
        with sandbox() as box:
            box.evertune("services", "start")
            many.append(worker(box, "engine", MANY))
            opened.append(worker(box, "open", MANY)["seconds"])
    added = [mine - its for mine, its in zip(few, memory, strict=True)]
    growth = [one["last_ms"] / one["first_ms"] for one in many]
    rows = (
        ("a trial in memory, by Optuna alone, ms", median(memory), ""),
        ("a trial on PostgreSQL, by Evertune's loop, ms", median(few), ""),
        ("what the engine adds to a trial, ms", median(added), "<= 5"),
        (f"{MANY:,} trials: a trial of the first thousand, ms", median(one["first_ms"] for one in many), ""),
        (f"{MANY:,} trials: a trial of the last thousand, ms", median(one["last_ms"] for one in many), ""),
        (f"{MANY:,} trials: the last thousand over the first", median(growth), "<= 1.3"),
        (f"{MANY:,} trials: memory of the worker, MiB", median(one["memory_mib"] for one in many), "<= 200"),
        (f"{MANY:,} trials: opening the study and reading it, s", median(opened), "<= 0.6"),
    )
    return Table("engine", f"The trial engine, one worker (medians of {repeat})", ("figure", "measured", "goal"), rows)


def worker(box: Sandbox, what: str, n_trials: int) -> dict[str, float]:
    command = (sys.executable, "-m", "benchmarks.engine_worker", what, str(n_trials))
    done = subprocess.run(command, cwd=ROOT, env=box.env, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures
