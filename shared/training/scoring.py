"""Scores by scikit-learn's own scorers, from probabilities or values that are there already."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from shared.errors import ConfigError, ObjectiveError

if TYPE_CHECKING:
    import numpy as np

    from shared.domain import Table


def score(metric: str, table: Table, y: np.ndarray, scores: np.ndarray) -> float:
    """The metric, greater is better.

    y: `(n_rows,)`, class codes or values; scores: probabilities `(n_rows, n_classes)` in code order, whatever classes
    `y` happens to have, or values `(n_rows,)`.

    Raises:
        ObjectiveError: the metric isn't defined for these scores.
    """
    import numpy as np

    answers = np.asarray(scores)
    if table.classes:
        answers = answers / answers.sum(axis=1, keepdims=True)
    try:
        return float(_scorer(metric, len(table.classes))(_given(len(table.classes)), answers, y))
    except ValueError as err:
        raise ObjectiveError(
            f"a model's answers must be scorable by {metric!r}, but {err}; "
            f"they lie between {np.min(scores):.4g} and {np.max(scores):.4g}"
        ) from err


def check_metric(metric: str, table: Table) -> None:
    """Refuse a metric that can't score this target at all.

    Raises:
        ConfigError: it is meant for another number of classes, or for values of one sign.
    """
    if table.task == "regression":
        return
    import numpy as np

    k = len(table.classes)
    y, scores = np.arange(k), np.full((k, k), 0.1) + np.eye(k)
    try:
        score(metric, table, y, scores)
    except ObjectiveError as err:
        raise ConfigError(
            f"`tuning.metric` must be able to score {k} classes, but {metric!r} can't: {err.__cause__}; "
            "try 'neg_log_loss', 'accuracy', 'f1_macro' or 'roc_auc_ovr'"
        ) from err


@cache
def _scorer(metric: str, n_classes: int) -> Any:
    """scikit-learn's scorer; where it takes the labels, it gets all, since a fold may lack some."""
    from sklearn.metrics import brier_score_loss, get_scorer, log_loss, make_scorer, roc_auc_score

    labels = list(range(n_classes))
    proba = {"response_method": "predict_proba", "labels": labels}
    match metric:
        case "neg_log_loss":
            return make_scorer(log_loss, greater_is_better=False, **proba)
        case "neg_brier_score":
            return make_scorer(brier_score_loss, greater_is_better=False, **proba)
        case "roc_auc_ovr" | "roc_auc_ovo" if n_classes > 2:
            return make_scorer(roc_auc_score, multi_class=metric.removeprefix("roc_auc_"), **proba)
    return get_scorer(metric)


@cache
def _given(n_classes: int) -> Any:
    """A fitted estimator whose answers are its inputs."""
    import numpy as np
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

    class GivenProbabilities(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
        classes_ = np.arange(n_classes)

        def predict_proba(self, X: np.ndarray) -> np.ndarray:
            return X

        def predict(self, X: np.ndarray) -> np.ndarray:
            return np.asarray(X.argmax(axis=1))

    class GivenValues(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
        def predict(self, X: np.ndarray) -> np.ndarray:
            return X

    return GivenProbabilities() if n_classes else GivenValues()
