"""The champion is compared to the best fair baseline."""

from __future__ import annotations

from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import cross_val_score

from benchmarks.baseline import BASELINES, baseline


def test_the_calibration_of_a_baseline_is_the_one_that_cross_validates_best():
    X, y = load_breast_cancer(return_X_y=True)
    X, y = X[::3], y[::3]
    chosen = baseline("breast_cancer", X, y)
    best = cross_val_score(chosen, X, y, scoring="neg_log_loss").mean()
    others = [cross_val_score(m, X, y, scoring="neg_log_loss").mean() for m in BASELINES["breast_cancer"]]
    assert (best, min(others) < best) == (max(others), True)
    assert chosen.predict_proba(X).shape == (len(y), 2)
