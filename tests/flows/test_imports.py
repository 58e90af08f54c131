"""No task pays for what it doesn't use: which heavy packages each task of the flows imports."""

from __future__ import annotations

import json
import re
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
    ("classical_hpo", "retrain"): {"sklearn", "xgboost"},
    ("classical_hpo", "end"): {"mlflow"},
    ("deep_hpo", "tune"): {"sklearn", "torch"},
    ("deep_hpo", "retrain"): {"torch", "sklearn"},
    ("deep_hpo", "end"): {"mlflow"},
    ("system_tune", "tune"): {"sklearn", "xgboost", "torch"},
    ("system_tune", "promote"): {"sklearn", "xgboost", "torch", "mlflow"},
}


def test_each_flow_by_itself_imports_in_each_task_only_what_it_uses(imported: Path, flow: Command) -> None:
    config = imported.parent / "digits.toml"
    text = (ROOT / "configs" / "digits.toml").read_text().replace("# rows = 1200 ", "rows = 300")
    config.write_text(re.sub(r"n_trials = \d+", "n_trials = 2", text))
    folders = ("data_prep", "classical_hpo", "deep_hpo", "system_tune")

    for folder in folders:
        flow(folder, config)
    busy = seen(imported)
    assert {task: packages - ALLOWED.get(task, set()) for task, packages in busy.items()} == {t: set() for t in busy}
    assert {flow_name for flow_name, _ in busy} == set(folders)
    assert "torch" in busy["deep_hpo", "tune"]

    for folder in folders[1:]:
        assert "nothing changed" in flow(folder, config).stdout
    idle = seen(imported)
    assert {task: packages for task, packages in idle.items() if packages} == {}
    assert len(idle) == 3 * 5
