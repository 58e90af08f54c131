"""On which holdout rows a champion and its challenger are compared, when they come from different dataset versions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from shared.data.fingerprint import row_hashes, value_hashes
from shared.data.validate import classes_to_score
from shared.domain import Dataset

LEAST_ROWS = 30


def new_to_champion(holdout: Dataset, development: Dataset, trained_on: Dataset) -> Dataset:
    """The holdout rows that the champion has no advantage on: all of them, unless the split has changed.

    development: what the challenger was trained on; trained_on: what the champion was. Rows are compared by their
    features, as by the split. What both have learned from is no advantage: with a split by time, a row may come again.
    """
    advantage = np.setdiff1d(_hashes(trained_on.X), _hashes(development.X))
    new = ~np.isin(_hashes(holdout.X), advantage)
    return replace(holdout, X=holdout.X[new].reset_index(drop=True), y=holdout.y[new], fold=holdout.fold[new])


def new_rows(holdout: Dataset, earlier: Dataset) -> int:
    """How many holdout rows an earlier holdout didn't have, by their features."""
    return int((~np.isin(_hashes(holdout.X), _hashes(earlier.X))).sum())


def can_decide(rows: Dataset, metric: str) -> bool:
    """Whether rows are enough to tell two models apart: 30, of as many classes as the metric needs."""
    needed = classes_to_score(metric, len(rows.ref.table.classes))
    return len(rows.y) >= LEAST_ROWS and len(np.unique(rows.y)) >= needed


def _hashes(X: pd.DataFrame) -> np.ndarray:
    return row_hashes(value_hashes(X))
