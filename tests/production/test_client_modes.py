"""The client beside a cluster: from a script and from a notebook, on this machine and by pods of the local Argo."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from shared.config import load_use_case
from shared.storage.ledger import Ledger
from tests.flows.conftest import ROOT, execute
from tests.flows.test_client import CONFIG
from tests.on_record import prepare_rows
from tests.production.local_argo import LocalArgo

BEGIN = """
import asyncio, json, time

from sklearn.tree import DecisionTreeClassifier

from shared import HPORunner

DEPTHS = (1, 30)

def build(trial):
    return DecisionTreeClassifier(max_depth=trial.suggest_int("max_depth", *DEPTHS), random_state=0)

def runner(n_trials):
    return HPORunner({config!r}, objective=build, n_trials=n_trials, branch="x")

told = {{}}
"""
BLOCKING = """
result = runner({first}).run()
told["here"] = [result.state, len(result.trials), result.run.successful]
"""
FOLLOW = """
async def follow():
    tuning = await runner({first}).run_async()
    lines = [line async for line in tuning.log()]
    assert any("Task finished successfully" in line for line in lines)
    return await tuning.result()

result = await follow()
told["here"] = [result.state, len(result.trials), result.run.successful]
"""
TRIGGER = """
remote = runner({first} + 1)
triggered = remote.trigger(deploy={deploy})
while triggered.status == "running":
    time.sleep(0.2)
result = remote.result()
told["triggered"] = [result.state, len(result.trials), result.run.successful]
told["run"] = triggered.run
"""
END = "print(json.dumps(told))"


@pytest.mark.usefixtures("forked")
def test_a_script_and_a_notebook_tune_here_and_by_what_is_deployed(argo: LocalArgo, tmp_path: Path):
    config = tmp_path / "iris.toml"
    config.write_text(CONFIG)
    prepare_rows(load_use_case(config))

    script = tmp_path / "tune.py"
    script.write_text((BEGIN + BLOCKING + TRIGGER + END).format(config=str(config), first=1, deploy=True))
    told = json.loads(run_script(script))
    check(told, first=1)

    cells = [cell.format(config=str(config), first=3, deploy=False) for cell in (BEGIN, FOLLOW, TRIGGER, END)]
    told = json.loads(run_notebook(cells))
    check(told, first=3)

    assert [run.flow for run in argo.wait()] == ["ClassicalHPOFlow", "ClassicalHPOFlow"]
    (entry,) = Ledger().entries("iris")
    assert (entry.state, entry.run, sum(entry.outcome["counts"].values())) == ("done", told["run"], 4)
    assert "study iris/classical" in argo.runs()[-1].log


def check(told: dict[str, object], first: int) -> None:
    assert [told["here"], told["triggered"]] == [["done", first, True], ["done", first + 1, True]]
    assert str(told["run"]).startswith("ClassicalHPOFlow/argo-")


def run_script(script: Path) -> str:
    """The last line that it prints."""
    return execute(sys.executable, str(script), ok=True).stdout.splitlines()[-1]


def run_notebook(cells: list[str]) -> str:
    """The last line that it prints."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, resources={"metadata": {"path": str(ROOT)}}).execute()
    return str(notebook.cells[-1]["outputs"][-1]["text"]).splitlines()[-1]
