"""Slices of rows by the values of a column."""

from __future__ import annotations

import numpy as np
import pandas as pd

from shared.data.slices import slices


def column(*values: object, name: str = "c") -> pd.Series:
    """Each value in 40 rows."""
    return pd.Series(np.repeat(np.array(values, dtype=object), 40), name=name).infer_objects()


def test_each_value_is_a_slice() -> None:
    found = slices(column("DE", "FR", name="country"))
    assert {label: int(mask.sum()) for label, mask in found.items()} == {"country = DE": 40, "country = FR": 40}
    assert found["country = DE"][:40].all()


def test_numbers_of_many_values_are_cut_into_quarters() -> None:
    assert list(slices(column(0, 1))) == ["c = 0", "c = 1"]
    quarters = slices(column(*range(12)))
    assert len(quarters) == 4
    assert sum(quarters.values()).tolist() == [1] * 480


def test_few_rows_and_missing_values_are_no_slice() -> None:
    few = pd.concat([column("a"), pd.Series(["b"] * 29 + [None] * 50)]).rename("c")
    assert list(slices(few)) == ["c = a"]
