"""What a system does after its members: the blend of their scores, and the calibration of blended probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from shared.domain import Table

Calibration = Literal["none", "temperature", "isotonic"]
_ROWS_PER_CLASS_FOR_ISOTONIC = 1000  # it overfits on much fewer, says scikit-learn's user guide
_LEAST_PROBABILITY = 1e-12


def calibrations(table: Table, n_rows: int) -> tuple[Calibration, ...]:
    """The calibrations that suit a target and its number of out-of-fold rows."""
    if table.task == "regression":
        return ("none",)
    enough = n_rows >= _ROWS_PER_CLASS_FOR_ISOTONIC * len(table.classes)
    return ("none", "temperature", "isotonic") if enough else ("none", "temperature")


def weights(shares: Sequence[float]) -> tuple[float, ...]:
    """Blend weights of `len(shares) + 1` members: each share is of what the members before leave. They sum to 1."""
    result, rest = list[float](), 1.0
    for share in shares:
        result.append(rest * share)
        rest *= 1 - share
    return (*result, rest)


def blend(weights: Sequence[float], scores: Sequence[np.ndarray]) -> np.ndarray:
    """Weighted mean of the members' scores, each `(n_rows, n_classes)` or `(n_rows,)`."""
    return np.asarray(np.tensordot(np.asarray(weights), np.stack(scores), axes=1))


def fit_calibrator(kind: Calibration, probabilities: np.ndarray, y: np.ndarray) -> Any:
    """A calibrator of blended probabilities, with `predict_proba`, made of scikit-learn's types alone.

    None for "none", and where some class has fewer than two rows, from which its probability can't be learned.

    probabilities: `(n_rows, n_classes)` of rows that the members weren't fitted on; y: `(n_rows,)`, class codes.
    """
    n_classes = probabilities.shape[-1]
    if kind == "none" or np.bincount(y, minlength=n_classes).min() < 2:
        return None
    if kind == "temperature":
        return scaled(n_classes, _inverse_temperature(probabilities, y))
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    return CalibratedClassifierCV(FrozenEstimator(scaled(n_classes)), method=kind, cv=2).fit(probabilities, y)


def calibrate(calibrator: Any, scores: np.ndarray) -> np.ndarray:
    """Calibrated scores; the scores themselves without a calibrator."""
    return scores if calibrator is None else np.asarray(calibrator.predict_proba(scores))


def cross_calibrate(kind: Calibration, folds: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Each fold's scores, calibrated by what was learned on the other folds: the metric isn't flattered."""
    if kind == "none":
        return list(folds)
    result = list[np.ndarray]()
    for k, scores in enumerate(folds):
        others, their_y = ([*parts[:k], *parts[k + 1 :]] for parts in (folds, y))
        fitted = fit_calibrator(kind, np.concatenate(others), np.concatenate(their_y))
        result.append(calibrate(fitted, scores))
    return result


def scaled(n_classes: int, beta: float = 1.0) -> Any:
    """softmax(β log p) as a pipeline: saved natively, and ten times faster on one row than `CalibratedClassifierCV`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, MinMaxScaler

    ends = np.repeat([[0.0], [1.0]], n_classes, axis=1)
    above_zero = MinMaxScaler(feature_range=(_LEAST_PROBABILITY, 1.0)).fit(ends)
    head = LogisticRegression()
    head.classes_ = np.arange(n_classes)
    head.coef_ = beta * (np.eye(n_classes) if n_classes > 2 else np.array([[-1.0, 1.0]]))
    head.intercept_ = np.zeros(len(head.coef_))
    head.n_features_in_ = n_classes
    return make_pipeline(above_zero, FunctionTransformer(np.log), head)


def _inverse_temperature(probabilities: np.ndarray, y: np.ndarray) -> float:
    """The β of softmax(β log p) with the least log loss (Guo et al. 2017, On calibration of modern neural networks)."""
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    logs = np.log(np.maximum(probabilities, _LEAST_PROBABILITY))
    right = logs[np.arange(len(y)), y].mean()

    def loss(log_beta: float) -> float:
        beta = np.exp(log_beta)
        return float(logsumexp(beta * logs, axis=1).mean() - beta * right)

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))
