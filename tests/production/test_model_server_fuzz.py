"""Requests that nobody foresaw, by the server's own description and as bodies of Arrow and CSV: no fault, no growth."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from shared.model import Member, Signature, System
from tests.production.test_model_server import free_port, promote, serve, until

FEW, MANY = 20, 1000  # requests of each kind, of which there are ten; many where tests are repeated
GROWTH_BYTES = 50 * 2**20

ROWS = pd.DataFrame(
    {
        "number": [1.0, np.nan, 3.0, 4.0],
        "yes": [True, False, True, False],
        "word": ["a", "b", "a", "c"],
        "day": pd.to_datetime(["2026-01-31", "2026-02-01", "2026-02-02", "2026-02-03"]),
    }
)
NAMES = tuple(ROWS.columns)

POSTS = ("/predict", "/predict_proba", "/invocations")
ARROW, CSV = "application/vnd.apache.arrow.stream", "text/csv"

Ask = Callable[[Any], requests.Response]


def system() -> System:
    """A model of one column of each kind."""
    encoded = make_column_transformer(
        (SimpleImputer(), ["number"]), (OneHotEncoder(handle_unknown="ignore"), ["word"]), ("passthrough", ["yes"])
    )
    model = make_pipeline(encoded, LogisticRegression()).fit(ROWS, [0, 1, 0, 1])
    return System(Signature(NAMES, (len(NAMES),), ("no", "yes")), [Member("one", model)])


def ipc(table: pa.Table, options: pa.ipc.IpcWriteOptions | None = None) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=options) as stream:
        stream.write_table(table)
    return sink.getvalue()


VALUES = {
    pa.float64(): st.floats(),
    pa.int8(): st.integers(-128, 127),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(max_size=20),
    pa.binary(): st.binary(max_size=20),
    pa.large_string(): st.text(max_size=20),
    pa.timestamp("ns", "UTC"): st.integers(-(2**63), 2**63 - 1),
    pa.date32(): st.integers(-(2**31), 2**31 - 1),
    pa.decimal128(5): st.integers(-9999, 9999),
    pa.list_(pa.int8()): st.lists(st.integers(-128, 127), max_size=3),
    pa.null(): st.none(),
}
OWN_TYPES = dict(zip(NAMES, (pa.float64(), pa.bool_(), pa.string(), pa.timestamp("us")), strict=True))


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """A table of the model's columns, most of them of its types."""
    n_rows = draw(st.integers(0, 5))
    columns = {}
    for name in draw(st.permutations(NAMES)):
        type_ = draw(st.sampled_from(list(VALUES)) | st.just(OWN_TYPES[name]))
        values = VALUES.get(type_, st.integers(-(2**40), 2**40)) | st.none()
        column = pa.array(draw(st.lists(values, min_size=n_rows, max_size=n_rows)), type_)
        is_plain = not pa.types.is_nested(type_) and not pa.types.is_null(type_)
        columns[name] = column.dictionary_encode() if is_plain and draw(st.booleans()) else column
    return pa.table(columns)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Arrow of which some bytes are others, or are missing."""
    body = bytearray(ipc(pa.Table.from_pandas(ROWS)))
    for at, byte in draw(st.lists(st.tuples(st.integers(0, len(body) - 1), st.integers(0, 255)), max_size=5)):
        body[at] = byte
    return bytes(body[: draw(st.integers(0, len(body)) | st.just(len(body)))])


CODECS = st.sampled_from([None, "zstd", "lz4"]).map(lambda codec: pa.ipc.IpcWriteOptions(compression=codec))
FIELDS = st.sampled_from(["", "1", "true", "x", "2026-01-31", "nan", '"', '"a\nb"', "1e999", "\x00", "é"]) | st.text(
    max_size=9
)
LINES = st.lists(st.lists(FIELDS, min_size=3, max_size=5).map(",".join), max_size=5).map("\n".join)
HEADERS = st.sampled_from([",".join(NAMES), ",".join(NAMES[::-1]), "number,number,yes,word,day", "number", ""])
BODIES = {
    "arrow": (ARROW, st.builds(ipc, tables(), CODECS)),
    "damaged arrow": (ARROW, damaged()),
    "csv": (CSV, st.builds("{}\n{}".format, HEADERS, LINES).map(lambda text: text.encode(errors="replace"))),
    "csv of any bytes": (CSV, st.builds(lambda line, rest: line.encode() + b"\n" + rest, HEADERS, st.binary())),
}


def each(values: st.SearchStrategy[Any], n: int, ask: Callable[[Any], Any]) -> None:
    """No request of `n` is a fault of the server."""

    @settings(
        max_examples=n, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(values)
    def run(value: Any) -> None:
        answer = ask(value)
        assert answer.status_code < 500, (answer.status_code, answer.text, value)

    run()


@pytest.mark.usefixtures("home")
def test_no_request_is_a_fault_of_the_server_and_all_of_them_cost_no_memory(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    promote(system(), ROWS)
    with serve("digits", "--port", str(port), output=tmp_path / "output") as process, requests.Session() as session:
        until(lambda: requests.get(f"{address}/readyz").ok)
        described = schemathesis.openapi.from_url(f"{address}/openapi.json")

        def everything(n: int) -> None:
            for path in POSTS:
                for mode in GenerationMode:
                    each(described[path]["POST"].as_strategy(mode), n, lambda case: case.call(session=session))
            for content_type, bodies in BODIES.values():
                headers = {"Content-Type": content_type}
                each(bodies, n, lambda body, h=headers: session.post(f"{address}/predict", body, headers=h))

        everything(10)
        before = psutil.Process(process.pid).memory_info().rss
        everything(MANY if request.config.getoption("repetitions") > 1 else FEW)
        assert psutil.Process(process.pid).memory_info().rss - before < GROWTH_BYTES
        assert requests.get(f"{address}/readyz").json()["ready"]
    assert "Traceback" not in (tmp_path / "output").read_text()
