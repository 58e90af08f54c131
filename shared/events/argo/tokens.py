"""Metaflow's file of a project's production token, kept whole while several of its flows are deployed at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

TOKENS = "mfprj-*"  # a file for each project and branch


@contextmanager
def homes(count: int) -> Iterator[list[dict[str, str]]]:
    """For each of `count` processes a variable that leads to copies of its own of the tokens.

    Metaflow rewrites a token's file in place, and a process that reads it meanwhile fails. All flows of a project and
    branch have one token, so that the file of any process is kept.
    """
    home = _home()
    home.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".tokens-", dir=home) as tmp:
        copies = [Path(tmp, str(i)) for i in range(count)]
        for copy in copies:
            copy.mkdir()
            for token in home.glob(TOKENS):
                shutil.copy(token, copy)
        yield [{"METAFLOW_TOKEN_HOME": str(copy)} for copy in copies]
        for copy in copies:
            for token in copy.glob(TOKENS):
                token.replace(home / token.name)


def _home() -> Path:
    home = os.environ.get("METAFLOW_TOKEN_HOME") or os.environ.get("METAFLOW_HOME") or "~/.metaflowconfig"
    return Path(home).expanduser()
