"""The sampler of a study that starts from earlier ones: their best configurations first, then what they know.

As in ranking-weighted ensembles (Feurer et al. 2018), an earlier study counts by how well its ranking holds on the new
data. None of its trials is written into the new study: the sampler sees them beside the study's own.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Container, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from shared.domain import StudySpec
from shared.tuning.earlier import Source, scored, sources, warm_starts
from shared.tuning.mapping import changed, nearest
from shared.tuning.stopping import FINISHED, WARM_START

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage

logger = logging.getLogger(__name__)

# These learn from any trial. Others have searched a grid, or bred a population, and count what is theirs.
LEARNING = ("AutoSampler", "TPESampler", "GPSampler")


class TransferSampler(BaseSampler):
    """A sampler that evaluates warm starts first, and then sees earlier trials beside the study's own.

    A warm start gets the values that it had, as near as the search space has them; what has no such value any more, or
    is new, the sampler draws.
    """

    def __init__(self, sampler: BaseSampler, spec: StudySpec, storage: BaseStorage) -> None:
        self.sampler = sampler
        self._spec, self._storage = spec, storage
        self._seen_by = -1
        self._foreign: list[FrozenTrial] = []

    @cached_property
    def sources(self) -> list[Source]:
        return sources(self._spec, self._storage)

    def enqueue(self, study: optuna.Study) -> None:
        """Let the best distinct configurations be the next trials, each once per study.

        Between two of them a learning sampler draws one: that tells whether the ranking holds, and what has nothing in
        common with the earlier data loses little.
        """
        trials = study.get_trials(deepcopy=False)
        known = [_origin(trial.user_attrs[WARM_START]) for trial in trials if WARM_START in trial.user_attrs]
        room = self._spec.n_trials - sum(trial.state.name in FINISHED for trial in trials)
        most = (room + 1) // 2 if self._learns else room
        starts = [start for start in warm_starts(self.sources)[: max(most, 0)] if _origin(start) not in known]
        for place, start in enumerate(starts):
            if place and self._learns:
                study.enqueue_trial({})
            study.enqueue_trial({}, user_attrs={WARM_START: start})

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        if WARM_START in trial.user_attrs:
            return {}
        return self.sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        drawn = self.sampler.sample_relative(self._seen(study, trial, search_space), trial, search_space)
        return {} if WARM_START in trial.user_attrs else drawn

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        start = trial.user_attrs.get(WARM_START, {"params": {}})
        try:
            return nearest(start["params"][param_name], param_distribution)
        except (KeyError, ValueError):
            is_off = WARM_START in trial.user_attrs and not self._learns  # a warm start is no point of a grid
            sampler = RandomSampler(self._spec.seed + trial.number) if is_off else self.sampler
            seen = self._seen(study, trial, [param_name])
            return sampler.sample_independent(seen, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.sampler.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self.sampler.after_trial(study, trial, state, values)
        start = trial.user_attrs.get(WARM_START)
        if start and state.name in FINISHED and (changes := changed(start["params"], trial.params)):
            about = {"study": study.study_name, "trial": trial.number, "changes": changes}
            logger.info("warm start mapped", extra=about)

    def reseed_rng(self) -> None:
        self.sampler.reseed_rng()

    @property
    def _learns(self) -> bool:
        return type(self.sampler).__name__ in LEARNING

    def _seen(self, study: optuna.Study, trial: FrozenTrial, names: Collection[str] = ()) -> Any:
        """The study as the sampler sees it, with those trials of others that have the parameters of these names.

        What it sees of others is decided once per trial.
        """
        if not self._learns:
            return study
        if trial.number != self._seen_by:
            self._seen_by, self._foreign = trial.number, self._shared(study)
        foreign = [t for t in self._foreign if set(names) <= t.params.keys()]
        return _Seen(study, foreign) if foreign else study

    def _shared(self, study: optuna.Study) -> list[FrozenTrial]:
        trials = study.get_trials(deepcopy=False)
        space = {name: distribution for t in trials for name, distribution in t.distributions.items()}
        own = scored(trials, len(study.directions))
        shared = [t for source in reversed(self.sources) for t in source.shared(own, space)]
        constrained = {frozenset(t.constraints) for t in own}
        found = [t for t in shared if frozenset(t.constraints) in constrained]
        for place, t in enumerate(found):
            t.number = place - len(found)  # before all of the study's own
        return found


def _origin(start: Mapping[str, Any]) -> tuple[str, int]:
    return start["study"], start["trial"]


class _Seen:
    """A study with trials of others before its own, as samplers read it."""

    def __init__(self, study: optuna.Study, foreign: Sequence[FrozenTrial]) -> None:
        self._study, self._foreign = study, foreign

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.get_trials()

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        return self._and_own(self._study.get_trials(deepcopy=deepcopy, states=states), states)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return self._and_own(self._study._get_trials(deepcopy=deepcopy, states=states, use_cache=use_cache), states)

    def _and_own(self, own: list[FrozenTrial], states: Container[TrialState] | None) -> list[FrozenTrial]:
        return [*(self._foreign if states is None or TrialState.COMPLETE in states else ()), *own]
