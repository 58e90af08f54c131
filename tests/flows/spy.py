"""Which heavy packages each task of the flows imports: none is to pay for what it doesn't use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

HEAVY = {"torch", "mlflow", "xgboost", "sklearn"}

# Python runs it at its start; at its end it writes down what the process has imported.
SPY = """
import atexit, json, sys
from pathlib import Path

def tell():
    if "step" in sys.argv:
        flow, step = Path(sys.argv[0]).parent.name, sys.argv[sys.argv.index("step") + 1]
        with open({file!r}, "a") as file:
            file.write(json.dumps([flow, step, sorted({heavy!r} & sys.modules.keys())]) + "\\n")

atexit.register(tell)
"""


def start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """From now on each task of a test's commands adds a line to this file: flow, step, heavy packages imported."""
    file = folder / "imported.jsonl"
    (folder / "sitecustomize.py").write_text(SPY.format(file=str(file), heavy=HEAVY))
    monkeypatch.setattr("tests.flows.conftest.EXTRA_PATH", (str(folder),))
    return file


def seen(file: Path) -> dict[tuple[str, str], set[str]]:
    """What the tasks of each step imported since the last look."""
    found: dict[tuple[str, str], set[str]] = {}
    for line in file.read_text().splitlines():
        flow, step, packages = json.loads(line)
        found.setdefault((flow, step), set()).update(packages)
    file.unlink()
    return found


ALLOWED = {
    ("data_prep", "prepare"): {"sklearn"},
    ("classical_hpo", "tune"): {"sklearn", "xgboost"},
    ("classical_hpo", "retrain"): {"sklearn", "xgboost", "mlflow"},
    ("deep_hpo", "tune"): {"sklearn", "torch"},
    ("deep_hpo", "retrain"): {"torch", "sklearn", "mlflow"},
    ("system_tune", "tune"): {"sklearn", "xgboost", "torch"},
    ("system_tune", "promote"): {"sklearn", "xgboost", "torch", "mlflow"},
}


def unneeded(tasks: dict[tuple[str, str], set[str]]) -> dict[tuple[str, str], set[str]]:
    """What tasks imported and may not."""
    return {task: odd for task, packages in tasks.items() if (odd := packages - ALLOWED.get(task, set()))}
