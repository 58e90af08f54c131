"""No task pays for what it doesn't use: which heavy packages each task of the flows imports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.flows.conftest import ROOT, Command

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


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a line per task: flow, step, and the heavy packages that it imported."""
    file = tmp_path / "imported.jsonl"
    (tmp_path / "sitecustomize.py").write_text(SPY.format(file=str(file), heavy=HEAVY))
    monkeypatch.setattr("tests.flows.conftest.EXTRA_PATH", (str(tmp_path),))
    return file


def seen(file: Path) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for line in file.read_text().splitlines():
        flow, step, packages = json.loads(line)
        found.setdefault((flow, step), set()).update(packages)
    return found


def test_a_task_imports_only_what_it_uses(imported: Path, flow: Command) -> None:
    config = ROOT / "configs" / "breast_cancer.toml"
    few = imported.parent / "breast_cancer.toml"
    few.write_text(config.read_text().replace("n_trials = 40", "n_trials = 2"))
    for folder in ("data_prep", "classical_hpo", "classical_hpo", "deep_hpo"):
        flow(folder, few)
    found = seen(imported)
    allowed = {
        ("data_prep", "prepare"): {"sklearn"},
        ("classical_hpo", "tune"): {"sklearn", "xgboost"},
        ("classical_hpo", "retrain"): {"sklearn", "xgboost"},
        ("classical_hpo", "end"): {"mlflow"},
    }
    needless = {task: packages - allowed.get(task, set()) for task, packages in found.items()}
    assert {task: packages for task, packages in needless.items() if packages} == {}
    assert len(found) == 3 + 5 + 5
