"""What a pruned trial would have come to, so that it can be compared with complete ones."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from statistics import median

from optuna.trial import FrozenTrial, TrialState


def value_of(trial: FrozenTrial) -> float:
    """The value of a trial in its first direction, of a pruned one its last report; NaN where it has none."""
    reports = trial.intermediate_values
    if trial.state == TrialState.PRUNED and reports:
        return reports[max(reports)]
    return trial.values[0] if trial.values else math.nan


def expected(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials of a study of one direction, pruned ones as copies with the value that they would have come to.

    That is the last report, and what complete trials still gained or lost after that step (the median), as far as they
    have it: the mean of the first folds is no mean of all where these are the easy ones.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    last = {max(t.intermediate_values) for t in trials if t.state == TrialState.PRUNED and t.intermediate_values}
    gains = {step: _gain(complete, step) for step in last}
    return [_come_to(trial, gains) if trial.state == TrialState.PRUNED else trial for trial in trials]


def _gain(complete: Sequence[FrozenTrial], step: int) -> float:
    reported = [(trial.values[0], trial.intermediate_values.get(step, math.nan)) for trial in complete]
    gains = [value - report for value, report in reported if math.isfinite(value) and math.isfinite(report)]
    return median(gains) if gains else 0.0


def _come_to(trial: FrozenTrial, gains: Mapping[int, float]) -> FrozenTrial:
    if math.isnan(value := value_of(trial)):
        return trial
    found = copy.copy(trial)
    reports = trial.intermediate_values
    found.values = [value + (gains[max(reports)] if reports else 0.0)]
    return found
