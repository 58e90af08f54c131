"""What a request's rows may be like, and what is said of those that may not."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.model_server import mlflow_forms, tables
from deployments.model_server.rows import BOOLEAN, NUMBER, TEXT, TIME, Columns, InvalidRowsError
from shared.config import DataConfig
from shared.data import sources

NUMBERS = Columns({"a": NUMBER, "b": NUMBER})
MIXED = Columns({"n": NUMBER, "b": BOOLEAN, "t": TEXT, "d": TIME})
ROWS = pd.DataFrame(
    {
        "n": [1.0, np.nan],
        "b": [True, False],
        "t": ["x", "y"],
        "d": pd.to_datetime(["2026-01-31T00:00", "2026-02-01T12:00"]),
    }
)


def as_json(content: object) -> bytes:
    return json.dumps(content).encode()


def arrow(table: pa.Table, options: pa.ipc.IpcWriteOptions | None = None) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=options) as stream:
        stream.write_table(table)
    return sink.getvalue()


def test_rows_come_by_columns_and_rows_in_any_order_or_without_columns_or_as_records():
    expected = pd.DataFrame({"a": [1.0, 3.0], "b": [2.5, np.nan]})
    for content in (
        {"columns": ["a", "b"], "rows": [[1, 2.5], [3, None]]},
        {"columns": ["b", "a"], "rows": [[2.5, 1], [None, 3]]},
        {"rows": [[1, 2.5], [3, None]]},
        [{"a": 1, "b": 2.5}, {"b": None, "a": 3}],
    ):
        pd.testing.assert_frame_equal(NUMBERS.from_json(as_json(content))[["a", "b"]], expected)


def test_text_booleans_and_times_are_the_same_by_json_csv_and_arrow():
    records = [
        {"n": 1, "b": True, "t": "x", "d": "2026-01-31T00:00:00"},
        {"n": None, "b": False, "t": "y", "d": "2026-02-01T12:00:00"},
    ]
    csv = b"t,n,b,d\nx,1,true,2026-01-31\ny,,false,2026-02-01T12:00:00\n"
    for found in (
        MIXED.from_json(as_json(records)),
        MIXED.from_csv(csv),
        MIXED.from_arrow(arrow(pa.Table.from_pandas(ROWS))),
        MIXED.from_arrow(arrow(pa.Table.from_pandas(ROWS.astype({"t": "category"})))),
    ):
        pd.testing.assert_frame_equal(found, ROWS)


def test_nulls_and_times_of_any_offset_have_the_types_of_the_others():
    noon = pd.Timestamp("2026-01-31T12:00")
    expected = pd.DataFrame({"b": [True] * 3, "t": ["x", None, None], "d": [noon, noon, None]}).astype({"t": "str"})
    offsets = ("2026-01-31T12:00", "2026-01-31T14:00+02:00", None)
    records = [{"b": True, "t": t, "d": d} for t, d in zip(("x", None, None), offsets, strict=True)]
    columns = Columns({"b": BOOLEAN, "t": TEXT, "d": TIME})
    aware = pa.array([noon, noon, None], pa.timestamp("ns", "Europe/Berlin"))
    table = pa.Table.from_pylist(records)
    for rows in (slice(0, 3), slice(1, 2), slice(2, 3)):
        csv = pd.DataFrame(records[rows]).to_csv(index=False).encode()
        for found in (
            columns.from_json(as_json(records[rows])),
            columns.from_csv(csv),
            columns.from_arrow(arrow(table[rows])),
            columns.from_arrow(arrow(table.set_column(2, "d", aware)[rows])),
            columns.from_arrow(arrow(table.set_column(2, "d", table["d"].dictionary_encode())[rows])),
        ):
            pd.testing.assert_frame_equal(found, expected[rows].reset_index(drop=True))


def test_csv_has_the_nulls_of_a_training_from_csv(tmp_path: Path):
    fields = ["", "NA", '"NA"', "N/A", "NULL", "null", "nan", "NaN", "None", "none", "na", "-", "?", "<NA>", "x"]
    body = "\n".join(["n,t", *(f"1,{field}" for field in fields)]).encode()
    (tmp_path / "rows.csv").write_bytes(body)
    trained = sources.read(DataConfig(source=f"csv:{tmp_path}/rows.csv", target="n")).frame["t"]
    found = Columns({"n": NUMBER, "t": TEXT}).from_csv(body)["t"]
    pd.testing.assert_series_equal(found, trained)
    assert [found.isna().tolist()[i] for i in (0, 1, 2, 5, 8, 14)] == [True, True, True, True, False, False]


def test_text_of_csv_may_have_many_lines_wherever_pyarrow_cuts_the_body():
    n_rows, lines = 2**16, "a\n" * 16
    body = b"n,t\n" + f'1,"{lines}"\n'.encode() * n_rows
    assert Columns({"n": NUMBER, "t": TEXT}).from_csv(body)["t"].tolist() == [lines] * n_rows


REFUSED = [
    (b"[[1", "the body must be JSON, but EOF"),
    (b"[" * 10_000, "the body must be JSON, but recursion limit"),
    (as_json({"data": [[1, 2]]}), 'the body must be {"columns"'),
    (as_json({"rows": [[1, 2]], "index": [0]}), 'the body must be {"columns"'),
    (as_json(3), 'the body must be {"columns"'),
    (as_json({"columns": "ab", "rows": []}), "`columns` must be a list of names, but is 'ab'"),
    (as_json({"columns": ["a", "c", "c"], "rows": []}), "missing: b; unknown: c; there twice: c"),
    (as_json({"rows": [[1, 2], [1, "two"]]}), "row 1, column 'b' must be a number, but is 'two'"),
    (as_json({"columns": ["b", "a"], "rows": [["two", 1]]}), "row 0, column 'b' must be a number, but is 'two'"),
    (as_json({"rows": [[True, 2]]}), "row 0, column 'a' must be a number, but is True"),
    (as_json({"rows": [[1, 2], [1]]}), "row 1 must be a list of 2 values, but is [1]"),
    (as_json({"rows": [[1, 2, 3]]}), "row 0 must be a list of 2 values, but is [1, 2, 3]"),
    (as_json({"rows": ["ab"]}), "row 0 must be a list of 2 values, but is 'ab'"),
    (as_json({"rows": 7}), "`rows` must be a list of lists, but is 7"),
    (as_json({"rows": []}), "there must be at least one row"),
    (as_json([]), "there must be at least one row"),
    (as_json([{"a": 1}]), "row 0 must name the 2 columns of the model, but missing: b"),
    (as_json([{"a": 1, "b": 2}, 5]), "row 1 must be an object with a value for each column, but is 5"),
    (as_json({"rows": [[1, 2], ["x", "y"], ["z", 2]]}), "row 1, column 'b' must be a number, but is 'y'"),
]


@pytest.mark.parametrize(("body", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_json_that_does_not_fit_is_refused_by_row_column_and_rule(body: bytes, why: str):
    with pytest.raises(InvalidRowsError) as caught:
        NUMBERS.from_json(body)
    assert why in str(caught.value)


def test_columns_of_csv_and_arrow_that_do_not_fit_are_refused_by_name():
    for body, why in (
        (b"a,b\n1,two\n", "column 'b' must be a number, but Failed to parse string: 'two'"),
        (b"a\n1\n", "the header must name the 2 columns of the model, but missing: b"),
        (b"", "the header must name the 2 columns of the model, but missing: a, b"),
        (b"a,b\n1,2,3\n", "the body must be CSV"),
        (b"a,b\n", "there must be at least one row"),
        (b"\xff\xfe,b\n1,2\n", "'utf-8' codec can't decode byte 0xff"),
    ):
        with pytest.raises(InvalidRowsError) as caught:
            NUMBERS.from_csv(body)
        assert why in str(caught.value)
    for table, why in (
        (pa.table({"a": [1], "b": [[2.0]]}), "column 'b' must be a number, but is of type list<item: double>"),
        (pa.table({"a": [1], "b": [True]}), "column 'b' must be a number, but is of type bool"),
    ):
        with pytest.raises(InvalidRowsError) as caught:
            NUMBERS.from_arrow(arrow(table))
        assert why in str(caught.value)
    with pytest.raises(InvalidRowsError, match="column 'b' must be true or false, but is null in 1 rows"):
        MIXED.from_arrow(arrow(pa.table({"n": [1], "b": pa.array([None], pa.bool_()), "t": ["x"], "d": [None]})))


def test_of_a_wide_row_with_many_faults_five_are_told():
    wide = Columns(dict.fromkeys("abcdefgh", NUMBER))
    with pytest.raises(InvalidRowsError, match=r"column 'e' must be a number, but is 'x'; and 3 more$"):
        wide.from_json(as_json({"rows": [["x"] * 8]}))


COMPRESSED = pa.table({"a": np.zeros(9), "b": np.zeros(9)})
TOO_MANY = pa.nulls(tables.MOST_BYTES // 16 + 1)
LONG = pa.array(["x" * (tables.MOST_BYTES // 1000 + 1)])
LONG_TYPES = [pa.large_string(), pa.binary(), pa.large_binary(), pa.string_view()]
REPEATED = pa.array(np.zeros(1000, np.int8))  # each stands for the first value of a dictionary


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_arrow_that_is_compressed_is_refused_also_in_its_dictionaries(codec: str):
    options = pa.ipc.IpcWriteOptions(compression=codec)
    words = pa.table({"n": [1.0], "b": [True], "t": pa.array(["x" * 999]).dictionary_encode(), "d": [None]})
    for columns, table in ((NUMBERS, COMPRESSED), (MIXED, words)):
        with pytest.raises(InvalidRowsError, match=r"a plain stream of Arrow.s IPC format, but it is compressed"):
            columns.from_arrow(arrow(table, options))


def test_arrow_that_may_be_compressed_as_in_its_version_0_17_is_refused():
    payload = struct.pack("<q", 8_000_000) + pa.Codec("zstd").compress(bytes(8_000_000), asbytes=True)
    numbers = pa.array(np.frombuffer(payload, np.int8))  # whose bytes are those of eight million others
    batch, sink = pa.record_batch({"a": numbers, "b": numbers}), io.BytesIO()
    old = pa.ipc.IpcWriteOptions(metadata_version=pa.ipc.MetadataVersion.V4)
    with pa.ipc.new_stream(sink, batch.schema, options=old) as stream:
        stream.write_batch(batch, custom_metadata={"ARROW:experimental_compression": "zstd"})
    with pytest.raises(InvalidRowsError, match=r"its messages must be of Arrow 1.0 or newer, without metadata"):
        NUMBERS.from_arrow(sink.getvalue())


def test_few_bytes_that_stand_for_many_are_refused_before_they_are_decoded():
    with pytest.raises(InvalidRowsError, match="the rows must take at most 134217728 bytes in memory, but would"):
        NUMBERS.from_arrow(arrow(pa.table({"a": TOO_MANY, "b": TOO_MANY})))
    with pytest.raises(InvalidRowsError, match="the rows must take at most 134217728 bytes in memory, but would"):
        NUMBERS.from_rows(["a", "b"], [None] * (tables.MOST_BYTES // 16 + 1))
    for values in (LONG, *map(LONG.cast, LONG_TYPES), pa.array([["x" * len(LONG[0].as_py())]])):
        table = pa.table({"t": pa.DictionaryArray.from_arrays(REPEATED, values)})
        with pytest.raises(InvalidRowsError, match="the rows must take at most 134217728 bytes in memory, but would"):
            Columns({"t": TEXT}).from_arrow(arrow(table))


def test_records_that_leave_columns_out_are_refused_before_those_are_filled_in():
    kinds = dict.fromkeys(map(str, range(64)), NUMBER)
    body = json.dumps({"instances": [dict.fromkeys(kinds, 1)] + [{}] * (tables.MOST_BYTES // 512)}).encode()
    tracemalloc.start()
    with pytest.raises(InvalidRowsError, match="the rows must take at most 134217728 bytes in memory, but would"):
        mlflow_forms.read(Columns(kinds), False, body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < tables.MOST_BYTES


def test_a_dictionary_of_numbers_takes_what_its_longest_does():
    hundred = pa.DictionaryArray.from_arrays(pa.array(np.zeros(200_000, np.int8)), pa.array(np.arange(100.0)))
    assert len(NUMBERS.from_arrow(arrow(pa.table({"a": hundred, "b": hundred})))) == 200_000


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "rows", "columns"]), inner),
)


@given(st.one_of(VALUES, st.fixed_dictionaries({"rows": VALUES}), st.lists(st.lists(VALUES, min_size=2, max_size=2))))
def test_any_json_is_a_frame_of_numbers_or_refused(content: object):
    for columns in (NUMBERS, MIXED):
        try:
            frame = columns.from_json(as_json(content))
        except InvalidRowsError:
            continue
        assert sorted(frame.columns) == sorted(columns.kinds)


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
def test_any_bytes_as_csv_or_arrow_are_a_frame_or_refused(body: bytes, at: int, byte: int):
    damaged = bytearray(arrow(pa.Table.from_pandas(ROWS)))
    damaged[at] = byte
    for read, content in ((MIXED.from_csv, b"n,b,t,d\n" + body), (MIXED.from_arrow, body), (MIXED.from_arrow, damaged)):
        try:
            frame = read(bytes(content))
        except InvalidRowsError:
            continue
        assert list(frame.columns) == list(MIXED.kinds)
