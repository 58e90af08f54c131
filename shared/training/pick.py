"""Which of a system study's trials to retrain. A trial's `values`: the metric, greater is better, and ms per row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shared.domain import TrialSummary
from shared.errors import StudyFailed


@dataclass(frozen=True)
class Pick:
    """The trial to retrain, whether it keeps the latency budget, and why it was picked, in one sentence."""

    trial: TrialSummary
    feasible: bool
    reason: str


def pick(trials: Sequence[TrialSummary], latency_budget_ms: float) -> Pick:
    """The best metric within the latency budget, of equals the fastest; the fastest of all if none keeps the budget.

    Raises:
        StudyFailed: there are no trials.
    """
    if not trials:
        raise StudyFailed("a system is picked from finished trials, but none finished; see the trials' errors above")
    feasible = [t for t in trials if t.values[1] <= latency_budget_ms]
    if not feasible:
        trial = min(trials, key=lambda t: (t.values[1], -t.values[0]))
        return Pick(
            trial,
            False,
            f"the fastest of {len(trials)} trials, with {trial.values[1]:.3g} ms per row, since none keeps the budget "
            f"of {latency_budget_ms:g} ms",
        )
    trial = max(feasible, key=lambda t: (t.values[0], -t.values[1]))
    return Pick(trial, True, f"the best metric of the {len(feasible)} trials within {latency_budget_ms:g} ms per row")


def front(trials: Sequence[TrialSummary]) -> list[TrialSummary]:
    """The trials that no other beats in one value without losing in the other, fastest first."""
    result = list[TrialSummary]()
    for trial in sorted(trials, key=lambda t: (t.values[1], -t.values[0])):
        if not result or trial.values[0] > result[-1].values[0]:
            result.append(trial)
    return result
