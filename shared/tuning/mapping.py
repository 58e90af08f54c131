"""Values of an earlier search space in a new one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, create_trial


def nearest(value: Any, distribution: BaseDistribution) -> Any:
    """The value, or the nearest one that a distribution has.

    Raises:
        ValueError: none is near: a choice that is gone, or a choice where there are numbers now.
    """
    if isinstance(distribution, CategoricalDistribution):
        if value not in distribution.choices:
            raise ValueError(f"{value!r} must be one of {distribution.choices}")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} must be a number")  # noqa: TRY004  # as where a choice is gone
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    value = min(max(value, low), high)
    if step is not None and not distribution.log:
        value = min(low + round((value - low) / step) * step, high)
    return round(value) if isinstance(distribution, IntDistribution) else float(value)


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What the parameters of a trial are other than those of an earlier one, in words; empty where they are equal."""
    moved = [f"{k} {_shown(before[k])} → {_shown(v)}" for k, v in now.items() if k in before and before[k] != v]
    new = [f"{k} = {_shown(v)} is new" for k, v in now.items() if k not in before]
    gone = [f"{k} is gone" for k in before if k not in now]
    return ", ".join([*moved, *new, *gone])


def shown_in(trial: FrozenTrial, space: Mapping[str, BaseDistribution], *, trusted: bool) -> FrozenTrial | None:
    """A copy of an earlier trial with the distributions of a new study; None where it is outside of them.

    space: as far as the new study has asked for it. trusted: what it hasn't asked for yet is as it was.
    """
    distributions = {}
    for name, value in trial.params.items():
        if name not in space and not trusted:
            return None
        distributions[name] = space.get(name, trial.distributions[name])
        if not _has(distributions[name], value):
            return None
    return create_trial(
        values=trial.values, params=trial.params, distributions=distributions, constraints=trial.constraints
    )


def _has(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except ValueError:
        return False


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
