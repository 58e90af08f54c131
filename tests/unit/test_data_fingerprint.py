"""Equal rows hash equally, however they are stored; any other value is another hash."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.data.fingerprint import fingerprint, row_hashes, value_hashes

VALUES = {
    "number": st.one_of(st.none(), st.floats(allow_nan=False), st.integers(-(2**53), 2**53).map(float)),
    "text": st.one_of(st.none(), st.text(max_size=5)),
    "when": st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1)),
    "flag": st.booleans(),
}
ROWS = st.lists(st.fixed_dictionaries(VALUES), min_size=1, max_size=12)
RULES = {"holdout": 0.2, "folds": 5}


def hashes(frame: pd.DataFrame) -> np.ndarray:
    return row_hashes(value_hashes(frame))


def identity(frame: pd.DataFrame, rules: dict) -> str:
    return fingerprint(hashes(frame), frame.columns, rules)


def frame_of(rows: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(VALUES)).astype({"number": "float64"})


@settings(max_examples=30, deadline=None)
@given(rows=ROWS, data=st.data())
def test_the_order_of_rows_and_columns_does_not_matter(rows, data):
    shuffled = frame_of(data.draw(st.permutations(rows)))[data.draw(st.permutations(list(VALUES)))]
    assert identity(shuffled, RULES) == identity(frame_of(rows), RULES)


@settings(max_examples=30, deadline=None)
@given(rows=ROWS, data=st.data())
def test_any_other_value_is_another_identity(rows, data):
    position, name = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.sampled_from(list(VALUES)))
    other = data.draw(VALUES[name].filter(lambda value: value != rows[position][name]))
    changed = [{**row, name: other} if i == position else row for i, row in enumerate(rows)]
    assert identity(frame_of(changed), RULES) != identity(frame_of(rows), RULES)


@settings(max_examples=30, deadline=None)
@given(rows=ROWS, more=ROWS)
def test_growth_leaves_the_hashes_of_the_old_rows_alone(rows, more):
    grown = hashes(frame_of(rows + more))
    assert (grown[: len(rows)] == hashes(frame_of(rows))).all()


SAME = [
    ("a whole number read as a float", [1, 2], [1.0, 2.0]),
    ("a narrower integer", np.array([1, 2], dtype="uint8"), np.array([1, 2], dtype="int64")),
    ("a nullable integer", pd.array([1, None], dtype="Int64"), [1.0, np.nan]),
    ("a narrower float", np.array([0.5, 2.25], dtype="float32"), [0.5, 2.25]),
    ("a negative zero", [-0.0, 1.0], [0.0, 1.0]),
    ("another not-a-number", np.array([0x7FF8000000000001, 0], dtype="uint64").view("float64"), [np.nan, 0.0]),
    ("another kind of missing text", pd.Series(["a", None], dtype=object), pd.Series(["a", np.nan], dtype="str")),
    ("a column with nothing in it", [None, None], [np.nan, np.nan]),
    ("a category", pd.Categorical(["a", "b"]), ["a", "b"]),
    ("a category of numbers", pd.Categorical([3, 1]), [3, 1]),
    ("a truth value beside a missing one", pd.Series([True, False]), pd.Series([True, False], dtype=object)),
    (
        "another unit of time",
        np.array(["2026-01-31"], dtype="M8[s]"),
        np.array(["2026-01-31"], dtype="M8[ns]"),
    ),
    (
        "another time zone",
        pd.to_datetime(["2026-01-31 12:00+00:00"]),
        pd.to_datetime(["2026-01-31 13:00+01:00"]),
    ),
]


@pytest.mark.parametrize(("left", "right"), [case[1:] for case in SAME], ids=[case[0] for case in SAME])
def test_the_same_value_stored_otherwise_hashes_the_same(left, right):
    assert (hashes(pd.DataFrame({"x": left})) == hashes(pd.DataFrame({"x": right}))).all()


OTHER = [
    ("integers that one float stands for", [2**53, 2**53 + 2], [2**53 + 1, 2**53 + 2]),
    ("missing, and the word for it", ["nan", None], [None, "nan"]),
    ("empty, and missing", ["", "b"], [None, "b"]),
    ("a number, and its digits", [1, 2], ["1", "2"]),
    ("a microsecond", pd.to_datetime(["2026-01-01 00:00:00.000001"]), pd.to_datetime(["2026-01-01"])),
    ("a duration", pd.to_timedelta(["1 s"]), pd.to_timedelta(["2 s"])),
]


@pytest.mark.parametrize(("left", "right"), [case[1:] for case in OTHER], ids=[case[0] for case in OTHER])
def test_another_value_hashes_otherwise(left, right):
    assert hashes(pd.DataFrame({"x": left}))[0] != hashes(pd.DataFrame({"x": right}))[0]


def test_values_that_change_places_between_columns_are_another_row():
    here, there = pd.DataFrame({"a": [1], "b": [2]}), pd.DataFrame({"a": [2], "b": [1]})
    assert hashes(here)[0] != hashes(there)[0]


@pytest.mark.parametrize("rules", [{"holdout": 0.3, "folds": 5}, {"holdout": 0.2, "folds": 4}])
def test_other_rules_of_the_split_are_another_identity(rules):
    frame = pd.DataFrame({"a": [1, 2]})
    assert identity(frame, rules) != identity(frame, RULES)


def test_a_renamed_column_is_another_identity():
    frame = pd.DataFrame({"a": [1, 2]})
    assert identity(frame.rename(columns={"a": "b"}), RULES) != identity(frame, RULES)


def test_a_repeated_row_counts():
    assert identity(pd.DataFrame({"a": [1, 2, 2]}), RULES) != identity(pd.DataFrame({"a": [1, 1, 2]}), RULES)
