"""Out-of-fold scores of members, cached fold by fold, so that a trial that changes only the blend fits nothing."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from shared.errors import EvertuneError, ObjectiveError
from shared.model import Member, System
from shared.training import threads
from shared.training.classical import signature
from shared.training.evaluate import fit_member
from shared.training.latency import latency_ms
from shared.training.scoring import score

if TYPE_CHECKING:
    import pandas as pd

    from shared.domain import Dataset, DatasetRef, Table
    from shared.tuning.objective import Objective

Preprocessing = Literal["none", "standard", "quantile"]
_CACHE_FORMAT = 1
_MOST_QUANTILES = 1000


class Cache(Protocol):
    """A shared store of blobs by key, such as the folder of a dataset version. Keys are words with slashes."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, blob: bytes) -> None: ...


@dataclass(frozen=True)
class Configuration:
    """A member as it is to be fitted. `best_epoch`: epochs of a deep member, by default its plan's."""

    name: str
    objective: Objective
    params: Mapping[str, Any]
    preprocessing: Preprocessing = "none"
    best_epoch: int | None = None

    def fit(self, data: Dataset, rows: np.ndarray | None = None, seed: int = 0) -> Member:
        """The member, fitted on some rows (positions), by default on all.

        Raises:
            ObjectiveError: the objective raised, with its words.
        """
        X, y = (data.X, data.y) if rows is None else (data.X.iloc[rows], data.y[rows])
        with explained(self.objective, self.name, self.params):
            transformer = preprocessor(self.preprocessing, len(X))
            ready = X if transformer is None else transformer.fit_transform(X)
            table = data.ref.table
            member = fit_member(self.objective, self.params, ready, y, table, self.best_epoch, seed, self.name)
        return replace(member, preprocessing=transformer)

    def key(self, ref: DatasetRef, fold: int, seed: int, n_threads: int = 1) -> str:
        """Where the fold's scores are cached: a hash of everything that they depend on."""
        own = (self.objective.hash, dict(self.params), self.preprocessing, self.best_epoch)
        facts = (_CACHE_FORMAT, *own, ref.fingerprint, ref.folds, seed, n_threads)
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
        return f"oof/{self.name}/{digest[:32]}/{fold}.npz"


@dataclass(frozen=True)
class FoldScores:
    """Scores of a fold's validation rows, `(n_valid, n_classes)` or `(n_valid,)`, and the member's latency per row."""

    scores: np.ndarray
    latency_ms: float

    def pack(self) -> bytes:
        buffer = io.BytesIO()
        np.savez(buffer, scores=self.scores, latency_ms=self.latency_ms)
        return buffer.getvalue()

    @classmethod
    def unpack(cls, blob: bytes) -> FoldScores:
        with np.load(io.BytesIO(blob), allow_pickle=False) as arrays:
            return cls(arrays["scores"], float(arrays["latency_ms"]))


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold scores of configurations on one dataset. Each fold is fitted once, by the worker that comes first.

    The folds are those of `data.splits()`: by time, the rows that are only ever trained on have no score. n_threads:
    that a fold is fitted with, wherever that is, since the last digits of its scores depend on it.
    """

    data: Dataset
    metric: str
    seed: int = 0
    cache: Cache | None = None
    n_threads: int = 1
    _seen: dict[str, FoldScores] = field(default_factory=dict, repr=False)

    @property
    def splits(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return list(self.data.splits())

    @property
    def y(self) -> list[np.ndarray]:
        """The target of each fold's validation rows."""
        return [self.data.y[valid] for _, valid in self.splits]

    def all(
        self, member: Configuration, rival: Configuration | None = None, backwards: bool = False
    ) -> list[FoldScores]:
        """The scores of every fold, in the order of the folds.

        rival: a known configuration of the member; what falls behind it on the first folds isn't fitted on the rest.
        backwards: from the last fold on, so that two workers after the same scores meet in the middle.

        Raises:
            optuna.TrialPruned: it falls behind the rival.
            ObjectiveError: the objective raised.
        """
        order = sorted(range(len(self.splits)), reverse=backwards)
        found = dict[int, FoldScores]()
        known = None if rival is None or rival == member else self.results(self.all(rival, backwards=backwards))
        for k in order:
            found[k] = self.fold(member, k)
            if known is not None:
                self._give_up_if_behind(member.name, found, known)
        return [found[k] for k in sorted(found)]

    def results(self, folds: Iterable[FoldScores]) -> list[float]:
        """The metric on each of the folds."""
        return [self._result(k, fold) for k, fold in enumerate(folds)]

    def fold(self, member: Configuration, k: int) -> FoldScores:
        """The scores of the k-th fold: remembered, cached, or of a fresh fit."""
        key = member.key(self.data.ref, k, self.seed, self.n_threads)
        if key not in self._seen:
            blob = None if self.cache is None else self.cache.get(key)
            self._seen[key] = self._fit_fold(member, k, key) if blob is None else FoldScores.unpack(blob)
        return self._seen[key]

    def _fit_fold(self, member: Configuration, k: int, key: str) -> FoldScores:
        train, valid = self.splits[k]
        threads.limit(self.n_threads)
        system = System(signature(self.data.ref.table), (member.fit(self.data, train, self.seed),))
        rows = self.data.X.iloc[valid]
        with explained(member.objective, member.name, member.params):
            fold = FoldScores(np.asarray(system.scores(rows), dtype=np.float64), latency_ms(system, rows))
            self._result(k, fold)
        if self.cache is not None:
            self.cache.put(key, fold.pack())
        return fold

    def _result(self, k: int, fold: FoldScores) -> float:
        return score(self.metric, self.data.ref.table, self.y[k], fold.scores)

    def _give_up_if_behind(self, name: str, found: Mapping[int, FoldScores], rival: Sequence[float]) -> None:
        mine, theirs = fmean(self._result(k, f) for k, f in found.items()), fmean(rival[k] for k in found)
        if len(found) < len(rival) and falls_behind(mine, theirs, stdev(rival), len(found)):
            from optuna import TrialPruned

            raise TrialPruned(
                f"{name}: {self.metric} {mine:.5g} on {len(found)} of {len(rival)} folds, "
                f"where the upstream best has {theirs:.5g}"
            )


def falls_behind(mine: float, theirs: float, spread: float, n_folds: int) -> bool:
    """Whether a mean over `n_folds` isn't worth another fold, given the rival's mean over the same folds.

    After one fold it may be worse by the `spread` of the rival between folds, later by nothing.
    """
    return mine < theirs - (spread if n_folds == 1 else 0.0)


def preprocessings(objective: Objective, X: pd.DataFrame, table: Table) -> tuple[Preprocessing, ...]:
    """The preprocessings that suit a member: none for a network on images, whose pixels share one scale."""
    image, numeric = len(table.shape) > 1, all(dtype.kind in "biuf" for dtype in X.dtypes)
    if not numeric or (image and objective.deep):
        return ("none",)
    return ("none", "standard") if image else ("none", "standard", "quantile")


def preprocessor(kind: Preprocessing, n_rows: int) -> Any:
    """An unfitted transformer of frames to frames with the same columns, or None."""
    from sklearn.preprocessing import QuantileTransformer, StandardScaler

    if kind == "none":
        return None
    quantiles = {"n_quantiles": min(n_rows, _MOST_QUANTILES), "output_distribution": "normal", "random_state": 0}
    transformer = StandardScaler() if kind == "standard" else QuantileTransformer(**quantiles)
    return transformer.set_output(transform="pandas")


@contextmanager
def explained(objective: Objective, name: str, params: Mapping[str, Any]) -> Iterator[None]:
    """What a user's code raises, as an error that says whose it is; Evertune's own errors and pruning pass.

    Raises:
        ObjectiveError: anything else was raised.
    """
    from optuna import TrialPruned

    try:
        yield
    except (EvertuneError, TrialPruned):
        raise
    except Exception as err:
        raise ObjectiveError(
            f"{objective.label}: the member {name!r} must fit and predict every row, but raised "
            f"{type(err).__name__}: {err}; try it with the parameters {dict(params)}"
        ) from err
