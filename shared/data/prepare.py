"""From a source to a dataset version: read, check, fingerprint, split, and store what is new."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from shared.config import UseCase
from shared.data import fingerprint, profile, sources, split, store, validate
from shared.domain import Dataset, DatasetRef, Table

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A dataset version, its profile, how it moved from the previous one, and whether it is the previous one."""

    ref: DatasetRef
    profile: dict[str, Any]
    drift: dict[str, Any] | None
    unchanged: bool


@dataclass(frozen=True)
class _Rows:
    """Checked rows, in an order that follows from their content.

    X: features; hashes: of each row's features, `(n_rows,)`; target: labels as they came.
    """

    X: pd.DataFrame
    hashes: np.ndarray
    target: pd.Series
    time: pd.Series | None
    table: Table
    fingerprint: str
    files: tuple[str, ...]


def prepare(use_case: UseCase, previous: DatasetRef | None, now: datetime) -> Prepared:
    """The dataset version of what the source holds now; nothing is written if it is the previous one.

    Raises:
        DataError: the source can't be read, its rows can't be learned from, or the store can't be written.
    """
    rows = _read(use_case)
    whole = _split(rows, use_case, now, _ancestor(previous, rows.fingerprint))
    if previous and previous.fingerprint == rows.fingerprint and store.is_complete(previous):
        logger.info("dataset unchanged", extra={"use_case": use_case.name, "fingerprint": rows.fingerprint})
        return Prepared(previous, store.read_profile(previous), drift=None, unchanged=True)
    labels = rows.target.astype(str) if rows.table.classes else rows.target
    described = profile.profile(rows.X, labels, rows.table, whole.ref.rows)
    columns = {rows.table.target: whole.y, validate.FOLD: whole.fold}
    store.write(whole.ref, rows.X.assign(**columns), described, ordered=whole.ordered)
    logger.info("dataset version written", extra={"use_case": use_case.name, "uri": whole.ref.uri})
    return Prepared(whole.ref, described, _drift(rows.X, labels, previous), unchanged=False)


def in_memory(use_case: UseCase) -> Dataset:
    """The development rows as `prepare` would store them, without a store or a database: to try out an objective.

    Raises:
        DataError: the source can't be read, or its rows can't be learned from.
    """
    return _development(_split(_read(use_case), use_case, datetime.now(tz=UTC), ancestor=None))


def _read(use_case: UseCase) -> _Rows:
    source = sources.read(use_case.data)
    validate.check_frame(source.frame, use_case)
    validate.check_target(source.frame[use_case.data.target], use_case)
    features, values = validate.features(source.frame, use_case), fingerprint.value_hashes(source.frame)
    hashes = fingerprint.row_hashes(values)
    order = np.argsort(hashes, kind="stable")
    frame = source.frame.iloc[order].reset_index(drop=True)
    target, time = use_case.data.target, use_case.data.time
    table = Table(
        features=tuple(features),
        dtypes=tuple(str(frame[name].dtype) for name in features),
        target=target,
        task=use_case.tuning.task,
        classes=_classes(frame[target]) if use_case.tuning.task == "classification" else (),
        shape=source.shape or (len(features),),
    )
    identity = fingerprint.fingerprint(hashes, frame.columns, _rules(use_case))
    return _Rows(
        X=frame[features],
        hashes=fingerprint.row_hashes(values[features])[order],
        target=frame[target],
        time=frame[time] if time else None,
        table=table,
        fingerprint=identity,
        files=source.files,
    )


def _rules(use_case: UseCase) -> dict[str, Any]:
    """What, besides the rows, makes a dataset version another one."""
    kept = use_case.data.model_dump(include={"target", "holdout", "time", "split_seed"})
    return kept | {"folds": use_case.tuning.folds, "task": use_case.tuning.task}


def _classes(target: pd.Series) -> tuple[str | int | bool, ...]:
    """Sorted labels; whole numbers are ints, however the source stores them."""
    values = np.sort(target.unique()).tolist()
    whole = (int(value) if isinstance(value, float) else value for value in values)
    return tuple(value if isinstance(value, str | int | bool) else str(value) for value in whole)


def _split(rows: _Rows, use_case: UseCase, now: datetime, ancestor: str | None) -> Dataset:
    """All rows as one dataset, holdout included (fold -1), checked to be fit for tuning by the config's metric."""
    config, folds = use_case.data, use_case.tuning.folds
    if rows.time is None:
        fold = split.by_hash(rows.hashes, config, folds)
    else:
        fold = split.by_time(rows.time.rank(method="dense").to_numpy(), config, folds)
    n_holdout = int((fold == split.HOLDOUT).sum())
    ref = DatasetRef(
        use_case=use_case.name,
        fingerprint=rows.fingerprint,
        uri=store.uri(use_case.name, rows.fingerprint),
        table=rows.table,
        rows={"development": len(fold) - n_holdout, "holdout": n_holdout},
        folds=folds,
        source=config.source,
        created_at=now,
        previous=ancestor,
        files=rows.files,
    )
    whole = Dataset(ref, rows.X, _y(rows), fold, ordered=rows.time is not None)
    validate.check_split(_development(whole), whole.y[fold == split.HOLDOUT], use_case)
    return whole


def _ancestor(previous: DatasetRef | None, fingerprint: str) -> str | None:
    """Fingerprint of the version before; one whose files were lost and are written again keeps the one it had."""
    if previous is None:
        return None
    return previous.previous if previous.fingerprint == fingerprint else previous.fingerprint


def _y(rows: _Rows) -> np.ndarray:
    if rows.table.task == "regression":
        return rows.target.to_numpy(dtype=np.float64)
    return np.unique(rows.target.to_numpy(), return_inverse=True)[1].astype(np.int64)


def _development(whole: Dataset) -> Dataset:
    kept = whole.fold != split.HOLDOUT
    return Dataset(whole.ref, whole.X[kept].reset_index(drop=True), whole.y[kept], whole.fold[kept], whole.ordered)


def _drift(X: pd.DataFrame, labels: pd.Series, previous: DatasetRef | None) -> dict[str, Any] | None:
    if previous is None or previous.table.target != labels.name or not store.is_complete(previous):
        return None
    return profile.drift(X, labels, store.read_profile(previous))
