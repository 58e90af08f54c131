"""A study stops when what is left to gain is less than its cross-validation can tell."""

from __future__ import annotations

import math
from typing import Any

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, create_trial

from shared.domain import StudySpec
from shared.tuning.stopping import Stopping
from shared.tuning.terminator import LEAST_TRIALS, fold_error, is_settled

WHY = "stopped, since what is left to gain is less than the error of the folds"


def scored(*scores: float, x: float = 0.0) -> FrozenTrial:
    """A trial as the evaluation leaves it: after each fold it has reported the mean so far."""
    means = [sum(scores[: k + 1]) / (k + 1) for k in range(len(scores))]
    space = {"x": FloatDistribution(0, 1)}
    steps = dict(enumerate(means))
    return create_trial(value=means[-1], params={"x": x}, distributions=space, intermediate_values=steps)


def study(noise: float, n: int = LEAST_TRIALS) -> list[FrozenTrial]:
    """Trials of a slope, whose folds differ by so much."""
    found = []
    for number in range(n):
        x = number / (n - 1)
        trial = scored(x - noise, x, x + noise, x=x)
        trial.number = number
        found.append(trial)
    return found


def spec(**changes: Any) -> StudySpec:
    values: dict[str, Any] = {
        "name": "s", "use_case": "toy", "variant": "classical", "fingerprint": "0", "objective_hash": "1",
        "directions": ("maximize",), "n_trials": 20, "terminator": True,
    }  # fmt: skip
    return StudySpec(**values | changes)


def test_the_error_is_that_of_the_scores_behind_the_reported_means() -> None:
    variance = ((1 - 2) ** 2 + (2 - 2) ** 2 + (3 - 2) ** 2) / 3
    assert fold_error(scored(1, 2, 3)) == pytest.approx(math.sqrt((1 / 3 + 1 / 2) * variance))


def test_a_trial_that_reports_no_folds_has_no_error() -> None:
    assert fold_error(scored(1.0)) == 0
    epochs = scored(1, 2, 3)
    epochs.values = [9.0]
    assert fold_error(epochs) == 0


def test_a_study_is_settled_where_the_folds_differ_more_than_there_is_to_gain() -> None:
    assert is_settled(study(noise=9.0), "maximize")
    assert not is_settled(study(noise=1e-6), "maximize")
    assert not is_settled(study(noise=9.0, n=LEAST_TRIALS - 1), "maximize"), "too few to tell"


def test_an_infeasible_trial_tells_nothing_of_what_is_left_to_gain() -> None:
    trials = study(noise=9.0)
    assert is_settled(trials, "maximize")
    trials[-1].set_constraint("size", 1.0)
    assert not is_settled(trials, "maximize"), "one too few is feasible"


def test_a_study_stops_when_it_is_settled_and_only_if_asked_to() -> None:
    assert Stopping(spec()).reason(study(noise=9.0), 0.0) == WHY
    assert Stopping(spec(terminator=False)).reason(study(noise=9.0), 0.0) == ""
