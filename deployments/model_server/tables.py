"""Tables as bodies bring them, with no more memory than a body deserves: a few bytes can stand for gigabytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.ipc

MOST_BYTES = 128 * 1024 * 1024  # of one request's rows in memory; eight bytes for each of 16 MiB

NUMBER_BYTES = 8
_COMPRESSION, _BATCH_OF_DICTIONARY, _HEADER = 3, 1, 2  # fields of RecordBatch, DictionaryBatch and Message


def csv_names(body: bytes) -> list[str]:
    """The names in the first line of a CSV.

    Raises:
        UnicodeDecodeError, csv.Error: it has none that can be read.
    """
    lines = csv.reader(io.TextIOWrapper(io.BytesIO(body), "utf-8-sig", newline=""))
    return next((names for names in lines if names), [])


def from_csv(body: bytes, names: Collection[str]) -> pa.Table:
    """The columns `names` of a CSV, as text; an empty field is null.

    Raises:
        pa.ArrowException, KeyError, UnicodeDecodeError: it can't be read, or a column is missing.
    """
    convert = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, include_columns=list(names)
    )
    return pa.csv.read_csv(io.BytesIO(body), convert_options=convert)


def from_arrow(body: bytes) -> pa.Table:
    """A stream of Arrow's IPC format, whose columns stay where the body has them.

    Raises:
        pa.ArrowException, OSError, UnicodeDecodeError, IndexError: it can't be read, or is compressed.
    """
    if any(_is_compressed(message) for message in pa.ipc.MessageReader.open_stream(body)):
        raise pa.ArrowInvalid("it is compressed")
    table = pa.ipc.open_stream(body).read_all()
    table.validate(full=True)
    return table


def decoded_bytes(table: pa.Table) -> int:
    """What the columns take at most, once they are no dictionaries and no nulls of no length."""
    return sum(len(column) * _widest(column) for column in table.columns)


def _widest(column: pa.ChunkedArray) -> int:
    """Bytes of the largest value, or of its number."""
    if not pa.types.is_dictionary(column.type) or not pa.types.is_string(column.type.value_type):
        return NUMBER_BYTES
    lengths = (pa.compute.max(pa.compute.binary_length(chunk.dictionary)).as_py() for chunk in column.chunks)
    return max([NUMBER_BYTES, *(length or 0 for length in lengths)])


def _is_compressed(message: pa.ipc.Message) -> bool:
    """Whether a message's record batch, or its dictionary's, has the field `compression` (Arrow's Message.fbs)."""
    content = message.metadata.to_pybytes()
    batch = _field(content, _target(content, 0), _HEADER)
    if message.type == "dictionary":
        batch = _field(content, batch, _BATCH_OF_DICTIONARY)
    has_batch = message.type in ("dictionary", "record batch")
    return has_batch and _offset(content, batch, _COMPRESSION) > 0


def _field(content: bytes, table: int, index: int) -> int:
    """Where in a flatbuffer a table is that is a field of another one."""
    return _target(content, table + _offset(content, table, index))


def _offset(content: bytes, table: int, index: int) -> int:
    """Where in a flatbuffer's table a field is; 0: it has none."""
    vtable = table - int.from_bytes(content[table : table + 4], "little", signed=True)
    length = int.from_bytes(content[vtable : vtable + 2], "little")
    entry = 4 + 2 * index
    return int.from_bytes(content[vtable + entry : vtable + entry + 2], "little") if entry < length else 0


def _target(content: bytes, at: int) -> int:
    return at + int.from_bytes(content[at : at + 4], "little")
