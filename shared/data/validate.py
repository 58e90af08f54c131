"""What rows must be like to be learned from. Each rule is an error that says the rule, the value and the remedy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from shared.config import UseCase, did_you_mean
from shared.domain import Dataset
from shared.errors import DataError

FOLD = "__fold"


def check_frame(frame: pd.DataFrame, use_case: UseCase) -> None:
    """The frame has rows, features, the target, and columns whose names are theirs alone.

    Raises:
        DataError: one of these isn't so.
    """
    config, label = use_case.data, f"configs/{use_case.name}.toml"
    if frame.empty:
        raise DataError(
            f"{label}: `data.source` must give at least one row and one column, but {config.source} gives "
            f"{len(frame)} rows and {frame.shape[1]} columns; check the file, or narrow the glob to files with rows"
        )
    repeated = frame.columns[frame.columns.duplicated()].unique()
    if len(repeated):
        raise DataError(
            f"{label}: columns must have different names, but {config.source} repeats {_listed(repeated)}; "
            "rename one of each"
        )
    _check_present(frame, config.target, f"{label}: `data.target`", config.source)
    if config.time is not None:
        _check_present(frame, config.time, f"{label}: `data.time`", config.source)
        if frame[config.time].dtype.kind not in "iufM":
            raise DataError(
                f"{label}: `data.time` must be a column of dates or numbers, but {config.time!r} holds text such as "
                f"'{frame[config.time].iloc[0]}'; write dates as 2026-01-31 or 2026-01-31T12:00:00"
            )
    if not features(frame, use_case):
        raise DataError(
            f"{label}: {config.source} must have a column besides target and time, but has only "
            f"{_listed(frame.columns)}; add the features"
        )
    check_promotion(use_case, features(frame, use_case))
    check_groups(use_case, frame)
    if FOLD in frame.columns:
        raise DataError(f"{label}: {FOLD} is the name of Evertune's own column; rename that of {config.source}")


def features(frame: pd.DataFrame, use_case: UseCase) -> list[str]:
    """The columns that a model may learn from: all but the target and the time."""
    return [name for name in frame.columns if name not in (use_case.data.target, use_case.data.time)]


def check_promotion(use_case: UseCase, features: Sequence[str]) -> None:
    """The columns are there by which the gate slices and groups rows.

    Raises:
        DataError: one isn't.
    """
    rules = use_case.promotion
    if rules is None:
        return
    asked = {f"promotion.slices.{column}": column for column in rules.slices}
    for key, column in ({"promotion.group": rules.group} | asked).items():
        if column is not None and column not in features:
            raise DataError(
                f"configs/{use_case.name}.toml: `{key}` must name a feature, but {column!r} is none"
                f"{did_you_mean(column, features)}; there are {_listed(features)}"
            )


def check_groups(use_case: UseCase, frame: pd.DataFrame) -> None:
    """Each row belongs to a group, where the gate groups rows.

    Raises:
        DataError: one doesn't.
    """
    if use_case.promotion and use_case.promotion.group is not None:
        key = f"configs/{use_case.name}.toml: `promotion.group`"
        _check_present(frame, use_case.promotion.group, key, use_case.data.source)


def check_target(target: pd.Series, use_case: UseCase) -> None:
    """The target suits the metric: two classes at least, or finite numbers.

    Raises:
        DataError: it doesn't.
    """
    label, metric = f"configs/{use_case.name}.toml", use_case.tuning.metric
    numeric = pd.api.types.is_numeric_dtype(target)
    if use_case.tuning.task == "regression":
        if not numeric:
            raise DataError(
                f"{label}: `tuning.metric` = {metric!r} needs a numeric target, but {target.name!r} holds text such as "
                f"'{target.iloc[0]}'; take a classification metric, or name another `data.target`"
            )
        infinite = int((~np.isfinite(target.to_numpy(dtype=np.float64))).sum())
        if infinite:
            raise DataError(
                f"{label}: the target must be finite, but {target.name!r} is infinite in {infinite} rows; remove them"
            )
        return
    classes = target.unique()
    if len(classes) < 2:
        raise DataError(
            f"{label}: `tuning.metric` = {metric!r} needs at least 2 classes, but {target.name!r} has only "
            f"'{classes[0]}' in all {len(target)} rows; add rows of another class, or name another `data.target`"
        )
    if target.dtype.kind == "f" and (target % 1 != 0).any():
        raise DataError(
            f"{label}: `tuning.metric` = {metric!r} needs classes, but {target.name!r} holds fractions such as "
            f"{target[target % 1 != 0].iloc[0]}; take a regression metric such as 'r2', or name another `data.target`"
        )


def classes_to_score(metric: str, n_classes: int) -> int:
    """How many of the target's classes rows must have to get a score: to rank one takes another to compare it with."""
    if not metric.startswith("roc_auc"):
        return 0
    return n_classes if metric == "roc_auc_ovr" else 2


def check_split(development: Dataset, holdout: np.ndarray, use_case: UseCase) -> None:
    """Each fold can be trained and scored, two rows in every part, and so can the holdout, which is there.

    holdout: class codes or values `(n_rows,)`; the gate scores them, where the config promotes.

    Raises:
        DataError: one of these isn't so.
    """
    label, remedy = f"configs/{use_case.name}.toml", "use fewer folds (`tuning.folds`), or add rows"
    n_rows = len(development.y)
    if not len(holdout):
        raise DataError(
            f"{label}: `data.holdout` = {use_case.data.holdout} must hold out at least one row, but holds out none of "
            f"{n_rows}; raise it, or add rows"
        )
    classes, folds = development.ref.table.classes, use_case.tuning.folds
    for k, (train, valid) in enumerate(development.splits()):
        if min(len(train), len(valid)) < 2:
            raise DataError(
                f"{label}: each of the {folds} folds needs at least 2 rows to train on and 2 to score, "
                f"but fold {k} has {len(train)} and {len(valid)} of {n_rows} development rows; {remedy}"
            )
        if absent := _absent(development.y[train], classes):
            raise DataError(
                f"{label}: each class must be in every training fold, but fold {k} of {folds} would be "
                f"trained without {_listed(absent)}; {remedy} of that class"
            )
        _check_scored(development.y[valid], classes, use_case, f"fold {k} of {folds}", remedy)
    if use_case.promotion:
        _check_scored(holdout, classes, use_case, "the holdout", "raise `data.holdout`, or add rows")


def _check_scored(y: np.ndarray, classes: Sequence[object], use_case: UseCase, part: str, remedy: str) -> None:
    metric, absent = use_case.tuning.metric, _absent(y, classes)
    needed = classes_to_score(metric, len(classes))
    if len(classes) - len(absent) < needed:
        raise DataError(
            f"configs/{use_case.name}.toml: `tuning.metric` = {metric!r} needs rows of {needed} classes to give a "
            f"score, but {part} lacks {_listed(absent)}; {remedy} of that class, or take another metric, such as "
            "'neg_log_loss'"
        )


def _absent(y: np.ndarray, classes: Sequence[object]) -> list[object]:
    """The classes that no row has."""
    codes = set(np.unique(y))
    return [name for code, name in enumerate(classes) if code not in codes]


def _check_present(frame: pd.DataFrame, column: str, key: str, source: str) -> None:
    if column not in frame.columns:
        known = [str(name) for name in frame.columns]
        raise DataError(
            f"{key} must be a column of {source}, but is {column!r}{did_you_mean(column, known)}; "
            f"it has: {_listed(known)}"
        )
    missing = int(frame[column].isna().sum())
    if missing:
        raise DataError(
            f"{key} must have a value in every row, but {column!r} is missing in {missing} of {len(frame)} rows; "
            "fill them in, or remove these rows"
        )


def _listed(names: object, most: int = 12) -> str:
    shown = [str(name) for name in names]  # type: ignore[attr-defined]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
