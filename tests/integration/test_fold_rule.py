"""`pruner = "auto"` on cross-validated trials, on a real PostgreSQL: a worker judges by all workers' trials."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial

from shared.domain import StudySpec
from shared.storage import PostgresStorage
from shared.tuning.study import open_study
from shared.tuning.worker import run_worker

pytestmark = pytest.mark.usefixtures("database")
HARD = (0.0, -3.0, 1.0, -9.0, 2.0)


def spec(**changes: Any) -> StudySpec:
    values: dict[str, Any] = {
        "name": "toy/classical/0/1", "use_case": "toy", "variant": "classical", "fingerprint": "0",
        "objective_hash": "1", "directions": ("maximize",), "n_trials": 4, "steps": "fold",
    }  # fmt: skip
    return StudySpec(**values | changes)


def cross_validated(trial: optuna.Trial) -> float:
    """Each trial is better than all before, but for those with an odd number from the fifth on."""
    level = -5.0 if trial.number > 4 and trial.number % 2 else trial.number / 10
    folds = [level + hard + 0.01 * trial.suggest_float("x", -1, 1) for hard in HARD]
    for k in range(len(folds)):
        trial.report(sum(folds[: k + 1]) / (k + 1), k)
        if trial.should_prune():
            raise optuna.TrialPruned
    return sum(folds) / len(folds)


def trials() -> list[FrozenTrial]:
    return open_study(spec(), PostgresStorage()).trials


@pytest.mark.parametrize("second", [0, 1])
def test_a_worker_gives_up_after_one_fold_what_falls_short_of_the_trials_of_another(second: int) -> None:
    run_worker(spec(), cross_validated)
    run_worker(spec(n_trials=10), cross_validated, worker=second)
    pruned = [trial for trial in trials() if trial.state.name == "PRUNED"]
    assert [trial.number for trial in pruned] == [5, 7, 9]
    assert [len(trial.intermediate_values) for trial in pruned] == [1, 1, 1]
