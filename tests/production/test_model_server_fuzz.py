"""Requests that nobody foresaw, by the server's own description and as bodies of Arrow and CSV.

No fault, no growth, and no answer that isn't described.
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import datetime
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
from schemathesis import Case, GenerationMode, Response
from schemathesis.checks import content_type_conformance, response_schema_conformance, status_code_conformance
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from shared.model import Member, Signature, System
from tests.production.test_model_server import free_port, promote, serve, until

pytestmark = pytest.mark.timeout(3600)

FEW, MANY = 10, 500  # requests of each kind, of which there are twenty-one; many where tests are repeated
GROWTH_BYTES = 50 * 2**20

ROWS = pd.DataFrame(
    {
        "number": [1.0, np.nan, 3.0, 4.0],
        "yes": [True, False, True, False],
        "word": ["a", "b", None, "c"],
        "day": pd.to_datetime(["2026-01-31", "2026-02-01", None, "2026-02-03"]),
    }
)
NAMES = tuple(ROWS.columns)

POSTS = ("/predict", "/predict_proba", "/invocations")
OWN = POSTS[:2]  # which read Arrow, too
JSON, ARROW, CSV = "application/json", "application/vnd.apache.arrow.stream", "text/csv"

DESCRIBED = [status_code_conformance, content_type_conformance, response_schema_conformance]

Ask = Callable[[Any], requests.Response | Response]


def system() -> System:
    """A model of one column of each kind, each of which it uses; all but the boolean may be null."""
    encoded = make_column_transformer(
        (SimpleImputer(), ["number"]),
        (OneHotEncoder(handle_unknown="ignore"), ["word"]),
        (OneHotEncoder(handle_unknown="ignore"), ["day"]),
        ("passthrough", ["yes"]),
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


WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=9) | st.just("two\nlines")
FITTING = (
    st.floats(-1e9, 1e9) | st.none(),
    st.booleans(),
    WORDS | st.none(),
    st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)) | st.none(),
)


def frame(rows: list[tuple[Any, ...]]) -> pa.Table:
    columns = zip(NAMES, zip(*rows, strict=True), strict=True)
    return pa.table({name: pa.array(column, OWN_TYPES[name]) for name, column in columns})


FRAMES = st.lists(st.tuples(*FITTING), min_size=1, max_size=5).map(frame)

CODECS = st.sampled_from([None, "zstd", "lz4"]).map(lambda codec: pa.ipc.IpcWriteOptions(compression=codec))
FIELDS = st.sampled_from(["", "1", "true", "x", "2026-01-31", "nan", '"', '"a\nb"', "1e999", "\x00", "é"]) | st.text(
    max_size=9
)
LINES = st.lists(st.lists(FIELDS, min_size=3, max_size=5).map(",".join), max_size=5).map("\n".join)
HEADERS = st.sampled_from([",".join(NAMES), ",".join(NAMES[::-1]), "number,number,yes,word,day", "number", ""])
GOOD = "that fits"  # bodies of which each is answered
BODIES = {
    f"arrow {GOOD}": (ARROW, OWN, FRAMES.map(ipc)),
    "arrow": (ARROW, OWN, st.builds(ipc, tables(), CODECS)),
    "damaged arrow": (ARROW, OWN, damaged()),
    f"csv {GOOD}": (CSV, POSTS, FRAMES.map(lambda table: table.to_pandas().to_csv(index=False).encode())),
    "csv": (CSV, POSTS, st.builds("{}\n{}".format, HEADERS, LINES).map(lambda text: text.encode(errors="replace"))),
    "csv of any bytes": (CSV, POSTS, st.builds(lambda line, rest: line.encode() + b"\n" + rest, HEADERS, st.binary())),
}

Counts = defaultdict[str, Counter[int]]  # answers of each kind of request, by status


def each(values: st.SearchStrategy[Any], n: int, ask: Ask, count: Callable[[Any, int], None]) -> None:
    """No request of `n` is a fault of the server."""

    @settings(
        max_examples=n, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(values)
    def run(value: Any) -> None:
        answer = ask(value)
        count(value, answer.status_code)
        assert answer.status_code < 500, (answer.status_code, answer.text, value)

    run()


def ask_as_described(case: Case, session: requests.Session) -> Response:
    """The answer, whose status, type and content are such as the description has."""
    answer = case.call(session=session)
    case.validate_response(answer, checks=DESCRIBED)
    return answer


def fuzz(address: str, n: int, session: requests.Session) -> Counts:
    """`n` requests of each kind, to each path that reads it."""
    counts: Counts = defaultdict(Counter)
    described = schemathesis.openapi.from_url(f"{address}/openapi.json")
    for path in POSTS:
        for mode in GenerationMode:
            cases = described[path]["POST"].as_strategy(mode)
            each(
                cases,
                n,
                lambda case: ask_as_described(case, session),
                lambda case, status, m=mode: counts[f"{m.value} {case.path} {case.media_type}"].update([status]),
            )
    for kind, (content_type, paths, bodies) in BODIES.items():
        for path in paths:
            headers = {"Content-Type": content_type}
            each(
                bodies,
                n,
                lambda body, p=path, h=headers: session.post(address + p, body, headers=h),
                lambda _, status, k=f"{kind} {path}": counts[k].update([status]),
            )
    return counts


def answered(counts: Counter[int]) -> float:
    """The share of requests that were answered by a prediction."""
    return counts[200] / counts.total()


@pytest.mark.usefixtures("home")
def test_no_request_is_a_fault_of_the_server_and_all_of_them_cost_no_memory(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    port, many = free_port(), request.config.getoption("repetitions") > 1
    address = f"http://127.0.0.1:{port}"
    promote(system(), ROWS)
    with serve("digits", "--port", str(port), output=tmp_path / "output") as process, requests.Session() as session:
        until(lambda: requests.get(f"{address}/readyz").ok)
        fuzz(address, FEW, session)
        before = psutil.Process(process.pid).memory_info().rss
        counts = fuzz(address, MANY if many else FEW, session)
        growth = psutil.Process(process.pid).memory_info().rss - before
        assert requests.get(f"{address}/readyz").json()["ready"]
    print(*(f"{kind}: {dict(found)}" for kind, found in counts.items()), f"{growth / 2**20:.1f} MiB more", sep="\n")
    assert growth < GROWTH_BYTES
    assert sum(found.total() for found in counts.values()) >= (10_000 if many else 200)
    for kind, found in counts.items():
        if kind.endswith(tuple(f"{GOOD} {path}" for path in POSTS)):
            assert answered(found) == 1, kind
        if kind.startswith("positive") and kind.endswith(JSON):
            assert answered(found) > (0.5 if many else 0), kind
    assert "Traceback" not in (tmp_path / "output").read_text()
