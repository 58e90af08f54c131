"""Cross-validation on the dataset's folds."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import PredefinedSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from shared.domain import Dataset, DatasetRef, Table
from shared.errors import ObjectiveError
from shared.training import threads
from shared.training.classical import cross_validate, fit


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    threads.limit(1)


def dataset(X: pd.DataFrame, y: np.ndarray, *, folds: int = 5, ordered: bool = False) -> Dataset:
    regression = y.dtype.kind == "f"
    table = Table(
        features=tuple(X.columns),
        dtypes=tuple(map(str, X.dtypes)),
        target="t",
        task="regression" if regression else "classification",
        classes=() if regression else tuple(range(int(y.max()) + 1)),
        shape=(X.shape[1],),
    )
    ref = DatasetRef(
        use_case="test", fingerprint="f", uri="", table=table, rows={"development": len(X)}, folds=folds,
        source="test", created_at=datetime.now(UTC),
    )  # fmt: skip
    return Dataset(ref, X, y, np.arange(len(X)) % (folds + ordered), ordered)


@pytest.fixture(scope="module")
def iris() -> Dataset:
    X, y = load_iris(return_X_y=True, as_frame=True)
    return dataset(X, y.to_numpy())


@pytest.mark.parametrize("metric", ["neg_log_loss", "accuracy", "roc_auc_ovr"])
def test_the_value_is_that_of_scikit_learns_cross_validation(iris, metric):
    model = LogisticRegression(C=0.5, max_iter=1000)
    expected = cross_val_score(model, iris.X, iris.y, cv=PredefinedSplit(iris.fold), scoring=metric).mean()

    assert cross_validate(model, iris, metric) == pytest.approx(expected)


def test_a_regression_is_scored_by_its_values():
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    data = dataset(X, y.to_numpy())
    expected = cross_val_score(Ridge(), data.X, data.y, cv=PredefinedSplit(data.fold), scoring="r2").mean()

    assert cross_validate(Ridge(), data, "r2") == pytest.approx(expected)


def test_the_running_mean_is_reported_after_each_fold(iris):
    reports: list[tuple[int, float]] = []
    model = LogisticRegression(max_iter=1000)
    folds = cross_val_score(model, iris.X, iris.y, cv=PredefinedSplit(iris.fold), scoring="neg_log_loss")

    value = cross_validate(model, iris, "neg_log_loss", lambda *report: reports.append(report))

    assert [step for step, _ in reports] == [0, 1, 2, 3, 4]
    assert [mean for _, mean in reports] == pytest.approx(folds.cumsum() / np.arange(1, 6))
    assert value == reports[-1][1]


def test_a_report_that_raises_gives_up_and_fits_no_more(iris):
    steps: list[int] = []

    def give_up(step: int, _: float) -> None:
        steps.append(step)
        if step == 1:
            raise StopIteration

    with pytest.raises(StopIteration):
        cross_validate(LogisticRegression(max_iter=1000), iris, "accuracy", give_up)
    assert steps == [0, 1]


def test_a_split_by_time_trains_on_the_past_only():
    X = pd.DataFrame({"x": np.arange(60.0)})
    data = dataset(X, np.arange(60) % 2, folds=2, ordered=True)
    steps: list[int] = []

    cross_validate(LogisticRegression(), data, "accuracy", lambda step, _: steps.append(step))

    assert steps == [0, 1]


def test_the_estimator_is_left_unfitted(iris):
    model = LogisticRegression(max_iter=1000)

    cross_validate(model, iris, "accuracy")

    assert not hasattr(model, "classes_")


def test_unset_random_states_come_from_the_seed(iris):
    def forest_scores(seed: int) -> float:
        return cross_validate(make_pipeline(RandomForestClassifier(5)), iris, "neg_log_loss", seed=seed)

    assert forest_scores(1) == forest_scores(1)
    assert forest_scores(1) != forest_scores(2)
    assert fit(RandomForestClassifier(2, random_state=7), iris.X, iris.y, seed=1).random_state == 7


def test_a_classifier_without_probabilities_is_an_error_that_says_how_to_wrap_it(iris):
    with pytest.raises(ObjectiveError, match=r"LinearSVC has none; wrap it: CalibratedClassifierCV\("):
        cross_validate(LinearSVC(), iris, "accuracy")


@pytest.mark.parametrize("built", [None, 0.5, "LogisticRegression", LogisticRegression])
def test_what_is_no_estimator_is_an_error(iris, built):
    with pytest.raises(ObjectiveError, match="must return an estimator with scikit-learn's interface, but returned a"):
        cross_validate(built, iris, "accuracy")
