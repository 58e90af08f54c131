"""When a study stops before its budget is full."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from shared.domain import StudySpec

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

FINISHED = ("COMPLETE", "PRUNED")
INTERRUPTED = "interrupted"


def reason_to_stop(spec: StudySpec, trials: Sequence[FrozenTrial], elapsed_s: float) -> str:
    """Too many failures, no time left, or no improvement for too long; empty: go on.

    trials: all of the study, in the order of their numbers. elapsed_s: since the worker started.
    """
    failures = sum(is_failure(trial, spec.since) for trial in trials)
    if failures >= spec.max_failures:
        return f"stopped after {failures} failures"
    if spec.timeout_s is not None and elapsed_s >= spec.timeout_s:
        return f"timed out after {spec.timeout_s:g} s"
    if spec.patience and without_improvement(spec, trials) >= spec.patience:
        return f"stopped after {spec.patience} trials without improvement"
    return ""


def is_failure(trial: FrozenTrial, since: datetime | None) -> bool:
    """Whether a trial counts against `max_failures`: it raised, or its worker died; interrupted ones don't count."""
    if trial.state.name != "FAIL" or trial.user_attrs.get("cause") == INTERRUPTED:
        return False
    if since is None or trial.datetime_complete is None:
        return True
    return trial.datetime_complete >= since.astimezone().replace(tzinfo=None)  # Optuna's times are naive and local


def without_improvement(spec: StudySpec, trials: Sequence[FrozenTrial]) -> int:
    """How many trials have finished after the best one. Several directions have no best one: 0."""
    finished = [trial for trial in trials if trial.state.name in FINISHED]
    complete = [trial for trial in finished if trial.state.name == "COMPLETE"]
    if len(spec.directions) > 1 or not complete:
        return 0
    sign = -1 if spec.directions[0] == "maximize" else 1
    best = min(complete, key=lambda trial: (sign * trial.values[0], trial.number))
    return sum(trial.number > best.number for trial in finished)
