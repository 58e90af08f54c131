"""What a study takes over from earlier ones: their best configurations first, then what they know of the space.

As in ranking-weighted ensembles (Feurer et al. 2018), an earlier study counts by how well its ranking holds on the new
data. None of its trials is written into the new study: the sampler sees them beside the study's own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from shared.domain import EarlierStudy, StudySpec, Transfer
from shared.tuning.mapping import nearest, shown_in
from shared.tuning.neighbors import distances, distinct, encode, space_of
from shared.tuning.stopping import WARM_START

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage

logger = logging.getLogger(__name__)

# Measured by `python -m benchmarks retune`.
N_CANDIDATES = 10
N_WARM_STARTS = 3
LEAST_DISTANCE = 0.05
# These learn from any trial. Others have searched a grid, or bred a population, and count what is theirs.
LEARNING = ("TPESampler", "GPSampler")


@dataclass(frozen=True)
class Source:
    """An earlier study: its complete trials, best first; those that the ledger has, where it was deleted (`gone`)."""

    about: EarlierStudy
    trials: Sequence[FrozenTrial]
    gone: bool = False
    _expected: dict[int, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    def expected(self, own: Sequence[FrozenTrial]) -> np.ndarray:
        """Values of the trials here that are nearest to those of the new study: `(n_trials, n_directions)`."""
        new = [trial for trial in own if trial.number not in self._expected]
        if new:
            space = space_of([*self.trials, *new])
            closest = distances(encode(new, space), encode(self.trials, space), space).argmin(axis=1)
            values = values_of(self.trials)[closest]
            self._expected.update((trial.number, found) for trial, found in zip(new, values, strict=True))
        return np.array([self._expected[trial.number] for trial in own])

    def weight(self, own: Sequence[FrozenTrial]) -> float:
        """How well its ranking holds for the complete trials of the new study, from 0 to 1."""
        return ranking_holds(self.expected(own), values_of(own)) if own else 0.0

    def shared(self, own: Sequence[FrozenTrial], space: Mapping[str, BaseDistribution]) -> list[FrozenTrial]:
        """A share of its trials as large as its weight, evenly over the ranks, as trials of the new study.

        Their values are moved by the median difference to the study's own.
        """
        weight = 0.0 if self.gone else self.weight(own)
        n = round(weight * len(self.trials))
        if not n:
            return []
        moved = np.median(values_of(own) - self.expected(own), axis=0)
        places = np.linspace(0, len(self.trials) - 1, n).round().astype(int)
        taken = [shown_in(self.trials[i], space, trusted=self.about.same_objective) for i in places]
        return [_moved(trial, moved) for trial in taken if trial is not None]


def ranking_holds(expected: np.ndarray, actual: np.ndarray) -> float:
    """Kendall's tau, less the standard deviation that it has by chance; at least 0. Of several directions the least.

    Values `(n_trials, n_directions)`.
    """
    n = len(actual)
    if n < 3:
        return 0.0
    chance = math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1)))
    return max(0.0, min(kendall(a, b) for a, b in zip(expected.T, actual.T, strict=True)) - chance)


def kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau of two rankings of `(n,)`: pairs in the same order less those in the other, in all (tau a)."""
    n = len(a)
    same = np.sign(a[:, None] - a) * np.sign(b[:, None] - b)
    return float(same.sum() / (n * (n - 1)))


def values_of(trials: Sequence[FrozenTrial]) -> np.ndarray:
    """`(n_trials, n_directions)`"""
    return np.array([trial.values for trial in trials])


def _moved(trial: FrozenTrial, by: np.ndarray) -> FrozenTrial:
    trial.values = [float(value + move) for value, move in zip(trial.values, by, strict=True)]
    return trial


def sources(spec: StudySpec, storage: BaseStorage) -> list[Source]:
    """The earlier studies of a spec, as far as they are still in the storage."""
    return [_source(about, spec, storage) for about in spec.earlier]


def _source(about: EarlierStudy, spec: StudySpec, storage: BaseStorage) -> Source:
    try:
        study_id = storage.get_study_id_from_name(about.study)
        trials = storage.get_all_trials(study_id, deepcopy=False, states=(TrialState.COMPLETE,))
    except KeyError:
        trials = []
    if not trials:
        logger.info("earlier study is gone", extra={"study": spec.name, "earlier": about.study})
    sign = -1 if spec.directions[0] == "maximize" else 1
    ranked = sorted(trials, key=lambda trial: (_infeasibility(trial), sign * trial.values[0]))
    return Source(about, ranked or [_remembered(trial) for trial in about.top], gone=not trials)


def _infeasibility(trial: FrozenTrial) -> float:
    return sum(max(0.0, broken) for broken in trial.constraints.values())


def _remembered(summary: Any) -> FrozenTrial:
    """A trial as the ledger has it: without distributions."""
    return FrozenTrial(
        number=summary.number, trial_id=-1, state=TrialState.COMPLETE, value=None, values=list(summary.values),
        datetime_start=None, datetime_complete=None, params=dict(summary.params), distributions={}, user_attrs={},
        system_attrs={}, intermediate_values={},
    )  # fmt: skip


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
        most = (self._spec.n_trials + 1) // 2 if self._learns else self._spec.n_trials
        starts = [start for start in warm_starts(self.sources)[:most] if _origin(start) not in known]
        for place, start in enumerate(starts):
            if place and self._learns:
                study.enqueue_trial({})
            study.enqueue_trial({}, user_attrs={WARM_START: start})

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        if WARM_START in trial.user_attrs:
            return {}
        return self.sampler.infer_relative_search_space(self._seen(study, trial), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if WARM_START in trial.user_attrs:
            return {}
        return self.sampler.sample_relative(self._seen(study, trial), trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        start = trial.user_attrs.get(WARM_START, {"params": {}})
        try:
            return nearest(start["params"][param_name], param_distribution)
        except (KeyError, ValueError):
            return self.sampler.sample_independent(self._seen(study, trial), trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.sampler.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self.sampler.after_trial(study, trial, state, values)
        if changes := changed(trial):
            about = {"study": study.study_name, "trial": trial.number, "changes": changes}
            logger.info("warm start mapped", extra=about)

    def reseed_rng(self) -> None:
        self.sampler.reseed_rng()

    @property
    def _learns(self) -> bool:
        return type(self.sampler).__name__ in LEARNING

    def _seen(self, study: optuna.Study, trial: FrozenTrial) -> Any:
        """The study as the sampler sees it. What it sees of others is decided once per trial."""
        if not self._learns:
            return study
        if trial.number != self._seen_by:
            self._seen_by, self._foreign = trial.number, self._shared(study)
        return _Seen(study, self._foreign) if self._foreign else study

    def _shared(self, study: optuna.Study) -> list[FrozenTrial]:
        trials = study.get_trials(deepcopy=False)
        space = {name: distribution for t in trials for name, distribution in t.distributions.items()}
        own = [t for t in trials if t.state == TrialState.COMPLETE]
        found = [t for source in reversed(self.sources) for t in source.shared(own, space)]
        for place, t in enumerate(found):
            t.number = place - len(found)  # before all of the study's own
        return found


def warm_starts(found: Sequence[Source]) -> list[dict[str, Any]]:
    """The best distinct configurations of earlier studies, those of the first study first, as `WARM_START` has them."""
    origin = {id(trial): source.about.study for source in found for trial in source.trials}
    best = [trial for source in found for trial in source.trials[:N_CANDIDATES]]
    return [
        {"study": origin[id(trial)], "trial": trial.number, "params": dict(trial.params)}
        for trial in distinct(best, N_WARM_STARTS, LEAST_DISTANCE)
    ]


def _origin(start: Mapping[str, Any]) -> tuple[str, int]:
    return start["study"], start["trial"]


def changed(trial: FrozenTrial) -> str:
    """What a warm start has other than the trial that it repeats, in words; empty where they are the same."""
    if WARM_START not in trial.user_attrs:
        return ""
    before, now = trial.user_attrs[WARM_START]["params"], trial.params
    moved = [f"{k} {_shown(before[k])} → {_shown(v)}" for k, v in now.items() if k in before and before[k] != v]
    new = [f"{k} = {_shown(v)} is new" for k, v in now.items() if k not in before]
    gone = [f"{k} is gone" for k in before if k not in now]
    return ", ".join([*moved, *new, *gone])


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def transfers(spec: StudySpec, storage: BaseStorage, trials: Sequence[FrozenTrial]) -> tuple[Transfer, ...]:
    """What a study has taken over, judged at its end."""
    own = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return tuple(
        Transfer(
            study=source.about.study,
            fingerprint=source.about.fingerprint,
            trials=0 if source.gone else len(source.trials),
            weight=source.weight(own),
        )
        for source in sources(spec, storage)
    )


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
