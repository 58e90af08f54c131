"""Rows as requests bring them, checked against the columns of a model, as the frame that it predicts from."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import FailFast, Strict, TypeAdapter, ValidationError
from pydantic_core import from_json

from deployments.model_server import tables
from deployments.model_server.tables import Body

SHOWN = 5  # faults that one message tells

OFFSET = r"[T ].*(Z|[+-]\d\d(:?\d\d)?)$"  # of a time from UTC

FORMS = '{"columns": ["a", "b"], "rows": [[1, 2]]} or [{"a": 1, "b": 2}]'


class InvalidRowsError(ValueError):
    """A request's rows break a rule; the message says where, and which."""


@dataclass(frozen=True, eq=False)
class Kind:
    """What a column holds.

    json: the type of its values in JSON; arrow: the type of its columns, however they came, from which the frame's
    follows; takes: from which types of Arrow, text and nulls besides.
    """

    words: str
    json: Any
    arrow: pa.DataType
    takes: Callable[[pa.DataType], bool]


def _is_number(type_: pa.DataType) -> bool:
    return bool(pa.types.is_floating(type_) or pa.types.is_integer(type_) or pa.types.is_decimal(type_))


NUMBER = Kind("a number", Annotated[float, Strict()] | None, pa.float64(), _is_number)
BOOLEAN = Kind("true or false", Annotated[bool, Strict()], pa.bool_(), pa.types.is_boolean)
TEXT = Kind("text", Annotated[str, Strict()] | None, pa.string(), pa.types.is_null)
TIME = Kind("a time such as 2026-01-31T12:00:00", datetime | None, pa.timestamp("us"), pa.types.is_temporal)


@dataclass(frozen=True, eq=False)
class Columns:
    """The raw columns of a model in order, and what each holds."""

    kinds: Mapping[str, Kind]

    @classmethod
    def of(cls, inputs: Sequence[Mapping[str, Any]]) -> Columns:
        """As MLflow's signature says, in JSON; numbers are of its type `any`."""
        known = {"boolean": BOOLEAN, "string": TEXT, "datetime": TIME}
        return cls({column["name"]: known.get(column["type"], NUMBER) for column in inputs})

    @cached_property
    def numeric(self) -> bool:
        return all(kind is NUMBER for kind in self.kinds.values())

    def from_json(self, body: Body) -> pd.DataFrame:
        """Columns and rows, or a record for each row.

        Raises:
            InvalidRowsError: the body breaks a rule.
        """
        match parse_json(body):
            case {"rows": rows, **rest} if rest.keys() <= {"columns"}:
                return self.from_rows(rest.get("columns", list(self.kinds)), rows)
            case list(records):
                return self.from_records(records)
        raise InvalidRowsError(f"the body must be {FORMS}, but is neither")

    def from_records(self, records: Sequence[Any]) -> pd.DataFrame:
        """One object a row, its keys the columns."""
        for i, record in enumerate(records):
            if not isinstance(record, dict):
                raise InvalidRowsError(
                    f"row {i} must be an object with a value for each column, but is {_shown(record)}"
                )
            if record.keys() != self.kinds.keys():
                self._check(list(record), f"row {i}")
        return self.from_rows(list(self.kinds), [[record[name] for name in self.kinds] for record in records])

    def from_rows(self, columns: Any, rows: Any) -> pd.DataFrame:
        """One list a row, its values in the order of `columns`."""
        if columns != list(self.kinds):
            if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
                raise InvalidRowsError(f"`columns` must be a list of names, but is {_shown(columns)}")
            self._check(columns, "`columns`")
        if isinstance(rows, list):
            check_size(len(rows) * len(columns) * tables.NUMBER_BYTES)
        try:
            values = _reader(tuple(self.kinds[name] for name in columns)).validate_python(rows)
        except ValidationError as err:
            raise InvalidRowsError(_explain(err, columns, self.kinds)) from None
        return self._frame(_index(tuple(columns)), _some(values))

    def from_csv(self, body: Body, only_known: bool = False) -> pd.DataFrame:
        """CSV with a line of names first.

        only_known: leave out columns that the model hasn't.
        """
        try:
            if not only_known:
                self._check(tables.csv_names(body), "the header")
            table = tables.from_csv(body, self.kinds)
        except (pa.ArrowException, csv.Error, KeyError, UnicodeDecodeError) as err:
            raise InvalidRowsError(f"the body must be CSV with a line of names first, but {err}") from None
        return self._from_table(table)

    def from_arrow(self, body: Body) -> pd.DataFrame:
        """A stream of Arrow's IPC format, without compression."""
        try:
            table = tables.from_arrow(body)
        except (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError) as err:
            raise InvalidRowsError(f"the body must be a plain stream of Arrow's IPC format, but {err}") from None
        self._check(_names(table), "the header")
        return self._from_table(table)

    def _from_table(self, table: pa.Table) -> pd.DataFrame:
        check_size(tables.decoded_bytes(table))
        arrays = [_cast(table[name], name, kind) for name, kind in self.kinds.items()]
        frame: pd.DataFrame = _some(pa.table(arrays, names=list(self.kinds))).to_pandas()
        return frame

    def _frame(self, index: pd.Index, values: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
        if self.numeric:
            return pd.DataFrame(np.array(values, dtype=np.float64), columns=index, copy=False)
        columns = zip(index, zip(*values, strict=True), strict=True)
        table = pa.table({name: pa.array(column, self.kinds[name].arrow) for name, column in columns})
        frame: pd.DataFrame = table.to_pandas()
        return frame

    def _check(self, found: Sequence[str], where: str) -> None:
        """Each column of the model is there once, and no other.

        Raises:
            InvalidRowsError: it isn't so.
        """
        if found == list(self.kinds):
            return
        times = Counter(found)
        faults = {
            "missing": [name for name in self.kinds if name not in times],
            "unknown": [name for name in times if name not in self.kinds],
            "there twice": [name for name, n in times.items() if n > 1],
        }
        if any(faults.values()):
            said = "; ".join(f"{fault}: {', '.join(names[:SHOWN])}" for fault, names in faults.items() if names)
            raise InvalidRowsError(f"{where} must name the {len(self.kinds)} columns of the model, but {said}")


def parse_json(body: Body) -> Any:
    """The body's content.

    Raises:
        InvalidRowsError: it isn't JSON.
    """
    try:
        return from_json(body)
    except ValueError as err:
        raise InvalidRowsError(f"the body must be JSON, but {err}") from None


@lru_cache(maxsize=64)
def _reader(kinds: tuple[Kind, ...]) -> TypeAdapter[Any]:
    """What checks rows of such columns: made once, since that takes milliseconds."""
    row: Any = tuple.__class_getitem__(tuple(kind.json for kind in kinds))  # as many as the model has
    rows: Any = Annotated[list[row], FailFast()]  # a body may have millions of rows with a fault
    return TypeAdapter(rows)


@lru_cache(maxsize=64)
def _index(columns: tuple[str, ...]) -> pd.Index:
    return pd.Index(columns)


def _explain(err: ValidationError, columns: Sequence[str], kinds: Mapping[str, Kind]) -> str:
    faults = [_fault(error, columns, kinds) for error in err.errors(include_url=False)[:SHOWN]]
    more = err.error_count() - len(faults)
    return "; ".join([*faults, *([f"and {more} more"] if more else [])])


def _fault(error: Any, columns: Sequence[str], kinds: Mapping[str, Kind]) -> str:
    match error["loc"]:
        case (int(row), int(column), *_) if error["type"] != "missing":
            name = columns[column]
            return f"row {row}, column {name!r} must be {kinds[name].words}, but is {_shown(error['input'])}"
        case (int(row), *_):
            return f"row {row} must be a list of {len(columns)} values, but is {_shown(error['input'])}"
    return f"`rows` must be a list of lists, but is {_shown(error['input'])}"


def _cast(array: pa.ChunkedArray, name: str, kind: Kind) -> pa.ChunkedArray:
    found = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    text = pa.types.is_string(found) or pa.types.is_large_string(found)
    if not (text or pa.types.is_null(found) or kind.takes(found)):
        raise InvalidRowsError(f"column {name!r} must be {kind.words}, but is of type {array.type}")
    if kind is BOOLEAN and array.null_count:
        raise InvalidRowsError(f"column {name!r} must be {kind.words}, but is null in {array.null_count} rows")
    try:
        return _times(array) if text and kind is TIME else array.cast(kind.arrow, safe=kind is not NUMBER)
    except pa.ArrowException as err:
        raise InvalidRowsError(f"column {name!r} must be {kind.words}, but {err}") from None


def _times(array: pa.ChunkedArray) -> pa.ChunkedArray:
    """Times from text, in UTC where they have an offset: pyarrow wants that of all of them, or of none."""
    text, nothing = array.cast(pa.string()), pa.scalar(None, pa.string())
    has_offset = pc.match_substring_regex(text, OFFSET)
    in_utc = pc.if_else(has_offset, text, nothing).cast(pa.timestamp("us", "UTC"))
    return pc.coalesce(in_utc.cast(TIME.arrow), pc.if_else(has_offset, nothing, text).cast(TIME.arrow))


def _names(table: pa.Table) -> list[str]:
    try:
        return list(table.column_names)
    except UnicodeDecodeError:
        raise InvalidRowsError("the names of the columns must be UTF-8, but aren't") from None


def check_size(n_bytes: int) -> None:
    if n_bytes > tables.MOST_BYTES:
        raise InvalidRowsError(
            f"the rows must take at most {tables.MOST_BYTES} bytes in memory, but would take {n_bytes}; send fewer"
        )


def _some(rows: Any) -> Any:
    if not len(rows):
        raise InvalidRowsError("there must be at least one row, but there is none")
    return rows


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
