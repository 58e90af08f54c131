"""`sampler = "auto"`: TPE, or a Gaussian process on the search spaces where it is the better one."""

from __future__ import annotations

import copy
import math
from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from shared.tuning.expected import expected, value_of

if TYPE_CHECKING:
    import optuna

Name = Literal["TPESampler", "GPSampler"]
STARTUP = 10  # trials at random before a model is fitted, the default of both
BUDGETS = range(20, 101)
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def choose(space: Mapping[str, BaseDistribution] | None, budget: int, n_directions: int) -> Name:
    """The Gaussian process for one direction, a space of floats and ints, and a budget of 20 to 100 trials; else TPE.

    space: that of all trials so far; None: there is none, as of a conditional one (`common_space`).
    """
    if not space or n_directions > 1 or budget not in BUDGETS:
        return "TPESampler"
    numeric = all(isinstance(found, FloatDistribution | IntDistribution) for found in space.values())
    return "GPSampler" if numeric else "TPESampler"


def common_space(trials: Sequence[FrozenTrial]) -> Mapping[str, BaseDistribution] | None:
    """The search space that all ended trials share; None where they don't, or where a Gaussian process would be blind.

    It doesn't see trials that failed, or were pruned without a report, and would suggest them again.
    """
    if sum(trial.state != TrialState.FAIL for trial in trials) < STARTUP:
        return None
    first = trials[0].distributions
    seen = all(not math.isnan(value_of(trial)) and not trial.constraints for trial in trials)
    return first if seen and all(trial.distributions == first for trial in trials) else None


class AutoSampler(BaseSampler):
    """The sampler that `choose` names, for each trial anew, by what the trials before it show.

    A pruned trial counts for the Gaussian process by what it would have come to. Optuna's leaves pruned trials out, so
    that it suggests the same again, which is pruned again, until the budget is full.
    """

    def __init__(self, budget: int, seed: int) -> None:
        self.budget = budget
        self._tpe = TPESampler(seed=seed, multivariate=True)
        self._gp = GPSampler(seed=seed)

    def chosen(self, study: optuna.Study) -> Name:
        """The sampler of the next trial."""
        if self.budget not in BUDGETS:  # don't look at a thousand trials
            return "TPESampler"
        trials = study._get_trials(deepcopy=False, states=ENDED, use_cache=True)  # TPE has read them for this trial
        return choose(common_space(trials), self.budget, len(study.directions))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if self.chosen(study) == "TPESampler":
            return self._tpe.sample_relative(study, trial, search_space)
        return self._gp.sample_relative(_pruned_counted(study), trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        self._tpe.reseed_rng()
        self._gp.reseed_rng()


class _PrunedCounted:
    """What the Gaussian process asks a study for; pruned trials are complete, with what they would have come to."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self.directions = study.directions
        self._storage = study._storage

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        del deepcopy, use_cache
        trials = map(_completed, expected(self._study.get_trials(deepcopy=False)))
        return [trial for trial in trials if states is None or trial.state in states]


def _pruned_counted(study: optuna.Study) -> optuna.Study:
    return cast("optuna.Study", _PrunedCounted(study))


def _completed(trial: FrozenTrial) -> FrozenTrial:
    if trial.state != TrialState.PRUNED or math.isnan(value_of(trial)):
        return trial
    completed = copy.copy(trial)
    completed.state = TrialState.COMPLETE
    return completed
