"""Scores from probabilities or values are those of scikit-learn's scorers."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import get_scorer, log_loss

from shared.config import CLASSIFICATION_METRICS, REGRESSION_METRICS
from shared.domain import Table
from shared.errors import ConfigError, ObjectiveError
from shared.training.scoring import check_metric, score

TWO_CLASSES_ONLY = {"f1", "jaccard", "precision", "recall", "roc_auc"}


def table(n_classes: int) -> Table:
    task = "classification" if n_classes else "regression"
    return Table(
        features=("a",), dtypes=("float64",), target="t", task=task, classes=tuple(range(n_classes)), shape=(1,)
    )


@pytest.fixture(scope="module")
def classifiers():
    """For 2 and 3 classes: a classifier fitted on every second row, and the other rows."""
    fitted = {}
    for k, load in {2: load_breast_cancer, 3: load_iris}.items():
        X, y = load(return_X_y=True)
        fitted[k] = LogisticRegression(max_iter=10_000).fit(X[::2], y[::2]), X[1::2], y[1::2]
    return fitted


@pytest.mark.parametrize(
    ("metric", "n_classes"),
    [(m, k) for m in CLASSIFICATION_METRICS for k in (2, 3) if k == 2 or m not in TWO_CLASSES_ONLY],
)
def test_a_score_from_probabilities_is_that_of_scikit_learns_scorer(metric, n_classes, classifiers):
    model, X, y = classifiers[n_classes]

    assert score(metric, table(n_classes), y, model.predict_proba(X)) == pytest.approx(get_scorer(metric)(model, X, y))


@pytest.mark.parametrize("metric", REGRESSION_METRICS)
def test_a_score_from_values_is_that_of_scikit_learns_scorer(metric):
    X, y = load_diabetes(return_X_y=True)
    model = Ridge().fit(X, y)

    assert score(metric, table(0), y, model.predict(X)) == get_scorer(metric)(model, X, y)


@pytest.mark.parametrize("metric", ["neg_log_loss", "neg_brier_score", "roc_auc_ovo", "accuracy", "f1_macro"])
def test_a_fold_may_lack_a_class(metric):
    probabilities = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]])

    assert np.isfinite(score(metric, table(3), np.array([0, 1]), probabilities))


def test_log_loss_counts_all_classes_and_clips_impossible_answers():
    probabilities = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])

    assert score("neg_log_loss", table(3), np.array([0, 0]), probabilities) == pytest.approx(
        -log_loss([0, 0], probabilities, labels=[0, 1, 2])
    )


def test_scores_that_the_metric_is_not_defined_for_are_an_error_with_the_figures():
    with pytest.raises(ObjectiveError, match=r"'neg_mean_squared_log_error'.*they lie between -2 and 3"):
        score("neg_mean_squared_log_error", table(0), np.array([1.0, 2.0]), np.array([-2.0, 3.0]))


@pytest.mark.parametrize("metric", sorted(TWO_CLASSES_ONLY))
def test_a_metric_for_two_classes_is_refused_for_three(metric):
    with pytest.raises(ConfigError, match=rf"must be able to score 3 classes, but '{metric}' can't.*try '"):
        check_metric(metric, table(3))


@pytest.mark.parametrize("metric", CLASSIFICATION_METRICS)
def test_every_other_metric_is_accepted(metric):
    check_metric(metric, table(2))
    if metric not in TWO_CLASSES_ONLY:
        check_metric(metric, table(3))
