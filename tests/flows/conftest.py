"""Runs `evertune` and flows as a user does: as commands, from the project's root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXTRA_PATH: tuple[str, ...] = ()
IRIS = """
name = "iris"
title = "Iris"
[data]
source = "sklearn:iris"
target = "target"
[tuning]
metric = "accuracy"
"""  # the beginning of a config; folds and variants follow
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project to run in. Metaflow keeps runs and cards in its `.metaflow`, as it does for users."""
    monkeypatch.delenv("METAFLOW_DATASTORE_SYSROOT_LOCAL", raising=False)
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("flows", "shared", "configs", "obproject.toml"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, folder / name)
    return folder


@pytest.fixture
def evertune(home: Path) -> Command:
    """`evertune(*arguments, ok=True)`: the command, whose exit status must say so."""
    del home  # its variables are in the environment

    def run(*arguments: str, ok: bool = True, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        return execute(sys.executable, "-m", "shared.cli", *arguments, ok=ok, cwd=cwd)

    return run


@pytest.fixture
def flow(home: Path) -> Command:
    """`flow(folder, config, *arguments, ok=True)`: one flow run by itself."""
    del home

    def run(folder: str, config: str | Path, *arguments: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        file = f"flows/{folder}/flow.py"
        return execute(
            sys.executable, file, "--no-pylint", "--config", "use_case", str(config), "run", *arguments, ok=ok
        )

    return run


def execute(*command: str, ok: bool, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"COLUMNS": "200", "PYTHONPATH": os.pathsep.join([*EXTRA_PATH, str(cwd)])}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is ok, f"{command} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done
