"""Each flow by itself: what it does, what it says of bad input, and that nothing is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from shared.config import load_use_case
from shared.storage.ledger import Ledger
from tests.flows.conftest import IRIS, ROOT, Command
from tests.on_record import prepare_rows

CONFIG = (
    IRIS
    + """folds = 3
[classical]
objective = "{objective}"
n_trials = {n_trials}
workers = 2
max_failures = 3
"""
)


@pytest.fixture
def iris(tmp_path: Path, home: Path) -> Path:
    """The iris use case, its data prepared; its objective is a file of the test's folder."""
    del home
    path = configure(tmp_path, "def build(trial): ...", 4)
    prepare_rows(load_use_case(path))
    return path


def configure(folder: Path, source: str, n_trials: int) -> Path:
    objective, config = folder / "objective.py", folder / "iris.toml"
    objective.write_text(source)
    config.write_text(CONFIG.format(objective=objective, n_trials=n_trials))
    return config


TREE = """
from sklearn.tree import DecisionTreeClassifier

def build(trial):
    return DecisionTreeClassifier(max_depth=trial.suggest_int("max_depth", 2, 16), random_state=0)
"""


pytestmark = pytest.mark.usefixtures("forked")
SCRIPT = "def objective(trial): return trial.suggest_float('x', 0, 1)\n"  # imports next to nothing


def test_a_study_is_tuned_once_and_a_larger_budget_adds_to_it(iris: Path, flow: Command) -> None:
    config = configure(iris.parent, SCRIPT, 4)
    assert "4 trials, 2 workers" in flow("classical_hpo", config).stdout
    assert "nothing changed" in flow("classical_hpo", config).stdout
    flow("classical_hpo", configure(iris.parent, SCRIPT, 6))
    (entry,) = Ledger().entries("iris")
    assert (entry.state, sum(entry.outcome["counts"].values())) == ("done", 6)
    flow("classical_hpo", configure(iris.parent, SCRIPT, 4), "--force", "True")
    (entry,) = Ledger().entries("iris")
    assert sum(entry.outcome["counts"].values()) == 4


def test_unchanged_data_can_add_its_budget_to_the_study_each_time(iris: Path, flow: Command) -> None:
    config = configure(iris.parent, SCRIPT, 3)
    config.write_text(config.read_text() + '[schedule]\nwhen_unchanged = "continue"\n')
    assert "3 trials" in flow("classical_hpo", config).stdout
    flow("data_prep", config)
    assert "6 trials" in flow("classical_hpo", config).stdout
    assert "nothing changed" in flow("classical_hpo", config).stdout, "its event came twice"
    (entry,) = Ledger().entries("iris")
    assert (entry.state, entry.outcome["budget"], entry.outcome["counts"]) == ("done", 6, {"COMPLETE": 6})


def test_what_no_event_has_started_is_caught_up_on(iris: Path, checkout: Path, evertune: Command) -> None:
    config = configure(iris.parent, SCRIPT, 3)
    shutil.copy(config, checkout / "configs" / "iris.toml")
    why = "no run has asked for it yet"
    assert f": {why}" in evertune("status", "iris", cwd=checkout).stdout
    caught_up = evertune("catch-up", "iris", cwd=checkout).stdout
    assert f"iris: ClassicalHPOFlow is due, {why}" in caught_up
    assert "DataPrepFlow idle: the newest dataset version is caught up on" in caught_up
    (entry,) = Ledger().entries("iris")
    assert entry.state == "done"
    assert "iris: nothing is due" in evertune("catch-up", "iris", cwd=checkout).stdout
    assert "digits: no dataset version yet" in evertune("catch-up", "digits", cwd=checkout).stdout


def test_an_unchanged_optuna_script_is_tuned_and_not_registered(iris: Path, flow: Command) -> None:
    source = (ROOT / "benchmarks" / "iris_script.py").read_text()
    flow("classical_hpo", configure(iris.parent, source, 4))
    (entry,) = Ledger().entries("iris")
    assert (entry.state, entry.outcome["model"]) == ("done", None)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (
            "def build(trial):\n    raise RuntimeError('no luck')\n",
            ["must have a complete trial", "no luck"],
        ),
        ("def objective(trial):\n    return 'high'\n", ["must return a number", "'high'"]),
        ("def bild(trial): ...\n", ["must define one of", "`bild`"]),
        ("import not_there\n\ndef build(trial): ...\n", ["must import without an error", "not_there"]),
    ],
)
def test_an_objective_that_breaks_the_contract_fails_the_flow_with_the_rule(
    iris: Path, flow: Command, source: str, says: list[str]
) -> None:
    done = flow("classical_hpo", configure(iris.parent, source, 4), ok=False)
    assert [part for part in says if part not in done.stdout + done.stderr] == []
    assert all(entry.state != "done" for entry in Ledger().entries("iris"))


def test_a_trial_that_raises_costs_that_trial_only(iris: Path, flow: Command) -> None:
    source = TREE.replace("def build(trial):", "def build(trial):\n    if trial.number == 1: raise ValueError('once')")
    flow("classical_hpo", configure(iris.parent, source, 4))
    (entry,) = Ledger().entries("iris")
    assert (entry.state, entry.outcome["model"]) == ("done", "iris-classical")
    counts = entry.outcome["counts"]
    assert counts["FAIL"] == 1
    assert counts["COMPLETE"] + counts.get("PRUNED", 0) == 4


def test_a_missing_objective_file_is_named_with_those_that_are_there(iris: Path, flow: Command) -> None:
    iris.write_text(CONFIG.format(objective="objectives/dogits.py", n_trials=2))
    done = flow("classical_hpo", iris, ok=False)
    assert "there is no such objective file; did you mean 'digits.py'?" in done.stdout + done.stderr


def test_a_study_without_data_is_told_what_to_run_first(tmp_path: Path, flow: Command) -> None:
    done = flow("classical_hpo", configure(tmp_path, TREE, 2), ok=False)
    assert "run DataPrepFlow first" in done.stdout + done.stderr


def test_a_system_without_its_variants_is_told_what_is_missing(iris: Path, flow: Command) -> None:
    iris.write_text(iris.read_text() + "[system]\nn_trials = 2\n")
    done = flow("system_tune", iris, ok=False)
    assert "variants (classical) are all done, but there is none yet" in done.stdout + done.stderr


def test_promotion_without_train_is_refused_before_the_first_trial(iris: Path, flow: Command) -> None:
    config = configure(iris.parent, "def objective(trial): return 1.0\n", 2)
    config.write_text(config.read_text() + "[system]\nn_trials = 2\n[promotion]\n")
    done = flow("classical_hpo", config, ok=False)
    assert "add `train(trial, data)`" in done.stdout + done.stderr
    assert Ledger().entries("iris") == []


def test_an_unreachable_database_is_named_without_its_password(
    iris: Path, flow: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERTUNE_DATABASE_URL", "postgresql://someone:hush@localhost:1/nowhere")
    done = flow("classical_hpo", iris, ok=False)
    assert "localhost:1/nowhere" in done.stdout + done.stderr
    assert "hush" not in done.stdout + done.stderr
