"""Where rows come from: a source `<scheme>:<location>` becomes one frame, target included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from shared.config import DataConfig, did_you_mean
from shared.errors import DataError
from shared.settings import project_root, settings

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

SKLEARN = ("breast_cancer", "diabetes", "digits", "iris", "wine")
TORCHVISION = ("CIFAR10", "CIFAR100", "FashionMNIST", "KMNIST", "MNIST", "USPS")


@dataclass(frozen=True)
class Source:
    """Raw rows. `shape` is that of one row as a tensor, where rows are images: `(channels, height, width)`.

    files: that the rows were read from, those of the project by their paths in it.
    """

    frame: pd.DataFrame
    shape: tuple[int, ...] | None = None
    files: tuple[str, ...] = ()


def read(config: DataConfig) -> Source:
    """The rows of `[data] source`, the first `[data] rows` of them if the config says so.

    Raises:
        DataError: the source is unknown, isn't there, can't be read, or needs an internet that isn't there.
    """
    scheme, _, location = config.source.partition(":")
    if scheme not in _SCHEMES or not location:
        raise DataError(
            f"[data] source must be <scheme>:<location>, but is {config.source!r}{did_you_mean(scheme, list(_SCHEMES))}"
            f"; the schemes are {', '.join(f'{name}:<{what}>' for name, (what, _) in _SCHEMES.items())}"
        )
    _, reader = _SCHEMES[scheme]
    source = reader(location)
    return replace(source, frame=source.frame.head(config.rows)) if config.rows else source


def _sklearn(name: str) -> Source:
    _known("sklearn", name, SKLEARN)
    from sklearn import datasets

    frame = getattr(datasets, f"load_{name}")(as_frame=True).frame
    return Source(frame, (1, 8, 8) if name == "digits" else None)


def _torchvision(name: str) -> Source:
    """Train and test part of an image set, in this order."""
    _known("torchvision", name, TORCHVISION)
    import numpy as np
    from torchvision import datasets

    folder = settings().home / "downloads"
    try:
        parts = [getattr(datasets, name)(folder, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as err:  # URLError is an OSError; torchvision wraps some as RuntimeError
        raise DataError(
            f"torchvision:{name} is downloaded at its first use, but that failed ({err}); connect this machine to the "
            f"internet once, copy {folder} from a machine that has it, or take a source that needs no download, "
            "such as sklearn:digits"
        ) from err
    images = np.concatenate([np.asarray(part.data) for part in parts])
    return as_pixels(images, np.concatenate([np.asarray(part.targets) for part in parts]))


def as_pixels(images: np.ndarray, target: np.ndarray) -> Source:
    """Images `(n, height, width)` or `(n, height, width, channels)` as one column per pixel, channels first."""
    import pandas as pd

    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    channels, height, width = images.shape[1:]
    names = [
        f"pixel_{row}_{col}" if channels == 1 else f"pixel_{channel}_{row}_{col}"
        for channel in range(channels)
        for row in range(height)
        for col in range(width)
    ]
    frame = pd.DataFrame(images.reshape(len(images), -1), columns=names)
    return Source(frame.assign(target=target), (channels, height, width))


def _csv(location: str) -> Source:
    from pyarrow import csv

    convert = csv.ConvertOptions(strings_can_be_null=True)
    parse = csv.ParseOptions(newlines_in_values=True)
    return _read_files("csv", location, lambda file: csv.read_csv(file, convert_options=convert, parse_options=parse))


def _parquet(location: str) -> Source:
    from pyarrow import parquet

    return _read_files("parquet", location, parquet.read_table)


_SCHEMES: dict[str, tuple[str, Callable[[str], Source]]] = {
    "sklearn": ("name", _sklearn),
    "torchvision": ("name", _torchvision),
    "csv": ("path or glob", _csv),
    "parquet": ("path or glob or s3://…", _parquet),
}


def _known(scheme: str, name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        raise DataError(
            f"[data] source {scheme}:<name> must be a data set that Evertune knows, but is {scheme}:{name}"
            f"{did_you_mean(name, names)}; valid here: {', '.join(names)}"
        )


def _read_files(scheme: str, location: str, read_one: Callable[[Any], pa.Table]) -> Source:
    """The files of a path, a folder or a glob as one frame, in the order of their names."""
    tables: dict[str, pa.Table] = {}
    try:
        for path, file in _open(scheme, location):
            with file:
                tables[path] = read_one(file)
            if scheme == "csv":
                _check_is_utf8(tables[path], path)
    except (OSError, ValueError, NotImplementedError) as err:  # pyarrow's errors are one of these
        raise DataError(
            f"{scheme}:{location} must name readable {scheme} files, but: {err}; mend or remove that file, and "
            "check `[data] source`"
        ) from err
    files = (path.removeprefix(f"{project_root()}/") for path in tables)
    return Source(_as_frame(_concat(tables), scheme), files=tuple(files))


def _check_is_utf8(table: pa.Table, path: str) -> None:
    """pyarrow takes a column that isn't UTF-8 as bytes, and fails where the name of one is read."""
    import pyarrow as pa

    try:
        odd = [
            name for name, kind in zip(table.column_names, table.schema.types, strict=True) if pa.types.is_binary(kind)
        ]
    except UnicodeDecodeError as err:
        odd = [err.object.decode(errors="replace")]
    if odd:
        raise DataError(f"a CSV file must be UTF-8, but {path} isn't in the column {odd[0]!r}; save it as UTF-8")


def _open(scheme: str, location: str) -> Iterator[tuple[str, Any]]:
    from pyarrow import fs

    if "://" in location:
        filesystem, pattern = fs.FileSystem.from_uri(location)
    else:
        filesystem, pattern = fs.LocalFileSystem(), str(project_root() / location)
    paths = _matching(filesystem, pattern, scheme)
    if not paths:
        raise DataError(
            f"{scheme}:{location} must match at least one file, but nothing is at {pattern}; relative paths start at "
            f"the project's root, {project_root()}"
        )
    for path in paths:
        yield path, filesystem.open_input_file(path)


def _matching(filesystem: Any, pattern: str, suffix: str) -> list[str]:
    """Sorted paths of a file, of a folder's `*.<suffix>`, or of a glob (`*` stays in its folder, `**` doesn't)."""
    from pyarrow import fs

    if not set("*?[") & set(pattern):
        info = filesystem.get_file_info(pattern)
        if info.type != fs.FileType.Directory:
            return [pattern] if info.is_file else []
        pattern = f"{pattern.rstrip('/')}/*.{suffix}"
    parts, deep = PurePosixPath(pattern).parts, "**" in pattern
    fixed = next(i for i, part in enumerate(parts) if set("*?[") & set(part))
    selector = fs.FileSelector(
        str(PurePosixPath(*parts[:fixed])), allow_not_found=True, recursive=deep or fixed < len(parts) - 1
    )
    return sorted(
        info.path
        for info in filesystem.get_file_info(selector)
        if info.is_file
        and fnmatchcase(info.path, pattern.replace("**/", "*"))
        and (deep or info.path.count("/") == pattern.count("/"))
    )


def _concat(tables: dict[str, pa.Table]) -> pa.Table:
    import pyarrow as pa

    (first, head), *others = tables.items()
    for path, table in others:
        if sorted(table.column_names) != sorted(head.column_names):
            odd = sorted(set(table.column_names) ^ set(head.column_names)) or ["the same names, repeated"]
            raise DataError(
                f"files of one source must have the same columns, but {path} differs from {first} in: "
                f"{', '.join(odd[:10])}; mend the file, or narrow `[data] source`"
            )
    try:
        return pa.concat_tables(tables.values(), promote_options="permissive") if others else head
    except pa.ArrowException as err:
        raise DataError(
            f"files of one source must agree on the types of their columns, but {err}; mend the odd file"
        ) from err


def _as_frame(table: pa.Table, scheme: str) -> pd.DataFrame:
    """The table as a frame of plain columns: categories become their values, an index saved by pandas is left out."""
    import pyarrow as pa

    for field in table.schema:
        if pa.types.is_nested(field.type):
            raise DataError(
                f"a column must hold one value per row, but {field.name!r} holds {field.type}; flatten it in the "
                f"{scheme} file, one column per value"
            )
    unnamed_index = [name for name in table.column_names if name.startswith("__index_level_")]
    plain = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in table.schema
    ]
    table = table.cast(pa.schema(plain)).drop_columns(unnamed_index)
    frame: pd.DataFrame = table.to_pandas(ignore_metadata=True, date_as_object=False)
    return frame
