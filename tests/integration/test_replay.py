"""`evertune replay`: a recorded trial once more, from the objective, the rows and the random numbers of then."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from typer.testing import CliRunner

from shared.cli.app import app
from shared.config import UseCase
from shared.domain import TuningResult, Variant
from shared.errors import DataError, FlowError, StudyFailed
from shared.flow import hpo, system
from shared.flow.plan import Plan
from shared.flow.replay import plan_of, replay
from shared.storage.ledger import Ledger
from shared.storage.studies import delete_study
from tests.on_record import prepare_rows

FOREST = """
from sklearn.ensemble import RandomForestClassifier

def build(trial):
    return RandomForestClassifier(n_estimators=5, max_depth=trial.suggest_int("max_depth", 1, 6))
"""
WORSE_AND_WORSE = """
from sklearn.tree import DecisionTreeClassifier

def build(trial):
    trial.suggest_float("x", 0, 1)
    return DecisionTreeClassifier(max_depth=2 + trial.number, min_samples_leaf=max(1, 12 - 2 * trial.number))
"""
FAILS = """
def objective(trial):
    x = trial.suggest_float("x", 0, 1)
    trial.report(x, 0)
    return broken(trial.number) + trial.suggest_float("y", 0, 1)

def broken(number):
    raise ValueError(f"no room for trial {number}")
"""
NETWORK = """
from torch import nn

def build(trial):
    width = trial.suggest_int("width", 4, 16)
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, 3))

def fit_plan(trial):
    return {"lr": trial.suggest_float("lr", 1e-3, 1e-1, log=True), "batch_size": 32, "epochs": 3}
"""
OWN_SCORE = """
import numpy as np

def objective(trial, data):
    noise = np.random.default_rng(trial.number).normal()
    return float(data.X.iloc[0, 0]) * trial.suggest_float("x", 0, 1) + noise
"""
SCRIPT = "def objective(trial): return trial.suggest_float('x', 0, 1) ** 2\n"
BY_CHANCE = "import random\n\ndef objective(trial): return trial.suggest_float('x', 0, 1) + random.random()\n"


def use_case(**tables: Any) -> UseCase:
    config = {
        "name": "toy",
        "title": "Toy",
        "data": {"source": "sklearn:iris", "target": "target"},
        "tuning": {"metric": "neg_log_loss", "folds": 3, "seed": 3},
    }
    return UseCase.model_validate(config | tables)


def tuned(
    folder: Path,
    source: str,
    variant: Variant = "classical",
    n_trials: int = 2,
    table: Mapping[str, Any] = MappingProxyType({}),
    **others: Any,
) -> UseCase:
    """A use case whose study of the variant is tuned and on record, by one worker, as its flow does it."""
    (folder / f"{variant}.py").write_text(source)
    always = {"objective": f"{variant}.py", "n_trials": n_trials, "workers": 1, "max_failures": 2}
    config = use_case(**others | {variant: always | table})
    prepare_rows(config)
    plan = hpo.plan(config, variant, folder, run="HPOFlow/1")
    stats = [hpo.tune(plan, 0, 1, "HPOFlow/1/tune/1")]
    try:
        result, _ = hpo.select(plan, stats, "HPOFlow/1")
    except StudyFailed:
        return config
    finish(plan, result, "HPOFlow/1")
    return config


def finish(plan: Plan, result: TuningResult, run: str) -> None:
    """Record the study as done, with no model: what is replayed is its trials."""
    hpo.conclude(plan, result, run, "unused", retrain=lambda: None, publish=lambda _: None)


pytestmark = pytest.mark.usefixtures("home")


@pytest.mark.parametrize(
    ("variant", "source"),
    [
        pytest.param("classical", FOREST, id="build: a forest's random numbers"),
        pytest.param("classical", OWN_SCORE, id="objective(trial, data): the rows and the trial's number"),
        pytest.param("classical", SCRIPT, id="objective(trial)"),
        pytest.param("deep", NETWORK, id="a network: initial weights, batches and dropout"),
    ],
)
def test_the_best_trial_ends_as_it_did(tmp_path: Path, variant: Variant, source: str) -> None:
    config = tuned(tmp_path, source, variant, n_trials=3)
    again = replay(config)
    entry = Ledger().entry(again.study)
    assert entry is not None
    assert (again.number, again.recorded.values[0]) == (entry.outcome["trial"], entry.outcome["value"])
    assert again.replayed.values == again.recorded.values
    assert again.difference == ""


def test_a_pruned_trial_goes_as_far_as_it_did(tmp_path: Path) -> None:
    again = replay(tuned(tmp_path, WORSE_AND_WORSE, n_trials=7), number=6)
    assert (again.recorded.state, again.replayed.state) == ("PRUNED", "PRUNED")
    assert [*again.replayed.reports] == [0]
    assert again.replayed.reports == again.recorded.reports
    assert again.difference == ""


def test_a_trial_of_several_values_is_replayed_with_what_it_reported(tmp_path: Path) -> None:
    source = "def objective(trial):\n    trial.report(trial.suggest_float('x', 0, 1), 0)\n    return 1.0, 2.0\n"
    several = {"directions": ["maximize", "minimize"], "metrics": ["gain", "mb"], "guard": "gain"}
    again = replay(tuned(tmp_path, source, table=several))
    assert (again.names, again.difference) == (["gain", "mb"], "")
    assert again.replayed.reports == again.recorded.reports != {}


def test_a_failed_trial_fails_again_and_its_traceback_begins_in_the_objective(tmp_path: Path) -> None:
    again = replay(tuned(tmp_path, FAILS))
    assert again.number == 1, "the last one, since none is the best"
    assert (again.recorded.state, again.replayed.state, again.difference) == ("FAIL", "FAIL", "")
    assert again.replayed.reports == again.recorded.reports
    head, first, *_, last = again.replayed.error.splitlines()
    assert head == "Traceback (most recent call last):"
    assert first.startswith('  File "')
    assert "classical.py@" in first
    assert last == "ValueError: no room for trial 1"


def test_a_trial_that_goes_further_than_then_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = FAILS.replace(
        "raise ValueError", "import os\n    if os.environ.get('ROOM'): return 0\n    raise ValueError"
    )
    config = tuned(tmp_path, source)
    monkeypatch.setenv("ROOM", "enough")
    again = replay(config, number=0)
    assert "asks for 'y' now, and had x" in again.replayed.error
    assert "it failed by 'ValueError: no room for trial 0', and now by" in again.difference


def test_the_objective_of_then_is_used_however_its_file_has_changed(tmp_path: Path) -> None:
    config = tuned(tmp_path, SCRIPT)
    (tmp_path / "classical.py").write_text("this is no Python any more")
    assert replay(config, number=1).difference == ""


def test_the_metric_of_then_is_used_however_the_config_has_changed(tmp_path: Path) -> None:
    config = tuned(tmp_path, FOREST)
    accuracy = config.model_copy(update={"tuning": config.tuning.model_copy(update={"metric": "accuracy"})})
    again = replay(accuracy)
    assert (again.names, again.difference) == (["neg_log_loss"], "")


def test_an_older_study_is_replayed_by_its_name(tmp_path: Path) -> None:
    config = tuned(tmp_path, SCRIPT)
    older = replay(config).study
    tuned(tmp_path, SCRIPT + "# edited\n")
    assert replay(config).study != older
    assert replay(config, study=older).study == older


def test_a_system_is_replayed_without_what_the_cache_remembers(tmp_path: Path) -> None:
    config = tuned(tmp_path, FOREST, system={"n_trials": 3, "workers": 2, "latency_budget_ms": 1000.0})
    plan = system.plan(config, run="SystemTuneFlow/1")
    stats = [system.tune(plan, 0, 1, "SystemTuneFlow/1/tune/1")]
    result, _ = system.select(plan, stats, "SystemTuneFlow/1")
    finish(plan, result, "SystemTuneFlow/1")
    for scores in Path(plan.data.uri).glob("oof/**/*.npz"):
        scores.write_bytes(b"not read")

    again = replay(config)
    assert again.study.startswith("toy/system/")
    assert again.replayed.values[0] == again.recorded.values[0]
    assert again.replayed.values[1] != again.recorded.values[1], "the latency is measured anew"
    assert (again.difference, again.timed) == ("", True)
    (entry,) = (e for e in Ledger().entries(config.name) if e.variant == "system")
    assert plan_of(entry, plan.study, config).workers == plan.workers, "as many threads for each as when it was tuned"

    other = config.model_copy(update={"tuning": config.tuning.model_copy(update={"metric": "accuracy"})})
    with pytest.raises(FlowError, match=r"lacks classical|have changed; replay a trial of a member"):
        replay(other)


def test_what_is_missing_is_told_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(FlowError, match=r"but there is none; on record, newest first: none. `evertune run toy`"):
        replay(use_case(classical={"objective": "classical.py"}))
    config = tuned(tmp_path, SCRIPT)
    name = replay(config).study
    with pytest.raises(FlowError, match=f"none of deep; on record, newest first: {name}"):
        replay(config, "deep")
    with pytest.raises(FlowError, match=f"there is no 'toy/x'; on record, newest first: {name}"):
        replay(config, study="toy/x")
    with pytest.raises(FlowError, match=f"but is 7; {name} has 0 to 1"):
        replay(config, number=7)


def test_rows_an_objective_or_trials_that_are_gone_are_named(tmp_path: Path, home: Path) -> None:
    del home
    config = tuned(tmp_path, OWN_SCORE)
    ref = Ledger().newest_dataset("toy")
    assert ref is not None
    shutil.rmtree(ref.uri)
    with pytest.raises(DataError, match="dataset version"):
        replay(config)
    from shared.storage.database import connect

    with connect() as connection:
        connection.execute("DELETE FROM evertune.objective_sources")
    with pytest.raises(DataError, match="an objective's source must be on record"):
        replay(config)
    delete_study(Ledger().entries("toy")[0].study)
    with pytest.raises(FlowError, match="that study was deleted from the database"):
        replay(config)


def shown(config: UseCase, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr("shared.config.load_use_case", lambda _: config)
    result = CliRunner().invoke(app, ["replay", "toy", *arguments])
    return result.exit_code, result.output


def test_the_command_shows_both_and_that_they_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tuned(tmp_path, SCRIPT)
    status, output = shown(config, monkeypatch, "--trial", "1", "--variant", "classical")
    value = replay(config, number=1).recorded.values[0]
    assert status == 0
    assert f"recorded    COMPLETE value {value!r}" in output
    assert f"replayed    COMPLETE value {value!r}" in output
    assert output.endswith("the same\n")


def test_the_command_fails_where_a_trial_isnt_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, output = shown(tuned(tmp_path, BY_CHANCE), monkeypatch)
    assert status == 1
    assert "not the same: value was" in output
    assert "a trial repeats if all random numbers of its objective come from a seed" in output


def test_the_command_shows_a_failed_trials_reports_and_its_traceback_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, output = shown(tuned(tmp_path, FAILS), monkeypatch)
    assert status == 0
    assert "step 0" in output
    assert output.count("Traceback") == 1
    assert 'raise ValueError(f"no room for trial {number}")' in output
