"""`python -m benchmarks.baseline USE_CASE`: champion and untuned baseline on the same holdout rows, as JSON."""

import json
import sys
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from shared.data.store import load_dataset
from shared.registry import client
from shared.storage.ledger import Ledger


def calibrated(model: Any) -> list[Any]:
    """Sigmoid and temperature: which is better depends on the model and its rows."""
    return [CalibratedClassifierCV(model, method=method) for method in ("sigmoid", "temperature")]


SVM = make_pipeline(StandardScaler(), OneVsRestClassifier(SVC()))  # margins; its own one-vs-one scores are votes
LOGISTIC = make_pipeline(StandardScaler(), LogisticRegression())
RIDGE = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-3, 3, 25)))
BASELINES = {"digits": calibrated(SVM), "breast_cancer": [LOGISTIC, *calibrated(LOGISTIC)], "diabetes": [RIDGE]}


def baseline(use_case: str, X: Any, y: np.ndarray) -> Any:
    """The best of the use case's untuned models by cross-validation on these rows, fitted on them."""
    scoring = "r2" if use_case == "diabetes" else "neg_log_loss"
    scores = [cross_val_score(model, X, y, scoring=scoring).mean() for model in BASELINES[use_case]]
    return BASELINES[use_case][int(np.argmax(scores))].fit(X, y)


def main(use_case: str) -> dict[str, float]:
    """Scores (greater is better) and the standard error of their difference."""
    ref = Ledger().newest_dataset(use_case)
    champion = client.champion(use_case)
    if ref is None or champion is None:
        raise SystemExit(f"{use_case} has no champion yet; run `evertune run {use_case}`")
    development, holdout = load_dataset(ref), load_dataset(ref, "holdout")
    ours = client.load_version(champion).scores(holdout.X)
    fitted = baseline(use_case, development.X, development.y)
    if ref.table.task == "classification":
        return compare_log_loss(holdout.y, ours, fitted.predict_proba(holdout.X))
    return compare_r2(holdout.y, ours, fitted.predict(holdout.X))


def compare_log_loss(y: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """y: codes `(n,)`; probabilities `(n, n_classes)`. The standard error is that of the mean paired difference."""
    a, b = (np.log(np.clip(p[np.arange(len(y)), y], 1e-15, 1)) for p in (ours, theirs))
    return figures(a.mean(), b.mean(), (a - b).std(ddof=1) / np.sqrt(len(y)))


def compare_r2(y: np.ndarray, ours: np.ndarray, theirs: np.ndarray, draws: int = 2000) -> dict[str, float]:
    """y, predictions: `(n,)`. The standard error is that of the paired bootstrap's differences."""

    def r2(rows: np.ndarray, prediction: np.ndarray) -> float:
        residual = ((y[rows] - prediction[rows]) ** 2).sum()
        return float(1 - residual / ((y[rows] - y[rows].mean()) ** 2).sum())

    rng = np.random.default_rng(0)
    samples = [rng.integers(0, len(y), len(y)) for _ in range(draws)]
    differences = [r2(rows, ours) - r2(rows, theirs) for rows in samples]
    everything = np.arange(len(y))
    return figures(r2(everything, ours), r2(everything, theirs), np.std(differences, ddof=1))


def figures(champion: float, baseline: float, standard_error: float) -> dict[str, float]:
    return {"champion": float(champion), "baseline": float(baseline), "standard_error": float(standard_error)}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
