"""Pruners of Evertune's own: one for cross-validation, and one that spares the database."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from optuna.pruners import BasePruner

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, TrialState

# Chosen on recorded folds of digits and diabetes; what they do, `python -m benchmarks pruning` measures.
LEAST_COMPLETE = 4
LEAST_BEST = 3
REACH = 0.75


class FoldPruner(BasePruner):
    """Gives up a cross-validated trial that isn't going to be the best, from its first fold on.

    Trials report the mean of their folds so far. Since all have the same folds, what counts is the difference to the
    best complete trial on the folds that both have: folds that are hard for one are hard for the other.
    """

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        from optuna.study import StudyDirection
        from optuna.trial import TrialState

        sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return falls_short(_course(trial, sign), [_course(other, sign) for other in complete])


def falls_short(course: Sequence[float], complete: Sequence[Sequence[float]]) -> bool:
    """Whether a trial isn't going to be better than the best one.

    A course is a trial's mean score (greater is better) after each of its folds; those of complete trials are whole.
    After k folds the trial's difference to the best one predicts the final difference. How well, the other trials of
    the better half show: by the root mean square of what their differences to the best one still changed. A
    trial that is behind by more than `REACH` of it is given up.
    """
    n, k = max(map(len, complete), default=0), len(course)
    distinct = dict.fromkeys(tuple(c) for c in complete if len(c) == n and all(map(math.isfinite, c)))
    if len(distinct) < LEAST_COMPLETE or not 0 < k < n or math.isnan(course[-1]):
        return False
    whole = sorted(distinct, key=lambda c: c[-1], reverse=True)
    best, *rivals = whole[: max(LEAST_BEST, math.ceil(len(whole) / 2))]
    changes = [(rival[-1] - best[-1]) - (rival[k - 1] - best[k - 1]) for rival in rivals]
    spread = math.sqrt(fmean(change**2 for change in changes))
    return course[-1] - best[k - 1] + REACH * spread < 0


def _course(trial: FrozenTrial, sign: int) -> list[float]:
    return [sign * value for _, value in sorted(trial.intermediate_values.items())]


class OncePerTrial(BasePruner):
    """Judges a trial by the other trials as they were at its first report, so that they are read once.

    Optuna's pruners read them again at each report, which for trials of a few milliseconds is most of their time.
    With one worker the judgment is the same; with several, it misses what finishes while the trial runs. Use it for
    short trials. `pruner` may only ask the study for its trials and direction.
    """

    def __init__(self, pruner: BasePruner) -> None:
        self.pruner = pruner
        self._trial_id = -1
        self._snapshot: Any = None

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        if trial._trial_id != self._trial_id:
            self._trial_id, self._snapshot = trial._trial_id, _Snapshot(study)
        return self.pruner.prune(self._snapshot, trial)


class _Snapshot:
    def __init__(self, study: optuna.Study) -> None:
        self.direction = study.direction
        self._trials = study.get_trials(deepcopy=False)

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> Sequence[FrozenTrial]:
        del deepcopy  # the pruner doesn't change them
        return [trial for trial in self._trials if states is None or trial.state in states]
