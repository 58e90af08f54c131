"""Whether a study can still gain what its cross-validation can tell: Optuna's terminator (Makarova et al. 2022)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from statistics import pvariance
from typing import TYPE_CHECKING

from shared.tuning.stopping import is_feasible

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from shared.domain import Direction

LEAST_TRIALS = 8


def is_settled(trials: Sequence[FrozenTrial], direction: Direction) -> bool:
    """Whether the bound on what is left to gain is below the error of the best trial's mean over the folds.

    The bound is a Gaussian process's (torch: three seconds the first time) over the parameters that all trials have.
    Not before there are `LEAST_TRIALS` complete and feasible trials, nor where trials don't report their folds.
    """
    from optuna.search_space import intersection_search_space
    from optuna.study import StudyDirection
    from optuna.terminator import RegretBoundEvaluator

    complete = [trial for trial in trials if trial.state.name == "COMPLETE" and is_feasible(trial)]
    if len(complete) < LEAST_TRIALS or not intersection_search_space(complete):
        return False
    best = (max if direction == "maximize" else min)(complete, key=lambda trial: trial.values[0])
    error = fold_error(best)
    with warnings.catch_warnings(action="ignore"):  # experimental, and on its way out of Optuna
        return error > 0 and RegretBoundEvaluator(seed=0).evaluate(complete, StudyDirection[direction.upper()]) < error


def fold_error(trial: FrozenTrial) -> float:
    """Standard error of the mean over the folds, from the means so far that the trial reported; 0 where it has none.

    The variance is scaled by 1/k + 1/(k - 1), as folds share their training rows (Nadeau and Bengio 2003).
    """
    means = [mean for _, mean in sorted(trial.intermediate_values.items())]
    k = len(means)
    if k < 2 or means[-1] != trial.values[0]:
        return 0.0
    scores = [mean * (i + 1) - before * i for i, (before, mean) in enumerate(zip([0.0, *means], means, strict=False))]
    return math.sqrt((1 / k + 1 / (k - 1)) * pvariance(scores))
