"""Digests of a model version's files: taken at its registration, checked before anything of it is opened."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from shared.errors import UnloadableModelError

# What MLflow and Python add to the folder that MLflow loads a version from. Evertune's loader opens none of it, but
# MLflow runs bytecode unread, in place of the source, so `evertune models verify` deletes that.
BYTECODE = "__pycache__"
_ADDED = re.compile(rf"registered_model_meta|{BYTECODE}/[^/]+\.pyc")


def of_folder(folder: Path) -> dict[str, str]:
    """SHA-256, in hex, of each file below a folder, by its path in it.

    Raises:
        UnloadableModelError: there is more than plain files, such as a link, whose content is anybody's.
    """
    parts = [path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir()]
    names = {path.relative_to(folder).as_posix(): path for path in parts}
    return {name: _digest(name, path) for name, path in names.items() if not _ADDED.fullmatch(name)}


def difference(recorded: Mapping[str, str], found: Mapping[str, str]) -> str:
    """What is wrong with the files that were found, by name; empty where they are those on record."""
    faults = {
        "changed": [name for name in recorded.keys() & found.keys() if recorded[name] != found[name]],
        "missing": recorded.keys() - found.keys(),
        "not on record": found.keys() - recorded.keys(),
    }
    return "; ".join(f"{fault}: {', '.join(sorted(names))}" for fault, names in faults.items() if names)


def _digest(name: str, path: Path) -> str:
    if path.is_symlink() or not path.is_file():
        raise UnloadableModelError(
            f"a version must be made of plain files, but {name} is a link or a device; put the file itself there"
        )
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
