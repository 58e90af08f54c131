"""Tables as bodies bring them, with no more memory than a body deserves: a few bytes can stand for gigabytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.ipc

Body = bytes | bytearray

MOST_BYTES = 128 * 1024 * 1024  # of one request's rows in memory; eight bytes for each of 16 MiB

NUMBER_BYTES = 8
_COMPRESSION, _BATCH_OF_DICTIONARY = 3, 1  # fields of RecordBatch and DictionaryBatch in Arrow's Message.fbs
_HEADER, _CUSTOM_METADATA = 2, 4  # of Message


def csv_names(body: Body) -> list[str]:
    """The names in the first line of a CSV.

    Raises:
        UnicodeDecodeError, csv.Error: it has none that can be read.
    """
    lines = csv.reader(io.TextIOWrapper(io.BytesIO(body), "utf-8-sig", newline=""))
    return next((names for names in lines if names), [])


def from_csv(body: Body, names: Collection[str]) -> pa.Table:
    """The columns `names` of a CSV, as text; what is null is so in a training's CSV, too: empty fields, `NA`, `null`, …

    Raises:
        pa.ArrowException, KeyError, UnicodeDecodeError: it can't be read, or a column is missing.
    """
    convert = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, include_columns=list(names)
    )
    parse = pa.csv.ParseOptions(newlines_in_values=True)
    return pa.csv.read_csv(io.BytesIO(body), convert_options=convert, parse_options=parse)


def from_arrow(body: Body) -> pa.Table:
    """A stream of Arrow's IPC format, whose columns stay where the body has them.

    Raises:
        pa.ArrowException, OSError, UnicodeDecodeError: it can't be read, or may be compressed.
    """
    for message in pa.ipc.MessageReader.open_stream(body):
        _check_is_plain(message)
    table = pa.ipc.open_stream(body).read_all()
    table.validate(full=True)
    return table


def decoded_bytes(table: pa.Table) -> int:
    """What the columns take at most, once they are no dictionaries and no nulls of no length."""
    return sum(len(column) * _widest(column) for column in table.columns)


def _widest(column: pa.ChunkedArray) -> int:
    """Bytes of the largest value of a dictionary, or of a number."""
    dictionaries = [chunk.dictionary for chunk in column.chunks] if pa.types.is_dictionary(column.type) else []
    return max([NUMBER_BYTES, *map(_longest, dictionaries)])


def _longest(values: pa.Array) -> int:
    """Bytes of the longest; of all together, where nothing tells."""
    if values.type in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary()):
        return int(pa.compute.max(pa.compute.binary_length(values)).as_py() or 0)
    try:
        return int(values.type.bit_width) // 8
    except ValueError:  # not of one width
        return int(values.nbytes)


def _check_is_plain(message: pa.ipc.Message) -> None:
    """A message's record batch, or its dictionary's, is not compressed: in today's way, or in that of Arrow 0.17.

    Raises:
        pa.ArrowInvalid: it is, or may be.
    """
    content = message.metadata.to_pybytes()
    top = _target(content, 0)
    if message.metadata_version < pa.ipc.MetadataVersion.V5 or _offset(content, top, _CUSTOM_METADATA):
        raise pa.ArrowInvalid("its messages must be of Arrow 1.0 or newer, without metadata of their own")
    batch = _field(content, top, _HEADER)
    if message.type == "dictionary":
        batch = _field(content, batch, _BATCH_OF_DICTIONARY)
    if message.type in ("dictionary", "record batch") and _offset(content, batch, _COMPRESSION):
        raise pa.ArrowInvalid("it is compressed")


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
