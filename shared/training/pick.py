"""Which of a system study's trials to retrain. A trial's `values`: the metric, greater is better, and ms per row."""

from __future__ import annotations

from collections.abc import Sequence

from shared.domain import TrialSummary
from shared.errors import StudyFailed


def pick(trials: Sequence[TrialSummary], latency_budget_ms: float) -> TrialSummary:
    """The best metric within the latency budget, of equals the fastest; the fastest of all if none keeps the budget.

    Raises:
        StudyFailed: there are no trials.
    """
    if not trials:
        raise StudyFailed("a system is picked from finished trials, but none finished; see the trials' errors above")
    feasible = [t for t in trials if t.values[1] <= latency_budget_ms]
    if not feasible:
        return min(trials, key=lambda t: (t.values[1], -t.values[0]))
    return max(feasible, key=lambda t: (t.values[0], -t.values[1]))
