"""Trials of several values are pruned by the one that the config names as guard, on a real PostgreSQL."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial

from shared.domain import StudySpec
from shared.flow.cards import study_card
from shared.storage import PostgresStorage
from shared.tuning.select import select
from shared.tuning.study import open_study
from shared.tuning.worker import run_worker

pytestmark = [
    pytest.mark.usefixtures("database"),
]
GOOD_AT_FIRST = 6


def spec(**changes: Any) -> StudySpec:
    values: dict[str, Any] = {
        "name": "toy/classical/0/1", "use_case": "toy", "variant": "classical", "fingerprint": "0",
        "objective_hash": "1", "directions": ("minimize", "maximize"), "n_trials": 12,
        "metrics": ("size_mb", "accuracy"), "guard": "accuracy",
    }  # fmt: skip
    return StudySpec(**values | changes)


def accuracy(trial: optuna.Trial) -> float:
    """Each trial is better than those before; but after the first few, every other one is bad."""
    return 0.2 if trial.number >= GOOD_AT_FIRST and trial.number % 2 else 0.8 + trial.number / 100


def sized(trial: optuna.Trial, sign: int = 1) -> tuple[float, float]:
    size_mb = trial.suggest_float("size_mb", 1, 9)
    for step in range(1, 6):
        trial.report(sign * (accuracy(trial) - step / 1000), step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return size_mb, sign * accuracy(trial)


def trials(study_spec: StudySpec) -> list[FrozenTrial]:
    return open_study(study_spec, PostgresStorage()).trials


def pruned(study_spec: StudySpec) -> list[int]:
    return [trial.number for trial in trials(study_spec) if trial.state.name == "PRUNED"]


BAD = [7, 9, 11]


def test_auto_prunes_what_the_guard_says_is_bad_and_the_sampler_goes_on() -> None:
    run_worker(spec(n_trials=16), sized)  # TPE's own suggestions begin after ten
    assert pruned(spec()) == [*BAD, 13, 15]
    assert [t.values for t in trials(spec()) if t.number in BAD] == [None] * 3


def test_a_guard_that_is_minimized_prunes_what_is_large() -> None:
    downwards = spec(directions=("minimize", "minimize"))
    run_worker(downwards, lambda trial: sized(trial, sign=-1))
    assert pruned(downwards) == BAD


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("MedianPruner", {"n_startup_trials": 3}),
        ("PercentilePruner", {"percentile": 50.0}),
        ("ThresholdPruner", {"lower": 0.5}),
        ("SuccessiveHalvingPruner", {"min_resource": 1, "reduction_factor": 3}),
        ("PatientPruner", {"patience": 0, "wrapped_pruner": {"name": "MedianPruner"}}),
    ],
)
def test_pruners_of_optuna_prune_by_the_guard(name: str, options: dict[str, Any]) -> None:
    named = spec(pruner={"name": name, "options": options})
    run_worker(named, sized)
    assert pruned(named) == BAD


def test_without_a_guard_nothing_is_pruned_and_a_report_is_told_the_key() -> None:
    def unguarded(trial: optuna.Trial) -> tuple[float, float]:
        assert not trial.should_prune()
        if trial.number == 0:
            trial.report(1.0, 0)
        return 1.0, 2.0

    plain = spec(metrics=(), guard=None, n_trials=2)
    run_worker(plain, unguarded)
    assert Counter(trial.state.name for trial in trials(plain)) == {"COMPLETE": 2, "FAIL": 1}
    assert 'guard = "accuracy"' in trials(plain)[0].user_attrs["error"]


def test_steps_may_be_numpy_s_and_are_not_negative() -> None:
    def reports(trial: optuna.Trial) -> tuple[float, float]:
        for step in np.arange(2):
            trial.report(1.0, step)
        with pytest.raises(ValueError, match="0 or more, but is -1"):
            trial.report(1.0, -1)
        return 1.0, 1.0

    assert run_worker(spec(n_trials=1), reports).last_error == ""


def test_the_result_and_the_card_cope_with_pruned_trials() -> None:
    stats = run_worker(spec(), sized)
    result = select(spec(), stats=[stats])
    assert result.counts == {"COMPLETE": 9, "PRUNED": 3}
    assert not {trial.number for trial in result.front} & set(BAD)
    parts = [part.render() for part in study_card(trials(spec()), spec(), result, metrics=spec().metrics)]
    titles = [part["spec"]["title"]["text"] for part in parts if part["type"] == "vegaChart"]
    assert titles[:2] == ["size_mb by trial", "accuracy by trial"]
    assert "accuracy by step, as the trials reported it" in titles


def test_the_dashboard_is_told_what_the_values_are_called() -> None:
    assert open_study(spec(), PostgresStorage()).metric_names == ["size_mb", "accuracy"]
