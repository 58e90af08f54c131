"""What the flow adds: the iris study through `ClassicalHPOFlow` with two workers, against Optuna alone in memory."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.report import Table
from benchmarks.sandbox import ROOT, Sandbox, sandbox

# name, trials, objective relative to the flow's folder, goal in seconds
CASES = (
    ("tuning only", 12, "../../benchmarks/iris_script.py", 7.0),
    ("tuning only", 100, "../../benchmarks/iris_script.py", 8.0),
    ("retrained and registered", 12, "../../benchmarks/iris_tree.py", 14.0),
    ("retrained and registered", 100, "../../benchmarks/iris_tree.py", 14.0),
)

RATIOS = ("flow / Optuna alone", "flow / Optuna with its process")


def measure(repeat: int) -> Table:
    """Medians of `repeat` runs of each; every run has a study of its own."""
    with sandbox() as box:
        box.flow("data_prep", str(config(box, CASES[0][2], 12)))
        box.flow("classical_hpo", str(config(box, CASES[2][2], 2)))  # MLflow's tables are created once
        rows = [row(box, *case, repeat) for case in CASES]
    return Table(
        "overhead",
        f"The iris study through ClassicalHPOFlow, 2 workers (medians of {repeat})",
        ("case", "trials", "flow run, s", "goal, s", "Optuna alone, s", "Optuna with its process, s", *RATIOS),
        rows,
    )


def row(box: Sandbox, case: str, n_trials: int, objective: str, goal: float, repeat: int) -> tuple[str | float, ...]:
    flow, process = [], []
    for _ in range(repeat):
        flow.append(box.flow("classical_hpo", str(config(box, objective, n_trials)), "--force", "True"))
        process.append(box.run(sys.executable, "-m", "benchmarks.optuna_alone", str(n_trials)))
    inside = [optuna_seconds(n_trials) for _ in range(repeat)]
    return case, str(n_trials), median(flow), goal, *compared(flow, inside, process)


def compared(flow: Sequence[float], inside: Sequence[float], process: Sequence[float]) -> tuple[float, ...]:
    """Medians of Optuna's seconds, in its process and with it, then the flow's median as a multiple of each."""
    optuna = median(inside), median(process)
    return *optuna, *(median(flow) / seconds for seconds in optuna)


def config(box: Sandbox, objective: str, n_trials: int) -> Path:
    """The iris use case with an objective and a budget, as a file in the sandbox."""
    text = (ROOT / "benchmarks" / "iris.toml").read_text().format(objective=objective, n_trials=n_trials)
    folder = box.home.parent / f"{n_trials}-{Path(objective).stem}"
    folder.mkdir(exist_ok=True)
    path = folder / "iris.toml"
    path.write_text(text)
    return path


def optuna_seconds(n_trials: int) -> float:
    """Seconds of `study.optimize` alone, imports not counted."""
    command = (sys.executable, "-m", "benchmarks.optuna_alone", str(n_trials))
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
