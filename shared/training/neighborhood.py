"""Searching around a configuration that is good already: the same suggest calls, in narrower ranges."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import BaseTrial


class Neighborhood(BaseTrial):
    """A trial for `build(trial)` that suggests values near `center`, as part of the trial of a whole system.

    Names get a prefix (`C` is `classical.C` in the study). A float or int is suggested from its own range, narrowed to
    `radius` of that range on both sides of the center, in the logarithm where the range is logarithmic, and by at least
    one step where it has steps. A categorical keeps the center's choice, so that the search stays in the center's
    branch. What the center doesn't have is suggested from its whole range. A constraint or user attribute is the whole
    system's, prefixed; nothing is reported, since a system has two objectives.
    """

    def __init__(self, trial: BaseTrial, prefix: str, center: Mapping[str, Any], radius: float) -> None:
        self._trial = trial
        self._prefix = prefix
        self._center = center
        self._radius = radius
        self._params: dict[str, Any] = {}

    @property
    def params(self) -> dict[str, Any]:
        """All that was suggested so far, by the names without prefix: what `FixedTrial` takes."""
        return dict(self._params)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        near, far = self._range(name, low, high, step, log)
        value = self._trial.suggest_float(self._prefix + name, near, far, step=step, log=log)
        return self._record(name, min(max(value, low), high))  # type: ignore[no-any-return]

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        near, far = self._range(name, low, high, None if log else step, log)
        near, far = max(low, math.floor(near)), min(high, math.ceil(far))
        value = self._trial.suggest_int(self._prefix + name, near, far, step=step, log=log)
        return self._record(name, value)  # type: ignore[no-any-return]

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        if name in self._center and self._center[name] in choices:
            return self._record(name, self._center[name])
        return self._record(name, self._trial.suggest_categorical(self._prefix + name, choices))

    def suggest_uniform(self, name: str, low: float, high: float) -> float:
        return self.suggest_float(name, low, high)

    def suggest_loguniform(self, name: str, low: float, high: float) -> float:
        return self.suggest_float(name, low, high, log=True)

    def suggest_discrete_uniform(self, name: str, low: float, high: float, q: float) -> float:
        return self.suggest_float(name, low, high, step=q)

    def report(self, value: float, step: int) -> None:
        """Nothing: a trial with several objectives has no intermediate values."""

    def should_prune(self) -> bool:
        return False

    def set_user_attr(self, key: str, value: Any) -> None:
        self._trial.set_user_attr(self._prefix + key, value)

    def set_constraint(self, key: str, value: float) -> None:
        self._trial.set_constraint(self._prefix + key, value)

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        return self._own(self._trial.distributions)

    @property
    def user_attrs(self) -> dict[str, Any]:
        return self._own(self._trial.user_attrs)

    @property
    def constraints(self) -> dict[str, float]:
        return self._own(self._trial.constraints)

    @property
    def datetime_start(self) -> datetime.datetime | None:
        return self._trial.datetime_start

    @property
    def number(self) -> int:
        return self._trial.number

    def _range(self, name: str, low: float, high: float, step: float | None, log: bool) -> tuple[float, float]:
        if name not in self._center:
            return low, high
        return near(float(self._center[name]), low, high, self._radius, step=step, log=log)

    def _record(self, name: str, value: Any) -> Any:
        self._params[name] = value
        return value

    def _own(self, named: Mapping[str, Any]) -> dict[str, Any]:
        return {k.removeprefix(self._prefix): v for k, v in named.items() if k.startswith(self._prefix)}


def near(
    center: float, low: float, high: float, radius: float, *, step: float | None = None, log: bool = False
) -> tuple[float, float]:
    """The part of `[low, high]` within `radius` (a share of the range) of `center`; on the grid of `step`, if given.

    A center outside the range counts as the nearer end.
    """
    center = min(max(center, low), high)
    if log:
        left, right = near(math.log(center), math.log(low), math.log(high), radius)
        return max(low, math.exp(left)), min(high, math.exp(right))
    reach = radius * (high - low)
    if step is None:
        return max(low, center - reach), min(high, center + reach)
    steps, at = math.floor((high - low) / step + 1e-9), round((center - low) / step)
    width = max(1, math.floor(reach / step))
    return _on_grid(low, step, max(0, at - width)), _on_grid(low, step, min(steps, at + width))


def _on_grid(low: float, step: float, k: int) -> float:
    """low + k·step in decimals, as Optuna checks that a range is divisible by its step."""
    return float(Decimal(str(low)) + k * Decimal(str(step)))
