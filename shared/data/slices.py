"""Slices of rows by the values of a column, on which a model may be worse than on the whole."""

from __future__ import annotations

import numpy as np
import pandas as pd

LEAST_ROWS = 30  # fewer say nothing of a model
MOST_VALUES = 10


def slices(column: pd.Series) -> dict[str, np.ndarray]:
    """Which rows have each value, `(n_rows,)`; numbers of more than ten values are cut into quarters.

    Slices of fewer than 30 rows are left out.
    """
    values = column
    if column.dtype.kind in "iuf" and column.nunique() > MOST_VALUES:
        values = pd.qcut(column, 4, duplicates="drop")
    masks = {f"{column.name} = {value}": (values == value).to_numpy(dtype=bool) for value in values.dropna().unique()}
    return {label: mask for label, mask in sorted(masks.items()) if mask.sum() >= LEAST_ROWS}
