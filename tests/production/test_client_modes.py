"""The client's three modes beside a cluster: from a script and from a notebook, by pods of the local Argo."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from shared.storage.ledger import Ledger
from tests.flows.conftest import ROOT, execute
from tests.flows.test_client import CONFIG
from tests.production.local_argo import LocalArgo

PREPARE = """
import asyncio, json, time

from sklearn.tree import DecisionTreeClassifier

from shared import HPORunner

DEPTHS = (1, 30)

def build(trial):
    return DecisionTreeClassifier(max_depth=trial.suggest_int("max_depth", *DEPTHS), random_state=0)

def runner(n_trials):
    return HPORunner({config!r}, objective=build, n_trials=n_trials, branch="x")

told = {{"prepared": HPORunner({config!r}, "data_prep").run().run.successful}}
"""
BLOCKING = """
result = runner({first}).run()
told["blocking"] = [result.state, len(result.trials), result.run.successful]
"""
FOLLOW = """
async def follow():
    tuning = await runner({first} + 1).run_async()
    lines = [line async for line in tuning.log()]
    result = await tuning.result()
    return [result.state, len(result.trials), any("Task finished successfully" in line for line in lines)]
"""
TRIGGER = """
remote = runner({first} + 2)
began = time.monotonic()
triggered = remote.trigger(deploy={deploy})
print("trigger returned after", time.monotonic() - began, "s")
while triggered.status == "running":
    time.sleep(0.2)
result = remote.result()
told["triggered"] = [result.state, len(result.trials), result.run.successful]
told["run"] = triggered.run
"""


def test_a_script_and_a_notebook_tune_here_and_by_what_is_deployed(argo: LocalArgo, tmp_path: Path):
    config = tmp_path / "iris.toml"
    config.write_text(CONFIG)

    script = tmp_path / "tune.py"
    text = PREPARE + BLOCKING + FOLLOW + 'told["async"] = asyncio.run(follow())' + TRIGGER + "print(json.dumps(told))"
    script.write_text(text.format(config=str(config), first=1, deploy=True))
    told = json.loads(run_script(script))
    check(told, first=1)

    cells = [PREPARE, BLOCKING, FOLLOW, 'told["async"] = await follow()', TRIGGER, "print(json.dumps(told))"]
    told = json.loads(run_notebook([cell.format(config=str(config), first=4, deploy=False) for cell in cells]))
    check(told, first=4)

    assert [run.flow for run in argo.wait()] == ["ClassicalHPOFlow", "ClassicalHPOFlow"]
    (entry,) = Ledger().entries("iris")
    assert (entry.state, entry.run, sum(entry.outcome["counts"].values())) == ("done", told["run"], 6)
    assert "study iris/classical" in argo.runs()[-1].log


def check(told: dict[str, object], first: int) -> None:
    modes = [told["blocking"], told["async"], told["triggered"]]
    assert told["prepared"] is True
    assert modes == [["done", first + i, True] for i in range(3)]
    assert str(told["run"]).startswith("ClassicalHPOFlow/argo-")


def run_script(script: Path) -> str:
    """The last line that it prints."""
    return execute(sys.executable, str(script), ok=True).stdout.splitlines()[-1]


def run_notebook(cells: list[str]) -> str:
    """The last line that it prints."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, resources={"metadata": {"path": str(ROOT)}}).execute()
    return str(notebook.cells[-1]["outputs"][-1]["text"]).splitlines()[-1]
