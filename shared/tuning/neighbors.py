"""Which configurations are alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial

Space = Mapping[str, BaseDistribution]


def space_of(trials: Sequence[FrozenTrial]) -> Space:
    """Every parameter's distribution, the last one where they differ. One without any is a choice among its values."""
    space = {name: distribution for trial in trials for name, distribution in trial.distributions.items()}
    names = dict.fromkeys(name for trial in trials for name in trial.params if name not in space)
    for name in names:
        values = dict.fromkeys(trial.params[name] for trial in trials if name in trial.params)
        space[name] = CategoricalDistribution(list(values))
    return space


def encode(trials: Sequence[FrozenTrial], space: Space) -> np.ndarray:
    """Parameters as numbers, `(n_trials, n_parameters)`: numeric ones in units of their range, choices by their place.

    NaN: the trial has no such parameter.
    """
    rows = [[_place(trial.params, name, space[name]) for name in space] for trial in trials]
    return np.array(rows, dtype=float).reshape(len(trials), len(space))


def distances(some: np.ndarray, others: np.ndarray, space: Space) -> np.ndarray:
    """Gower's distance (1971) between encoded configurations, from 0 to 1: `(n_some, n_others)`.

    The mean over the parameters that either has; one that only one has counts 1, and so do different choices.
    """
    total, count = np.zeros((2, len(some), len(others)))
    for mine, theirs, distribution in zip(some.T, others.T, space.values(), strict=True):
        has, have = ~np.isnan(mine)[:, None], ~np.isnan(theirs)
        gaps = np.minimum(np.abs(mine[:, None] - theirs), 1.0)
        gaps = np.ceil(gaps) if isinstance(distribution, CategoricalDistribution) else gaps
        total += np.where(has & have, gaps, has ^ have)
        count += has | have
    return total / np.maximum(count, 1)


def distinct(trials: Sequence[FrozenTrial], n: int, least: float) -> list[FrozenTrial]:
    """The first `n` trials, without those that are nearer than `least` to one before."""
    space = space_of(trials)
    rows = encode(trials, space)
    found: list[int] = []
    left = np.ones(len(trials), dtype=bool)
    while left.any() and len(found) < n:
        found.append(place := int(left.argmax()))
        left &= distances(rows[[place]], rows, space)[0] >= least
        left[place] = False
    return [trials[i] for i in found]


def _place(params: Mapping[str, Any], name: str, distribution: BaseDistribution) -> float:
    if name not in params:
        return math.nan
    value = params[name]
    if isinstance(distribution, CategoricalDistribution):
        return float(distribution.choices.index(value)) if value in distribution.choices else -1.0
    if not isinstance(value, int | float):
        return -1.0
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
    if distribution.log:  # type: ignore[attr-defined]
        value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
    return float((value - low) / (high - low)) if high > low else 0.0
