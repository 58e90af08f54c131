"""When a study stops before its budget is full."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from shared.domain import StudySpec

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

FINISHED = ("COMPLETE", "PRUNED")
INTERRUPTED = "interrupted"
WORKER_LOST = "worker lost"
# The user attribute of a warm start: {"study": …, "trial": number, "params": {…}} of the trial that it repeats.
WARM_START = "warm_start"


class Stopping:
    """Too many failures, no time left, no improvement for long or in sight. Looks at each trial until it has ended."""

    def __init__(self, spec: StudySpec) -> None:
        self.failures = 0
        self._spec = spec
        self._sign = -1 if spec.directions[0] == "maximize" else 1
        self._best: tuple[float, int] | None = None
        self._finished: list[int] = []
        self._running: list[int] = []
        self._seen = 0
        self._judged, self._settled = 0, False

    def reason(self, trials: Sequence[FrozenTrial], elapsed_s: float) -> str:
        """Why to stop; empty: go on.

        trials: all of the study, in the order of their numbers. elapsed_s: since the worker started.
        """
        spec = self._spec
        self._look_at(trials)
        if self.failures >= spec.max_failures:
            return f"stopped after {self.failures} failures"
        if spec.timeout_s is not None and elapsed_s >= spec.timeout_s:
            return f"timed out after {spec.timeout_s:g} s"
        if spec.patience and self.without_improvement >= spec.patience:
            return f"stopped after {spec.patience} trials without improvement"
        if spec.terminator and self._is_settled(trials):
            return "stopped, since what is left to gain is less than the error of the folds"
        return ""

    @property
    def without_improvement(self) -> int:
        """How many trials have finished after the best feasible one, warm starts aside; 0 where there is none.

        Several directions have no best either.
        """
        if self._best is None or len(self._spec.directions) > 1:
            return 0
        return len(self._finished) - bisect_right(self._finished, self._best[1])

    def _is_settled(self, trials: Sequence[FrozenTrial]) -> bool:
        """Judged once per finished trial."""
        if len(self._spec.directions) == 1 and self._judged < len(self._finished):
            from shared.tuning.terminator import is_settled

            self._judged = len(self._finished)
            self._settled = is_settled(trials, self._spec.directions[0])
        return self._settled

    def _look_at(self, trials: Sequence[FrozenTrial]) -> None:
        places = [*self._running, *range(self._seen, len(trials))]
        self._running, self._seen = [], len(trials)
        for place in places:
            trial = trials[place]
            if not trial.state.is_finished():
                self._running.append(place)
            elif trial.state.name in FINISHED:
                self._count(trial)
            else:
                self.failures += is_failure(trial, self._spec.since)

    def _count(self, trial: FrozenTrial) -> None:
        if WARM_START not in trial.user_attrs:
            insort(self._finished, trial.number)
        if trial.state.name == "COMPLETE" and is_feasible(trial):
            mine = (self._sign * trial.values[0], trial.number)
            self._best = min(self._best or mine, mine)


def is_feasible(trial: FrozenTrial) -> bool:
    return all(violation <= 0 for violation in trial.constraints.values())


def is_failure(trial: FrozenTrial, since: datetime | None) -> bool:
    """Whether a trial counts against `max_failures`: it raised, or it took its worker along for the second time.

    A worker that was interrupted or lost once, as machines are, says nothing of the trial.
    """
    cause = trial.user_attrs.get("cause")
    innocent = cause == INTERRUPTED or (cause == WORKER_LOST and "rerun_of" not in trial.user_attrs)
    if trial.state.name != "FAIL" or innocent:
        return False
    if since is None or trial.datetime_complete is None:
        return True
    return trial.datetime_complete >= since.astimezone().replace(tzinfo=None)  # Optuna's times are naive and local
