"""The value objects that the stages hand to each other. Frozen, JSON-able, free of IO."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Task = Literal["classification", "regression"]
Direction = Literal["minimize", "maximize"]
Variant = Literal["classical", "deep", "system"]
Steps = Literal["fold", "epoch", ""]
MEMBERS: tuple[Variant, ...] = ("classical", "deep")
USE_CASE_NAME = "[a-z][a-z0-9_]{0,39}"  # a pattern; the name becomes part of paths, tags and other names


def model_name(use_case: str, variant: Variant) -> str:
    """Name of the registered model that the studies of a variant lead to."""
    return use_case if variant == "system" else f"{use_case}-{variant}"


def model_names(use_case: str) -> list[str]:
    """Names of all registered models of a use case, its system's first; some may not be there yet."""
    return [model_name(use_case, variant) for variant in ("system", *MEMBERS)]


def source_hash(source: str) -> str:
    """SHA-256 of an objective's source text, hexadecimal."""
    return hashlib.sha256(source.encode()).hexdigest()


class Frozen(BaseModel):
    """Base of the value objects: immutable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Table(Frozen):
    """What a row of a dataset version looks like.

    `classes` are the target's labels in the order of their codes (empty for regression): `Dataset.y` holds codes.
    `shape` is that of one row as a tensor, `(n_features,)` for plain tables, `(channels, height, width)` for images.
    """

    features: tuple[str, ...]
    dtypes: tuple[str, ...]
    target: str
    task: Task
    classes: tuple[str | int | float | bool, ...] = ()
    shape: tuple[int, ...]


class DatasetRef(Frozen):
    """One dataset version: the content behind one fingerprint, and where its Parquet files are.

    files: that the source's rows were read from; none where it has no files.
    """

    use_case: str
    fingerprint: str
    uri: str
    table: Table
    rows: Mapping[str, int]
    folds: int
    source: str
    created_at: datetime
    previous: str | None = None
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Rows of one split, loaded.

    X: frame `(n_rows, n_features)`; y: `(n_rows,)`, class codes (int64) or values (float64); fold: `(n_rows,)` int64
    (all -1 for the holdout). With `ordered` (a split by time) fold k is validated by training on the folds before it,
    and the rows of fold 0 are only ever trained on.
    """

    ref: DatasetRef
    X: pd.DataFrame
    y: np.ndarray
    fold: np.ndarray
    ordered: bool = False

    def splits(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Row positions `(train, valid)` of each fold, in the order of the folds."""
        first = 1 if self.ordered else 0
        for k in range(first, self.ref.folds + first):
            train = self.fold < k if self.ordered else self.fold != k
            yield train.nonzero()[0], (self.fold == k).nonzero()[0]


class StrategySpec(Frozen):
    """A sampler or pruner: `auto`, or the name of an Optuna class and its arguments."""

    name: str = "auto"
    options: Mapping[str, Any] = Field(default_factory=dict)


class TrialSummary(Frozen):
    """A finished trial. `params` are external values, as `optuna.trial.FixedTrial` takes them."""

    number: int
    values: tuple[float, ...]
    params: Mapping[str, Any]
    user_attrs: Mapping[str, Any] = Field(default_factory=dict)
    duration_s: float = 0.0


class EarlierStudy(Frozen):
    """A finished study of the variant that another one starts from. `top`: its best trials, best first.

    `same_objective`: the same source, metric, directions and folds, so that it differs by its data alone.
    """

    study: str
    fingerprint: str
    same_objective: bool
    top: tuple[TrialSummary, ...]


class Transfer(Frozen):
    """What a study took over from an earlier one: how many of its trials it could see (0: it was deleted), and how well
    their ranking held in the end (`weight`, 0 to 1).
    """

    study: str
    fingerprint: str
    trials: int
    weight: float


class StudySpec(Frozen):
    """All that a worker needs to know of a study.

    `n_trials` is the budget: trials that finish. After `patience` finished trials without improvement the study stops
    (0: never), with `terminator` when it can gain no more than its folds can tell. `since` is when the run started:
    `max_failures` counts from there (None: from the study's start).
    `warm_starts` are configurations that are evaluated first; `earlier` are studies to learn from, the nearest first.
    `steps` is what a trial reports after; empty: whatever the objective likes. `metrics` name the values of an
    objective of one's own; `guard` is the one that is reported.
    """

    name: str
    use_case: str
    variant: Variant
    fingerprint: str
    objective_hash: str
    directions: tuple[Direction, ...]
    n_trials: int
    seed: int = 0
    sampler: StrategySpec = StrategySpec()
    pruner: StrategySpec = StrategySpec()
    timeout_s: float | None = None
    trial_timeout_s: float | None = None
    max_failures: int = 5
    patience: int = 0
    terminator: bool = False
    since: datetime | None = None
    warm_starts: tuple[Mapping[str, Any], ...] = ()
    earlier: tuple[EarlierStudy, ...] = ()
    steps: Steps = ""
    metrics: tuple[str, ...] = ()
    guard: str | None = None


class TuningResult(Frozen):
    """How a study ended: the best trial, or the Pareto front (`front`) and the pick from it (`best`).

    `top` are the best trials of distinct parameters, best first; `transfers` is what came from earlier studies.
    """

    study: str
    best: TrialSummary
    top: tuple[TrialSummary, ...] = ()
    front: tuple[TrialSummary, ...] = ()
    counts: Mapping[str, int]
    wall_s: float
    cpu_s: float
    note: str = ""
    transfers: tuple[Transfer, ...] = ()


class ModelVersion(Frozen):
    """A version of a registered model, as the registry knows it."""

    name: str
    version: int
    created_at: datetime | None = None
    aliases: tuple[str, ...] = ()
    lineage: Mapping[str, str] = Field(default_factory=dict)
    metrics: Mapping[str, float] = Field(default_factory=dict)

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True)
class Measure:
    """A metric, greater is better, in two steps, so that many draws of rows are measured at once.

    rows: targets `(n_rows,)` and predictions → what each row has to say, `(n_rows, …)`, of that row's own or its rank.
    over: targets and what their rows say, both `(…, n_rows)` → the metric of each draw `(…,)`; NaN where undefined.
    """

    name: str
    rows: Callable[[np.ndarray, np.ndarray], np.ndarray]
    over: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def score(self, y: np.ndarray, predictions: np.ndarray) -> float:
        """The metric of all rows."""
        return float(self.over(y, self.rows(y, predictions)))


class PromotionDecision(Frozen):
    """Promote or not, the reason in one sentence, and the figures behind it."""

    promote: bool
    reason: str
    figures: Mapping[str, float] = Field(default_factory=dict)
