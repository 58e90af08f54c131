"""What the server answers to rows, however they came, and whoever asked at the same time."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from deployments.model_server.answers import ARROW, CSV, JSON, Question, answer, predict_proba, read
from deployments.model_server.live import Served
from deployments.model_server.rows import BOOLEAN, NUMBER, TEXT, TIME, Columns
from shared.domain import ModelVersion
from shared.model import Member, Signature, System

TRAINED = pd.DataFrame(
    {
        "n": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        "b": [True, False, True, False, True, False],
        "t": ["a", "b", None, "a", "b", None],
        "d": pd.to_datetime(["2026-01-31 01:00", None, "2026-02-01 23:00"] * 2),
    }
)


def hours(days: pd.DataFrame) -> np.ndarray:
    return days["d"].dt.hour.fillna(-9).to_numpy()[:, None]


def served(hours: Callable[[pd.DataFrame], np.ndarray] = hours) -> Served:
    """A model to which a missing word is a word, and which takes times apart."""
    encoded = make_column_transformer(
        ("passthrough", ["n", "b"]),
        (OneHotEncoder(handle_unknown="ignore"), ["t"]),
        (FunctionTransformer(hours), ["n", "d"]),
    )
    model = make_pipeline(encoded, LogisticRegression(C=100)).fit(TRAINED, [0, 0, 1, 1, 0, 1])
    system = System(Signature(tuple(TRAINED), (4,), ("no", "yes")), [Member("one", model)])
    columns = Columns({"n": NUMBER, "b": BOOLEAN, "t": TEXT, "d": TIME})
    return Served(ModelVersion(name="mixed", version=1, lineage={}), system, columns, TRAINED[:2])


def as_arrow(rows: list[dict[str, Any]]) -> bytes:
    table, sink = pa.Table.from_pylist(rows), io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def bodies(rows: list[dict[str, Any]]) -> dict[str, bytes]:
    """The same rows by their content types."""
    return {
        JSON: json.dumps(rows).encode(),
        CSV: pd.DataFrame(rows).to_csv(index=False).encode(),
        ARROW: as_arrow(rows),
    }


ROWS = {
    "text": {"n": 1.0, "b": True, "t": "a", "d": "2026-01-31T23:00:00"},
    "no text": {"n": 1.0, "b": True, "t": None, "d": "2026-01-31T23:00:00"},
    "no time": {"n": 1.0, "b": True, "t": "b", "d": None},
    "a time elsewhere": {"n": 1.0, "b": False, "t": "b", "d": "2026-02-01T01:00:00+02:00"},
    "a time in UTC": {"n": 1.0, "b": False, "t": "b", "d": "2026-01-31T23:00:00Z"},
    "nothing": {"n": 0.0, "b": False, "t": None, "d": None},
}


def known(row: dict[str, Any]) -> pd.DataFrame:
    """A row as training would have it, from Parquet."""
    frame = pd.DataFrame([row]).astype({"t": "str"})
    return frame.assign(d=pd.to_datetime(frame["d"], utc=True).dt.tz_localize(None))


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_row_is_answered_alike_however_it_comes_and_beside_any_other(row: dict[str, Any]):
    model = served()
    expected = model.system.predict_proba(known(row))[0]
    for content_type, body in bodies([row]).items():
        (alone,) = answer([read((predict_proba, model, content_type, body))])
        assert isinstance(alone, bytes), alone
        np.testing.assert_allclose(json.loads(alone)["probabilities"], [expected], rtol=1e-9)
        for other in ROWS.values():
            questions = [
                (predict_proba, model, content_type, body),
                (predict_proba, model, JSON, json.dumps([other]).encode()),
            ]
            first, _ = answer([read(question) for question in questions])
            np.testing.assert_allclose(json.loads(first)["probabilities"], [expected], rtol=1e-9)


REFUSED = {
    "a null": ({"n": None}, "row 1, column 'n' is null"),
    "an infinity": ({"n": -math.inf}, "row 1, column 'n' is -inf"),
    "too large": ({"n": 1e39}, "row 1, column 'n' is 1e+39"),
    "one of each": ({"n": math.inf, "t": None}, "row 1, column 't' is null; row 1, column 'n' is inf"),
    "neither": ({"d": "1999-01-01T00:00:00"}, None),
}


@pytest.mark.parametrize(("fault", "cells"), REFUSED.values(), ids=REFUSED)
def test_what_the_model_refuses_is_told_with_the_cell_that_it_may_mean(fault: dict[str, Any], cells: str | None):
    def picky(rows: pd.DataFrame) -> np.ndarray:
        if not rows["n"].abs().lt(1e38).all() or rows["d"].dt.year.eq(1999).any():
            raise ValueError("not these\n(more of it)")
        return hours(rows)

    model, rows = served(picky), [ROWS["text"], ROWS["text"] | fault]
    expected = "the model refuses these rows: not these" + (f" ({cells})" if cells else "")
    for content_type, body in bodies(rows).items():
        beside = [asked(3, model), (predict_proba, model, content_type, body), asked(1, model)]
        before, refused, after = answer([read(question) for question in beside])
        assert (str(refused), isinstance(before, bytes), isinstance(after, bytes)) == (expected, True, True)


def asked(n_rows: int, model: Served) -> Question:
    return predict_proba, model, CSV, b"n,b,t,d\n" + b"1,true,,\n" * n_rows


def test_models_are_asked_once_each_for_what_waits_in_any_order():
    calls: list[int] = []

    def counted(days: pd.DataFrame) -> np.ndarray:
        calls.append(len(days))
        return hours(days)

    one, other = served(counted), served(counted)
    calls.clear()
    answers = answer([read(asked(n_rows, model)) for n_rows, model in [(1, one), (2, other), (3, one), (4, other)]])
    assert [len(json.loads(told)["probabilities"]) for told in answers] == [1, 2, 3, 4]
    assert sorted(calls) == [4, 6]


def test_one_refused_row_does_not_cost_a_call_for_each_request():
    calls: list[int] = []

    def picky(days: pd.DataFrame) -> np.ndarray:
        calls.append(len(days))
        if days["d"].dt.year.eq(1999).any():
            raise ValueError("no such year")
        return hours(days)

    model, refused = served(picky), b"n,b,t,d\n1,true,,1999-01-01\n"
    calls.clear()
    questions = [asked(1, model)] * 5 + [(predict_proba, model, CSV, refused)] + [asked(1, model)] * 10
    answers = answer([read(question) for question in questions])
    assert [isinstance(told, bytes) for told in answers] == [True] * 5 + [False] + [True] * 10
    assert len(calls) == 9  # each half of 16, of 8, of 4, of 2, and all together
