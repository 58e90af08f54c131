"""What the charts of a study are drawn from: plain figures out of Optuna's trials. No chart here, nothing heavy."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.domain import Direction
from shared.tuning.stopping import FINISHED

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

STATES = ("COMPLETE", "PRUNED", "FAIL")
MIN_TRIALS_FOR_IMPORTANCE = 10


@dataclass(frozen=True)
class Goal:
    """One objective of a study: its metric, its direction, which of a trial's values it is, and if trials report it."""

    metric: str
    direction: Direction = "maximize"
    index: int = 0
    unit: str = ""
    reported: bool = True

    def value(self, trial: FrozenTrial) -> float | None:
        """The trial's value; of a pruned trial the last that it reported; None where there is no finite one."""
        if trial.values is not None:
            value = trial.values[self.index]
        elif trial.intermediate_values and self.reported:
            value = trial.intermediate_values[max(trial.intermediate_values)]
        else:
            return None
        return float(value) if math.isfinite(value) else None

    def loss(self, value: float) -> float:
        """Smaller is better, whatever the direction."""
        return -value if self.direction == "maximize" else value

    def worse(self, domain: Sequence[float]) -> float:
        """The worse end of a stretch of the metric's axis."""
        return min(domain) if self.direction == "maximize" else max(domain)

    @property
    def label(self) -> str:
        return f"{self.metric} in {self.unit}" if self.unit else self.metric

    @property
    def axis(self) -> str:
        return f"{self.label} ({'greater' if self.direction == 'maximize' else 'smaller'} is better)"


def ended(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Trials that came to an end, in the order of their numbers."""
    return sorted((t for t in trials if t.state.name in STATES), key=lambda t: t.number)


def ranked(trials: Iterable[FrozenTrial], goal: Goal, states: Sequence[str] = ("COMPLETE",)) -> list[FrozenTrial]:
    """Complete trials (or those of other states) with a finite value, best first; of equals the earlier."""
    scored = [(goal.value(t), t) for t in trials if t.state.name in states]
    losses = [(goal.loss(v), t) for v, t in scored if v is not None]
    return [t for _, t in sorted(losses, key=lambda pair: (pair[0], pair[1].number))]


def view(values: Iterable[float], goal: Goal) -> tuple[float, float]:
    """The stretch of the metric's axis, low to high, on which the good half of the values can be told apart.

    It reaches from the best value to four times the median's distance from it, or to the worst value if that is nearer,
    so that one terrible trial doesn't squash the rest; what lies beyond is drawn at the edge.
    """
    losses = sorted(goal.loss(v) for v in values if math.isfinite(v))
    if not losses:
        return 0.0, 1.0
    best, worst = losses[0], losses[-1]
    span = min(worst - best, 4 * (losses[len(losses) // 2] - best)) or worst - best or abs(best) * 0.1 or 1.0
    low, high = best - 0.08 * span, best + 1.05 * span
    return (-high, -low) if goal.direction == "maximize" else (low, high)


def shared_view(trials: Iterable[FrozenTrial], goal: Goal) -> tuple[float, float]:
    """`view` of all ended trials of a study: its charts have one axis."""
    return view((v for t in ended(trials) if (v := goal.value(t)) is not None), goal)


def clamp(value: float, domain: tuple[float, float]) -> float:
    return min(max(value, domain[0]), domain[1])


def importances(trials: Iterable[FrozenTrial], goal: Goal) -> dict[str, float]:
    """Which part of the differences between the trials' ranks each parameter explains on its own, largest first.

    A nested analysis of variance on the ranks of the finished trials, a pruned one by what it reported last: without
    those, a choice that is always bad would seem not to matter. A categorical parameter groups them by its choices, a
    numeric one by up to four quantiles, and one that isn't part of every trial only those that have it. What chance
    alone would explain is taken off (epsilon squared, Kelley 1935). Empty below `MIN_TRIALS_FOR_IMPORTANCE`.

    Optuna's evaluators are less fit for few trials of a conditional space: fANOVA leaves conditional parameters out,
    PED-ANOVA's divergence is bounded for categorical parameters only, so that a numeric one that matters within
    one family hides the choice of the family; importing either costs scikit-learn.
    """
    order = ranked(trials, goal, FINISHED)
    if len(order) < MIN_TRIALS_FOR_IMPORTANCE:
        return {}
    ranks = _ranks([goal.loss(goal.value(trial) or 0.0) for trial in order])
    total = _within(ranks)
    if total == 0:
        return {}
    names = dict.fromkeys(name for trial in order for name in trial.params)
    shares = {name: _explained(name, order, ranks) / total for name in names}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _ranks(ordered: Sequence[Any]) -> list[float]:
    """Ranks of sorted values; equals share the middle of theirs."""
    return [(bisect_left(ordered, v) + bisect_right(ordered, v) - 1) / 2 for v in ordered]


def _explained(name: str, order: Sequence[FrozenTrial], all_ranks: Sequence[float]) -> float:
    """Sum of squares of the ranks between the groups of one parameter, less what chance explains."""
    having = [(rank, trial) for rank, trial in zip(all_ranks, order, strict=True) if name in trial.params]
    ranks = [rank for rank, _ in having]
    groups: dict[Any, list[float]] = {}
    for rank, group in zip(ranks, _groups(name, [trial for _, trial in having]), strict=True):
        groups.setdefault(group, []).append(rank)
    freedom = len(ranks) - len(groups)
    if len(groups) < 2 or freedom < 1:
        return 0.0
    within = sum(_within(members) for members in groups.values())
    return max(0.0, _within(ranks) - within - (len(groups) - 1) * within / freedom)


def _groups(name: str, trials: Sequence[FrozenTrial]) -> list[Any]:
    values = [trial.params[name] for trial in trials]
    if is_categorical(trials[0].distributions[name]):
        return [str(value) for value in values]
    ordered = sorted(values)
    bins = max(2, min(4, len(ordered) // 5))
    edges = [ordered[len(ordered) * k // bins] for k in range(1, bins)]
    return [sum(value >= edge for edge in edges) for value in values]


def _within(ranks: Sequence[float]) -> float:
    mean = sum(ranks) / len(ranks)
    return sum((rank - mean) ** 2 for rank in ranks)


def is_categorical(distribution: Any) -> bool:
    return hasattr(distribution, "choices")


def front(trials: Iterable[FrozenTrial], goals: Sequence[Goal]) -> list[FrozenTrial]:
    """The Pareto front of the complete trials: those that no other beats in one goal without losing in another."""
    points: list[tuple[tuple[float, ...], FrozenTrial]] = []
    for trial in trials:
        values = [goal.value(trial) for goal in goals]
        if trial.state.name == "COMPLETE" and None not in values:
            points.append((tuple(g.loss(v) for g, v in zip(goals, values, strict=True) if v is not None), trial))
    return [t for loss, t in points if not any(_dominates(other, loss) for other, _ in points)]


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def compact(params: dict[str, Any]) -> str:
    """Parameters in a line: `family=svm, svm_C=3.162, svm_gamma=0.001`."""
    return ", ".join(f"{k}={f'{v:.4g}' if isinstance(v, float) else v}" for k, v in params.items())
