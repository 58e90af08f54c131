"""Content hashes: equal rows hash equally, whatever the order of rows and columns and the width of numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.util import hash_array, hash_pandas_object

_EXACT = 2**53  # float64 holds every integer up to here
_MISSING = np.uint64(0x4D15514D15514D15)


def value_hashes(frame: pd.DataFrame) -> pd.DataFrame:
    """`(n_rows, n_columns)`: a hash of each value.

    Numbers are hashed as float64 (integers beyond 2**53 as they are), datetimes as UTC microseconds, categories as
    their values, all else as text; every kind of missing value is one. So a column that turns from int to float, from
    one width or time unit to another, or gets its first missing value leaves the hashes of the other rows alone.
    """
    return pd.DataFrame({name: _value_hashes(frame[name]) for name in frame.columns}, index=frame.index)


def row_hashes(values: pd.DataFrame) -> npt.NDArray[np.uint64]:
    """`(n_rows,)`: a hash of each row from those of its values, the columns taken in the order of their names."""
    hashed = hash_pandas_object(values[sorted(values.columns)], index=False)
    return np.asarray(hashed, dtype=np.uint64)


def fingerprint(hashes: npt.NDArray[np.uint64], columns: Iterable[str], rules: Mapping[str, Any]) -> str:
    """sha256 over the hashes of the rows in any order, the columns' names, and the rules by which rows are split."""
    header = json.dumps({"columns": sorted(columns), "rules": rules}, sort_keys=True)
    digest = hashlib.sha256(header.encode())
    digest.update(np.sort(hashes).astype("<u8").tobytes())
    return digest.hexdigest()


def _value_hashes(column: pd.Series) -> npt.NDArray[np.uint64]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    missing = column.isna().to_numpy()
    present = column[~missing]
    hashes = np.full(len(column), _MISSING, dtype=np.uint64)
    hashes[~missing] = _hash_present(present)
    return hashes


def _hash_present(column: pd.Series) -> npt.NDArray[np.uint64]:
    kind = column.dtype.kind
    if kind in "iu":
        whole = column.to_numpy(dtype=np.uint64 if kind == "u" else np.int64)
        exact, hashes = np.abs(whole) <= _EXACT, hash_array(whole.astype(np.float64))
        return hashes if exact.all() else np.where(exact, hashes, hash_array(whole))
    if kind == "f":
        return hash_array(column.to_numpy(dtype=np.float64) + 0.0)  # -0.0 becomes 0.0
    if kind == "M":
        return hash_array(pd.DatetimeIndex(column).as_unit("us").asi8)
    if kind == "m":
        return hash_array(pd.TimedeltaIndex(column).as_unit("us").asi8)
    return hash_array(column.astype(object).map(str).to_numpy(dtype=object), categorize=True)
