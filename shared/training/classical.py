"""Estimators with scikit-learn's interface: cross-validation and the final fit."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import TYPE_CHECKING, Any

from shared.errors import ObjectiveError
from shared.model import Member, Signature
from shared.training.scoring import score

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from shared.domain import Dataset, Table

Report = Callable[[int, float], None]
Check = Callable[[Any], None]


def cross_validate(
    estimator: Any,
    data: Dataset,
    metric: str,
    report: Report | None = None,
    seed: int = 0,
    check: Check | None = None,
) -> float:
    """Mean score over the folds of the dataset, each by a fresh clone of the estimator.

    `check` is called with each fitted clone, `report(k, mean)` after fold k with the mean so far; they may raise to
    give up.

    Raises:
        ObjectiveError: the estimator can't be fitted or scored, e.g. a classifier without `predict_proba`.
    """
    from sklearn.base import clone

    _check(estimator)
    table, results = data.ref.table, list[float]()
    for k, (train, valid) in enumerate(data.splits()):
        fitted = fit(clone(estimator), data.X.iloc[train], data.y[train], seed)
        if check is not None:
            check(fitted)
        results.append(score(metric, table, data.y[valid], scores(fitted, data.X.iloc[valid], table)))
        if report is not None:
            report(k, fmean(results))
    return fmean(results)


def fit(estimator: Any, X: pd.DataFrame, y: np.ndarray, seed: int = 0) -> Any:
    """The estimator, fitted. Every `random_state` in it that is None becomes `seed`, so that a fit can be repeated.

    Raises:
        ObjectiveError: it hasn't scikit-learn's interface.
    """
    _check(estimator)
    unset = [k for k, v in estimator.get_params().items() if k.split("__")[-1] == "random_state" and v is None]
    return estimator.set_params(**dict.fromkeys(unset, seed)).fit(X, y)


def scores(fitted: Any, X: pd.DataFrame, table: Table) -> np.ndarray:
    """Probabilities `(n_rows, n_classes)` in code order, or values `(n_rows,)`, as the registered model gives them.

    Raises:
        ObjectiveError: a classifier without `predict_proba`.
    """
    if table.task == "classification" and not hasattr(fitted, "predict_proba"):
        raise ObjectiveError(
            f"a classifier must have `predict_proba`, since members are blended by their probabilities, but "
            f"{type(fitted).__name__} has none; wrap it: CalibratedClassifierCV(estimator, ensemble=False)"
        )
    return Member("estimator", fitted).scores(X, signature(table))


def _check(estimator: Any) -> None:
    is_one = all(hasattr(estimator, method) for method in ("fit", "predict", "get_params"))
    if not is_one or isinstance(estimator, type):
        raise ObjectiveError(
            f"`build(trial)` must return an estimator with scikit-learn's interface, but returned a "
            f"{type(estimator).__name__}; for a torch module add `fit_plan(trial)` to the file"
        )


def signature(table: Table) -> Signature:
    return Signature(table.features, table.shape, table.classes)
