"""The metrics on many draws at once are those of scikit-learn's scorers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shared.config import CLASSIFICATION_METRICS, REGRESSION_METRICS
from shared.domain import Table
from shared.training.measure import measure
from shared.training.scoring import score

TWO_CLASSES_ONLY = {"f1", "jaccard", "precision", "recall", "roc_auc"}
CASES = [
    *((metric, 2) for metric in CLASSIFICATION_METRICS),
    *((metric, 3) for metric in CLASSIFICATION_METRICS if metric not in TWO_CLASSES_ONLY),
    *((metric, 0) for metric in REGRESSION_METRICS),
]


def table(n_classes: int) -> Table:
    return Table(
        features=("a",), dtypes=("float64",), target="t", task="classification" if n_classes else "regression",
        classes=tuple(range(n_classes)), shape=(1,),
    )  # fmt: skip


def drawn(n_classes: int, n_rows: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Targets, and predictions with many ties that aren't normalized."""
    rng = np.random.default_rng(0)
    if not n_classes:
        y = rng.gamma(2.0, size=n_rows)
        return y, y * rng.gamma(9.0, 1 / 9, size=n_rows)
    y = rng.integers(0, n_classes, n_rows)
    return y, (rng.dirichlet(np.ones(n_classes), n_rows) + np.eye(n_classes)[y] / 2).round(1) + 0.05


@pytest.mark.parametrize(("metric", "n_classes"), CASES)
def test_a_measure_is_scikit_learns_scorer_on_all_rows_and_on_each_draw(metric: str, n_classes: int) -> None:
    y, predictions = drawn(n_classes)
    measured = measure(metric, table(n_classes))
    draws = np.random.default_rng(1).integers(0, len(y), (5, len(y)))

    many = measured.over(y[draws], measured.rows(y, predictions)[draws])

    assert measured.score(y, predictions) == pytest.approx(score(metric, table(n_classes), y, predictions))
    assert many == pytest.approx([score(metric, table(n_classes), y[rows], predictions[rows]) for rows in draws])


@pytest.mark.parametrize(
    "metric", ["neg_log_loss", "accuracy", "f1_macro", "f1_weighted", "balanced_accuracy", "roc_auc_ovo"]
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_rows_may_lack_a_class(metric: str) -> None:
    y, predictions = drawn(3)
    some: Any = y != 2
    measured = measure(metric, table(3))

    assert measured.score(y[some], predictions[some]) == pytest.approx(
        score(metric, table(3), y[some], predictions[some])
    )


def test_a_draw_that_a_metric_is_not_defined_for_is_not_a_number() -> None:
    y, predictions = drawn(2)
    only = y == 1

    assert np.isnan(measure("roc_auc", table(2)).score(y[only], predictions[only]))
