"""The embedded PostgreSQL where it can't be seen or entered: it is left alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.errors import ServiceError
from shared.storage import embedded
from tests.conftest import copy_home, remove_home


@pytest.fixture
def home(pristine_home: Path) -> Iterator[Path]:
    folder = copy_home(pristine_home)
    embedded.connect(folder, "evertune").close()
    yield folder
    remove_home(folder)


def test_a_living_server_of_another_container_is_left_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "START_TIMEOUT_S", 1.0)
    pid_file = home / "postgres" / "postmaster.pid"
    here = pid_file.read_text()
    there = here.replace(here.split()[0], "4194303", 1)  # a number that no process of ours has
    with embedded.connect(home, "postgres") as connection:
        connection.execute("ALTER DATABASE evertune ALLOW_CONNECTIONS false")
        pid_file.write_text(there)
        with pytest.raises(ServiceError, match=r"but doesn't \(a server listens there, but lets nobody in\)"):
            embedded.connect(home, "evertune")
        assert pid_file.read_text() == there
        connection.execute("ALTER DATABASE evertune ALLOW_CONNECTIONS true")
    embedded.connect(home, "evertune").close()
    pid_file.write_text(here)
