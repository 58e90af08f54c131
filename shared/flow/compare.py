"""Two versions of a use case's system side by side: what is recorded of each, and how they do on the same rows.

The holdout is looked at as the gate does, but nothing is decided, so no level is spent on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shared.config import UseCase
from shared.domain import Dataset, DatasetRef, ModelVersion
from shared.errors import DataError
from shared.flow.gate import groups, predicted_by
from shared.registry.lineage import differing
from shared.storage.ledger import Ledger


@dataclass(frozen=True)
class Difference:
    """How two versions do on the same holdout rows: the metric of each, and between what the gain of `a` may lie.

    rows: those that are fair to both, `of` so many.
    """

    metric: str
    rows: int
    of: int
    a: float
    b: float
    low: float
    high: float

    @property
    def gain(self) -> float:
        return self.a - self.b


@dataclass(frozen=True)
class Comparison:
    """Two versions, the parameters that only one has or that differ, and how they do, or why that isn't known."""

    a: ModelVersion
    b: ModelVersion
    params: Mapping[str, tuple[str, str]]
    difference: Difference | str


def compare(use_case: UseCase, a: int, b: int) -> Comparison:
    """Compare two versions of the registered model of a use case.

    Raises:
        RegistryError: there is no such version, or one fails to predict rows of its own columns.
    """
    from shared.registry import client

    one, other = client.version(use_case.name, a), client.version(use_case.name, b)
    try:
        found: Difference | str = _difference(use_case, one, other)
    except DataError as err:
        found = str(err)
    return Comparison(one, other, differing(client.params(one), client.params(other)), found)


def _difference(use_case: UseCase, a: ModelVersion, b: ModelVersion) -> Difference | str:
    from shared.data.fair import can_decide
    from shared.data.store import load_dataset
    from shared.registry.significance import Pair
    from shared.training.measure import measure

    newest, metric = Ledger().newest_dataset(use_case.name), use_case.tuning.metric
    if newest is None:
        return "no dataset version is on record"
    holdout = load_dataset(newest, "holdout")
    rows = _fair(holdout, a, b)
    if not can_decide(rows, metric):
        return f"only {len(rows.y)} of {len(holdout.y)} holdout rows are fair to both, too few to tell them apart"
    one, other = predicted_by(metric, a, rows), predicted_by(metric, b, rows)
    if isinstance(one, str):
        return _no_score(a, one)
    if isinstance(other, str):
        return _no_score(b, other)
    pair = Pair(measure(metric, rows.ref.table), rows.y, one[1], other[1], groups(use_case, rows))
    score, interval = pair.measure.score, pair.interval()
    return Difference(metric, len(rows.y), len(holdout.y), score(rows.y, one[1]), score(rows.y, other[1]), *interval)


def _no_score(version: ModelVersion, why: str) -> str:
    return f"version {version.version} has no score on the rows of now ({why})"


def _fair(holdout: Dataset, a: ModelVersion, b: ModelVersion) -> Dataset:
    """The holdout rows that neither was trained on, or both were."""
    from shared.data.fair import new_to_champion
    from shared.data.store import load_dataset

    one, other = (_trained_on(holdout.ref, version) for version in (a, b))
    if one == other:
        return holdout
    seen, others = load_dataset(one), load_dataset(other)
    return new_to_champion(new_to_champion(holdout, seen, others), others, seen)


def _trained_on(newest: DatasetRef, version: ModelVersion) -> DatasetRef:
    """The dataset version of a model version.

    Raises:
        DataError: it is on record no more.
    """
    fingerprint = version.lineage.get("dataset", "")
    known = {ref.fingerprint: ref for ref in Ledger().datasets(newest.use_case)}
    if fingerprint not in known:
        raise DataError(f"the rows that version {version.version} was trained on ({fingerprint[:12]}) aren't on record")
    return known[fingerprint]
