"""Dataset versions as Parquet, under `<EVERTUNE_DATA_ROOT>/<use case>/<fingerprint>/`, local or in an object store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from shared.data.split import HOLDOUT
from shared.data.validate import FOLD
from shared.domain import Dataset, DatasetRef
from shared.errors import DataError
from shared.settings import project_root, settings

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Split = Literal["development", "holdout"]
SPLITS: tuple[Split, ...] = ("development", "holdout")
_ORDERED = b"evertune.ordered"


def uri(use_case: str, fingerprint: str) -> str:
    """Where a dataset version belongs. A relative `EVERTUNE_DATA_ROOT` starts at the project's root."""
    root = settings().datasets_uri.rstrip("/")
    return f"{root if '://' in root else project_root() / root}/{use_case}/{fingerprint}"


def write(ref: DatasetRef, rows: pd.DataFrame, profile: dict[str, Any], *, ordered: bool) -> None:
    """Store a dataset version: each file is written beside its place and moved there, the manifest last.

    Args:
        rows: features, target (codes or values) and `__fold` (-1: holdout), `(n_rows, n_features + 2)`.

    Raises:
        DataError: the folder can't be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_pandas(rows, preserve_index=False)
    table = table.replace_schema_metadata({**table.schema.metadata, _ORDERED: json.dumps(ordered).encode()})
    held_out = rows[FOLD].to_numpy() == HOLDOUT
    for split, chosen in zip(SPLITS, (~held_out, held_out), strict=True):
        _put(f"{ref.uri}/{split}.parquet", partial(parquet.write_table, table.filter(pa.array(chosen))))
    _put(f"{ref.uri}/profile.json", lambda out: out.write(json.dumps(profile).encode()))
    _put(f"{ref.uri}/manifest.json", lambda out: out.write(ref.model_dump_json(indent=2).encode()))


def delete(ref: DatasetRef) -> None:
    """Delete the files of a dataset version, the manifest first: what is left of it isn't taken for a version.

    Raises:
        DataError: the folder can't be written.
    """
    with _writable(ref.uri):
        filesystem, path = _open(ref.uri)
        with suppress(FileNotFoundError):
            filesystem.delete_file(f"{path}/manifest.json")
        with suppress(FileNotFoundError):
            filesystem.delete_dir(path)


def is_complete(ref: DatasetRef) -> bool:
    """Whether the version's files are there, whole, and hold the rows that the reference says."""
    from pyarrow import parquet

    try:
        read_profile(ref)
        if _get(f"{ref.uri}/manifest.json") is None:
            return False
        filesystem, path = _open(ref.uri)
        counted = (parquet.read_metadata(f"{path}/{s}.parquet", filesystem=filesystem).num_rows for s in SPLITS)
        return list(counted) == [ref.rows[split] for split in SPLITS]
    except (DataError, OSError, ValueError):
        return False


def load_dataset(ref: DatasetRef, split: Split = "development") -> Dataset:
    """The rows of one split, in the order in which they were stored.

    Raises:
        DataError: the file isn't there, or isn't whole.
    """
    table = _read(ref, split)
    frame: pd.DataFrame = table.to_pandas()
    return Dataset(
        ref=ref,
        X=frame[list(ref.table.features)],
        y=frame[ref.table.target].to_numpy(dtype="float64" if ref.table.task == "regression" else "int64"),
        fold=frame[FOLD].to_numpy(dtype="int64"),
        ordered=json.loads(table.schema.metadata[_ORDERED]),
    )


def read_profile(ref: DatasetRef) -> dict[str, Any]:
    """The profile stored with a dataset version.

    Raises:
        DataError: the file isn't there, or isn't whole.
    """
    content = _get(f"{ref.uri}/profile.json")
    try:
        stored: dict[str, Any] = json.loads(content or b"")
    except ValueError as err:
        raise _unreadable(ref, "profile.json", err) from err
    return stored


def read_blob(ref: DatasetRef, key: str) -> bytes | None:
    """What `write_blob` kept under this key beside the dataset version, if anything."""
    return _get(f"{ref.uri}/blobs/{key}")


def write_blob(ref: DatasetRef, key: str, content: bytes) -> None:
    """Keep bytes beside the dataset version, whole or not at all: a cache that all workers share.

    Raises:
        DataError: the folder can't be written.
    """
    _put(f"{ref.uri}/blobs/{key}", lambda out: out.write(content))


def _read(ref: DatasetRef, split: Split) -> pa.Table:
    from pyarrow import parquet

    filesystem, path = _open(ref.uri)
    try:
        return parquet.read_table(f"{path}/{split}.parquet", filesystem=filesystem)
    except (OSError, ValueError) as err:
        raise _unreadable(ref, f"{split}.parquet", err) from err


def _unreadable(ref: DatasetRef, name: str, err: Exception) -> DataError:
    return DataError(
        f"dataset version {ref.use_case}/{ref.fingerprint[:12]} must have a whole file {ref.uri}/{name}, but it can't "
        f"be read ({err}); run DataPrepFlow again, which writes what is missing, or point EVERTUNE_DATA_ROOT "
        "to where the version is"
    )


def _get(location: str) -> bytes | None:
    filesystem, path = _open(location)
    try:
        with filesystem.open_input_stream(path) as file:
            return bytes(file.read())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _put(location: str, write_to: Callable[[Any], object]) -> None:
    """Write a file beside its place, then move it there: readers see the old one or the new one, never a part."""
    with _writable(location):
        filesystem, path = _open(location)
        filesystem.create_dir(path.rpartition("/")[0], recursive=True)
        beside = f"{path}.{uuid4().hex}"
        try:
            with filesystem.open_output_stream(beside) as out:
                write_to(out)
            filesystem.move(beside, path)
        except BaseException:
            with suppress(OSError):
                filesystem.delete_file(beside)
            raise


@contextmanager
def _writable(location: str) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise DataError(
            f"dataset versions must go to a folder that can be written, but {location} can't be ({err}); set "
            "EVERTUNE_DATA_ROOT to a folder or s3:// location that can, or EVERTUNE_HOME to another home"
        ) from err


def _open(location: str) -> tuple[Any, str]:
    """The file system of a location, and the path in it. A location is an absolute path or a URI such as `s3://…`."""
    from pyarrow import fs

    if "://" not in location:
        return fs.LocalFileSystem(), location
    filesystem, path = fs.FileSystem.from_uri(location)
    return filesystem, path
