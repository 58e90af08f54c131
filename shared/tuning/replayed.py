"""A trial that goes as a recorded one did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from shared.domain import Direction
from shared.errors import ObjectiveError
from shared.tuning.guarded import no_guard


class ReplayedTrial(FixedTrial):
    """Suggests what the recorded trial was suggested, keeps what is reported, and prunes where that one was pruned.

    reports: the value that was reported first at each step. study: an empty one of the same directions.
    """

    def __init__(self, recorded: FrozenTrial, directions: Sequence[Direction], guard: str | None = None) -> None:
        super().__init__(dict(recorded.params), recorded.number)
        self.study = optuna.create_study(directions=list(directions))
        self.reports: dict[int, float] = {}
        self._reports = len(directions) == 1 or guard is not None
        pruned = recorded.state == TrialState.PRUNED
        self._pruned_at = max(recorded.intermediate_values, default=None) if pruned else None

    def report(self, value: float, step: int) -> None:
        if not self._reports:
            raise no_guard(len(self.study.directions))
        self.reports.setdefault(int(step), float(value))

    def should_prune(self) -> bool:
        return self._pruned_at in self.reports

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self._params:
            raise ObjectiveError(
                f"a trial is replayed with the parameters that it had, but asks for {name!r} now, and had "
                f"{', '.join(self._params) or 'none'}: it goes further than then, or its search space isn't fixed"
            )
        return super()._suggest(name, distribution)
