"""The metrics on many draws of the same rows at once, as the gate's permutations need them.

Each equals scikit-learn's scorer, which takes 1 to 10 ms a call, and a gate needs thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import permutations
from typing import Literal

import numpy as np
from scipy.special import xlogy
from scipy.stats import rankdata

from shared.domain import Measure, Table

Rows = Callable[[np.ndarray, np.ndarray], np.ndarray]
Over = Callable[[np.ndarray, np.ndarray], np.ndarray]
Average = Literal["second", "macro", "there", "weighted"]


def measure(metric: str, table: Table) -> Measure:
    """A metric by scikit-learn's name, for a target."""
    if len(table.classes) == 2 and metric.startswith("roc_auc"):
        return Measure(metric, _ranks, _area)
    return Measure(metric, *(_CLASSIFICATION if table.classes else _REGRESSION)[metric])


def _mean(_: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.asarray(values.mean(axis=-1))


def _root(_: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.asarray(-np.sqrt(-values.mean(axis=-1)))


def _shares(p: np.ndarray) -> np.ndarray:
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def _log(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    given, eps = _shares(p)[np.arange(len(y)), y], np.finfo(p.dtype).eps
    return np.asarray(np.log(np.clip(given, eps, 1 - eps)))


def _brier(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Of two classes half the sum, as scikit-learn has it."""
    off = ((_shares(p) - np.eye(p.shape[1])[y]) ** 2).sum(axis=1)
    return np.asarray(-off / 2 if p.shape[1] == 2 else -off)


def _hit(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    return np.asarray((p.argmax(axis=1) == y).astype(float))


def _less(error: Rows) -> Rows:
    return lambda y, p: -error(y, p)


_absolute = _less(lambda y, p: np.abs(y - p))
_squared = _less(lambda y, p: (y - p) ** 2)
_log_squared = _less(lambda y, p: (np.log1p(y) - np.log1p(p)) ** 2)
_share = _less(lambda y, p: np.abs(y - p) / np.maximum(np.abs(y), np.finfo(float).eps))
_poisson = _less(lambda y, p: 2 * (xlogy(y, y / p) - y + p))
_gamma = _less(lambda y, p: 2 * (np.log(p / y) + y / p - 1))


def _ranks(_: np.ndarray, p: np.ndarray) -> np.ndarray:
    """`(n_rows, n_classes)`: where a model ranks a row among all, by the probability of each class.

    Two models may rank rows equally well on scales that have nothing in common, so ranks are what is swapped (Bandos,
    Rockette and Gur, "A permutation test sensitive to differences in areas for comparing ROC curves from a paired
    design", Statistics in Medicine 24, 2005).
    """
    return np.asarray(rankdata(_shares(p), axis=0))


def _area(y: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Of the second class of two."""
    return _between(y == 1, y != 1, ranks[..., 1])


def _area_against_rest(y: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    return np.asarray(np.mean([_between(y == k, y != k, ranks[..., k]) for k in range(ranks.shape[-1])], axis=0))


def _area_against_each(y: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Mean over the pairs of classes that there are (Hand and Till, 2001)."""
    pairs = permutations(range(ranks.shape[-1]), 2)
    areas = np.array([_between(y == k, y == j, ranks[..., k]) for k, j in pairs])
    return _ratio(np.nansum(areas, axis=0), np.isfinite(areas).sum(axis=0))


def _between(upper: np.ndarray, lower: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of two sets of rows, from the sum of their ranks (Mann and Whitney, 1947)."""
    ranks = rankdata(np.where(upper | lower, values, np.inf), axis=-1)
    m, n = upper.sum(axis=-1), lower.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(((ranks * upper).sum(axis=-1) - m * (m + 1) / 2) / (m * n))


def _code(_: np.ndarray, p: np.ndarray) -> np.ndarray:
    """`(n_rows, n_classes)`: 1 at the class that is predicted."""
    return np.asarray(np.eye(p.shape[1])[p.argmax(axis=1)])


def _counted(wrong: float, missed: float, average: Average) -> Over:
    """right / (right + wrong * those wrongly predicted + missed * those missed) of each class, averaged over them.

    0 of a class without any, as scikit-learn has it.
    """

    def over(y: np.ndarray, codes: np.ndarray) -> np.ndarray:
        given = np.eye(codes.shape[-1])[y]
        right = (codes * given).sum(axis=-2)
        predicted, there = codes.sum(axis=-2), given.sum(axis=-2)
        each = _ratio(right, right + wrong * (predicted - right) + missed * (there - right))
        weights = _weights(average, there, predicted)
        return np.asarray((each * weights).sum(axis=-1) / weights.sum(axis=-1))

    return over


def _weights(average: Average, there: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Of the classes: of the second only, of those there or predicted, of those there, or by their rows."""
    match average:
        case "second":
            return np.asarray(np.eye(there.shape[-1])[1])
        case "macro":
            return np.asarray(there + predicted > 0)
        case "there":
            return np.asarray(there > 0)
    return there


def _matthews(y: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Of several classes (Gorodkin, 2004)."""
    given = np.eye(codes.shape[-1])[y]
    n, right = given.shape[-2], (codes * given).sum(axis=(-1, -2))
    predicted, there = codes.sum(axis=-2), given.sum(axis=-2)
    both = (predicted * there).sum(axis=-1)
    spread = (n**2 - (predicted**2).sum(axis=-1)) * (n**2 - (there**2).sum(axis=-1))
    return _ratio(np.asarray(right * n - both), np.sqrt(spread))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(part, whole, out=np.zeros(np.shape(part)), where=whole > 0))


_CLASSIFICATION: Mapping[str, tuple[Rows, Over]] = {
    "neg_log_loss": (_log, _mean),
    "neg_brier_score": (_brier, _mean),
    "accuracy": (_hit, _mean),
    "f1_micro": (_hit, _mean),
    "f1": (_code, _counted(0.5, 0.5, "second")),
    "f1_macro": (_code, _counted(0.5, 0.5, "macro")),
    "f1_weighted": (_code, _counted(0.5, 0.5, "weighted")),
    "precision": (_code, _counted(1, 0, "second")),
    "precision_macro": (_code, _counted(1, 0, "macro")),
    "recall": (_code, _counted(0, 1, "second")),
    "recall_macro": (_code, _counted(0, 1, "macro")),
    "jaccard": (_code, _counted(1, 1, "second")),
    "balanced_accuracy": (_code, _counted(0, 1, "there")),
    "matthews_corrcoef": (_code, _matthews),
    "roc_auc": (_ranks, _area),
    "roc_auc_ovr": (_ranks, _area_against_rest),
    "roc_auc_ovo": (_ranks, _area_against_each),
}
_REGRESSION: Mapping[str, tuple[Rows, Over]] = {
    "neg_mean_absolute_error": (_absolute, _mean),
    "neg_mean_squared_error": (_squared, _mean),
    "neg_mean_squared_log_error": (_log_squared, _mean),
    "neg_mean_absolute_percentage_error": (_share, _mean),
    "neg_mean_poisson_deviance": (_poisson, _mean),
    "neg_mean_gamma_deviance": (_gamma, _mean),
    "neg_root_mean_squared_error": (_squared, _root),
    "neg_root_mean_squared_log_error": (_log_squared, _root),
    "neg_max_error": (_absolute, lambda _, v: v.min(axis=-1)),
    "neg_median_absolute_error": (_absolute, lambda _, v: np.median(v, axis=-1)),
    "r2": (_squared, lambda y, v: 1 + v.mean(axis=-1) / y.var(axis=-1)),
    "explained_variance": (lambda y, p: y - p, lambda y, v: 1 - v.var(axis=-1) / y.var(axis=-1)),
    "d2_absolute_error_score": (
        _absolute,
        lambda y, v: 1 + v.mean(axis=-1) / np.abs(y - np.median(y, axis=-1, keepdims=True)).mean(axis=-1),
    ),
}
