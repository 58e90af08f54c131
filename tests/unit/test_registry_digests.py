"""Digests of the files of a version."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shared.errors import UnloadableModelError
from shared.registry.digests import of_folder


@pytest.mark.parametrize("what", ["a link", "a link to a folder", "a pipe"])
def test_what_is_no_plain_file_has_no_digest(what: str, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    folder = tmp_path / "version"
    folder.mkdir()
    (folder / "plain").write_text("")
    assert list(of_folder(folder)) == ["plain"]
    if what == "a pipe":
        os.mkfifo(folder / "model.skops")
    else:
        (folder / "model.skops").symlink_to(tmp_path / "outside" if "folder" in what else folder / "plain")
    with pytest.raises(UnloadableModelError, match=r"made of plain files, but model\.skops is a link or a device"):
        of_folder(folder)


def test_what_mlflow_and_python_leave_where_they_load_a_version_counts_for_nothing(tmp_path: Path) -> None:
    for name in ("registered_model_meta", "__pycache__/served.cpython-311.pyc", "served.py", "a/__pycache__/b.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert of_folder(tmp_path).keys() == {"served.py", "a/__pycache__/b.pyc"}
