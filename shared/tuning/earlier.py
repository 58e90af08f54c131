"""What earlier studies know: how well their ranking holds on new data, and which of their trials are worth a look."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from shared.domain import EarlierStudy, StudySpec, Transfer, TrialSummary
from shared.tuning.expected import expected, value_of
from shared.tuning.mapping import shown_in
from shared.tuning.neighbors import distances, distinct, encode, space_of
from shared.tuning.stopping import FINISHED

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage

logger = logging.getLogger(__name__)

# Measured by `python -m benchmarks retune`.
N_CANDIDATES = 10
N_WARM_STARTS = 3
LEAST_DISTANCE = 0.2
MOST_SHARED = 200  # trials of a study; a sampler's time grows with them
MOST_JUDGED = 500  # trials of a study, to tell whether a ranking holds: that takes all pairs of them


@dataclass(frozen=True)
class Source:
    """An earlier study: its complete trials, best first, then the pruned ones with what they would have come to.

    Those that the ledger has, where it was deleted (`gone`).
    """

    about: EarlierStudy
    trials: Sequence[FrozenTrial]
    gone: bool = False
    _expected: dict[int, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    def expected(self, own: Sequence[FrozenTrial]) -> np.ndarray:
        """Values of the trials here that are nearest to those of the new study: `(n_trials, n_directions)`."""
        new = [trial for trial in own if trial.number not in self._expected]
        if new:
            space = space_of([*self._judged, *new])
            closest = distances(encode(new, space), encode(self._judged, space), space).argmin(axis=1)
            values = values_of(self._judged)[closest]
            self._expected.update((trial.number, found) for trial, found in zip(new, values, strict=True))
        return np.array([self._expected[trial.number] for trial in own])

    @cached_property
    def _judged(self) -> list[FrozenTrial]:
        return evenly(self.trials, MOST_JUDGED)

    def weight(self, own: Sequence[FrozenTrial]) -> float:
        """How well its ranking holds for the scored trials of the new study, from 0 to 1."""
        return ranking_holds(self.expected(own), values_of(own)) if own and self.trials else 0.0

    def shared(self, own: Sequence[FrozenTrial], space: Mapping[str, BaseDistribution]) -> list[FrozenTrial]:
        """A share of its trials as large as its weight, evenly over the ranks, as trials of the new study.

        Their values are moved by the median difference to the study's own.
        """
        weight = 0.0 if self.gone else self.weight(own)
        n = min(round(weight * len(self.trials)), MOST_SHARED)
        if not n:
            return []
        moved = np.median(values_of(own) - self.expected(own), axis=0)
        taken = [shown_in(trial, space, trusted=self.about.same_objective) for trial in evenly(self.trials, n)]
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


def evenly(trials: Sequence[FrozenTrial], most: int) -> list[FrozenTrial]:
    """At most so many of the trials, evenly over their order."""
    return [trials[i] for i in np.linspace(0, len(trials) - 1, min(most, len(trials))).round().astype(int)]


def scored(trials: Sequence[FrozenTrial], n_directions: int, most: int | None = MOST_JUDGED) -> list[FrozenTrial]:
    """The newest trials with a value per direction, in the order of their numbers; None: all of them.

    The complete ones, and with one direction pruned ones, with what they would have come to.
    """
    newest = islice((trial for trial in reversed(trials) if _is_scored(trial, n_directions)), most)
    return expected(list(newest)[::-1])


def values_of(trials: Sequence[FrozenTrial]) -> np.ndarray:
    """Of scored trials: `(n_trials, n_directions)`"""
    return np.array([trial.values for trial in trials])


def _is_scored(trial: FrozenTrial, n_directions: int) -> bool:
    values = [value_of(trial)] if n_directions == 1 and _is_pruned(trial) else trial.values or ()
    return trial.state.name in FINISHED and len(values) == n_directions and all(map(math.isfinite, values))


def _moved(trial: FrozenTrial, by: np.ndarray) -> FrozenTrial:
    trial.values = [float(value + move) for value, move in zip(trial.values, by, strict=True)]
    return trial


def sources(spec: StudySpec, storage: BaseStorage) -> list[Source]:
    """The earlier studies of a spec, as far as they are still in the storage."""
    return [_source(about, spec, storage) for about in spec.earlier]


def _source(about: EarlierStudy, spec: StudySpec, storage: BaseStorage) -> Source:
    try:
        study_id = storage.get_study_id_from_name(about.study)
        trials = scored(storage.get_all_trials(study_id, deepcopy=False), len(spec.directions), most=None)
    except KeyError:
        trials = []
    if not trials:
        logger.info("earlier study is gone", extra={"study": spec.name, "earlier": about.study})
    sign = -1 if spec.directions[0] == "maximize" else 1
    ranked = sorted(trials, key=lambda t: (_is_pruned(t), _infeasibility(t), sign * t.values[0]))
    remembered = [_remembered(trial) for trial in about.top if all(map(math.isfinite, trial.values))]
    return Source(about, ranked or remembered, gone=not trials)


def _is_pruned(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.PRUNED


def _infeasibility(trial: FrozenTrial) -> float:
    return sum(max(0.0, broken) for broken in trial.constraints.values())


def _remembered(summary: TrialSummary) -> FrozenTrial:
    """A trial as the ledger has it: without distributions."""
    return FrozenTrial(
        number=summary.number, trial_id=-1, state=TrialState.COMPLETE, value=None, values=list(summary.values),
        datetime_start=None, datetime_complete=None, params=dict(summary.params), distributions={}, user_attrs={},
        system_attrs={}, intermediate_values={},
    )  # fmt: skip


def warm_starts(found: Sequence[Source]) -> list[dict[str, Any]]:
    """The best distinct configurations of earlier studies, those of the first study first, as `WARM_START` has them."""
    origin = {id(trial): source.about.study for source in found for trial in source.trials}
    best = [trial for source in found for trial in source.trials[:N_CANDIDATES] if not _is_pruned(trial)]
    return [
        {"study": origin[id(trial)], "trial": trial.number, "params": dict(trial.params)}
        for trial in distinct(best, N_WARM_STARTS, LEAST_DISTANCE)
    ]


def transfers(spec: StudySpec, storage: BaseStorage, trials: Sequence[FrozenTrial]) -> tuple[Transfer, ...]:
    """What a study has taken over, judged at its end."""
    own = scored(trials, len(spec.directions))
    return tuple(
        Transfer(
            study=source.about.study,
            fingerprint=source.about.fingerprint,
            trials=0 if source.gone else len(source.trials),
            weight=source.weight(own),
        )
        for source in sources(spec, storage)
    )
