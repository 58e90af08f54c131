"""Folds and holdout are refused where the metric has no score on them, and only there."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shared.config import CLASSIFICATION_METRICS, UseCase
from shared.data.validate import check_frame, check_promotion, check_split, classes_to_score
from shared.domain import Dataset, DatasetRef, Table
from shared.errors import DataError
from shared.training.scoring import score

TWO_CLASSES_ONLY = {"f1", "jaccard", "precision", "recall", "roc_auc"}
CLASSES = ("maybe", "no", "yes")


def table(n_classes: int = 3) -> Table:
    classes = CLASSES[-n_classes:]
    return Table(features=("a",), dtypes=("float64",), target="t", task="classification", classes=classes, shape=(1,))


def codes(letters: str) -> np.ndarray:
    return np.array(["mny".index(letter) for letter in letters])


def checked(folds: tuple[str, ...], holdout: str, metric: str, promotes: bool = True) -> None:
    """Check the folds and the holdout, whose rows are given by the first letters of their classes."""
    tree = {
        "name": "churn",
        "title": "Churn",
        "data": {"source": "csv:rows.csv", "target": "t"},
        "tuning": {"metric": metric, "folds": len(folds)},
        "classical": {"objective": "objectives/churn.py"},
        **({"system": {}, "promotion": {}} if promotes else {}),
    }
    y, fold = codes("".join(folds)), np.repeat(np.arange(len(folds)), [len(rows) for rows in folds])
    ref = DatasetRef(
        use_case="churn", fingerprint="", uri="", table=table(), rows={}, folds=len(folds), source="",
        created_at=datetime.min.replace(tzinfo=UTC),
    )  # fmt: skip
    check_split(Dataset(ref, pd.DataFrame({"a": y}), y, fold), codes(holdout), UseCase.model_validate(tree))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("metric", "n_classes"),
    [(m, k) for m in CLASSIFICATION_METRICS for k in (2, 3) if k == 2 or m not in TWO_CLASSES_ONLY],
)
def test_a_metric_scores_rows_that_have_the_classes_it_needs_and_no_others(metric: str, n_classes: int):
    needed = classes_to_score(metric, n_classes)
    for n_present in range(1, n_classes + 1):
        for present in combinations(range(n_classes), n_present):
            y = np.repeat(present, 3)
            answers = np.random.default_rng(0).dirichlet(np.ones(n_classes), len(y))
            assert np.isfinite(score(metric, table(n_classes), y, answers)) == (n_present >= needed), present


@pytest.mark.parametrize(
    ("folds", "holdout", "metric"),
    [
        (("mnymny", "mnymny", "mny"), "mny", "roc_auc_ovr"),  # all classes everywhere
        (("nnyy", "mmnn", "mmyy"), "nn", "neg_log_loss"),  # log loss is told the classes
        (("nnyy", "mmnn", "mmyy"), "nn", "f1_macro"),  # a class that isn't there has no weight
        (("nnyy", "mmnn", "mmyy"), "ny", "roc_auc_ovo"),  # pairs of the classes that are there
    ],
)
def test_what_can_be_scored_is_accepted(folds: tuple[str, ...], holdout: str, metric: str):
    checked(folds, holdout, metric)


def test_a_fold_that_cannot_be_scored_is_refused_with_class_and_remedies():
    with pytest.raises(
        DataError,
        match=r"configs/churn\.toml: `tuning\.metric` = 'roc_auc_ovr' needs rows of 3 classes to give a score, but "
        r"fold 1 of 3 lacks yes; use fewer folds .*, or add rows of that class, or take another metric, such as",
    ):
        checked(("mnymny", "mmnn", "mnymny"), "mny", "roc_auc_ovr")


def test_a_holdout_that_cannot_be_scored_is_refused_where_the_gate_reads_it():
    folds = ("mnymny", "mnymny")
    with pytest.raises(DataError, match=r"but the holdout lacks maybe, no; raise `data\.holdout`, or add rows of that"):
        checked(folds, "yy", "roc_auc_ovo")
    checked(folds, "yy", "roc_auc_ovo", promotes=False)


@pytest.mark.parametrize(
    ("rules", "key"),
    [({"group": "patents"}, "promotion.group"), ({"slices": {"patents": 0.1}}, "promotion.slices.patents")],
)
def test_the_gate_slices_and_groups_by_features(rules: dict[str, Any], key: str):
    tree = {
        "name": "churn", "title": "Churn", "data": {"source": "csv:rows.csv", "target": "t"},
        "tuning": {"metric": "accuracy"}, "classical": {"objective": "x.py"}, "system": {}, "promotion": rules,
    }  # fmt: skip
    use_case = UseCase.model_validate(tree)
    check_promotion(use_case, ["patents"])
    with pytest.raises(DataError, match=rf"`{key}` must name a feature, but 'patents' is none; did you mean 'patient'"):
        check_promotion(use_case, ["patient", "age"])


@pytest.mark.parametrize("group", [["ann", "bob", None], [1.0, 2.0, np.nan]], ids=["of text", "of numbers"])
def test_a_row_that_belongs_to_no_group_is_refused_before_anything_is_tuned(group: list[Any]):
    tree = {
        "name": "churn", "title": "Churn", "data": {"source": "csv:rows.csv", "target": "t"},
        "tuning": {"metric": "accuracy"}, "classical": {"objective": "x.py"}, "system": {},
    }  # fmt: skip
    frame = pd.DataFrame({"t": ["n", "y", "n"], "patient": group})
    check_frame(frame, UseCase.model_validate(tree | {"promotion": {}}))
    by_patient = UseCase.model_validate(tree | {"promotion": {"group": "patient"}})
    check_frame(frame[:2], by_patient)
    with pytest.raises(
        DataError, match=r"`promotion\.group` must have a value in every row, but 'patient' is missing in 1"
    ):
        check_frame(frame, by_patient)
