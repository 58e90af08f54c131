"""One embedded PostgreSQL for a whole test session; each test gets databases of its own, cloned from templates."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from shared.settings import settings
from shared.storage import embedded
from shared.storage.database import sqlalchemy_url
from shared.storage.studies import open_storage

# Tests kill processes, never the machine: the page cache is durable enough, and five times as fast.
FAST = ("fsync = off", "synchronous_commit = off", "full_page_writes = off", "max_connections = 300")


class Server:
    """The session's PostgreSQL. Templates are databases that nobody is connected to."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def url(self, name: str) -> str:
        return embedded.url(self.home, name)

    @contextmanager
    def fresh(self, template: str) -> Iterator[str]:
        """URL of a new database with the tables of a template, dropped afterwards."""
        name = f"{template}_{uuid4().hex[:12]}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url(name)
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        with embedded.connect(self.home, "postgres") as connection:
            connection.execute(statement)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """An embedded PostgreSQL of the session's own, in a path short enough for its socket."""
    home = Path(tempfile.mkdtemp(prefix="evertune-"))
    with embedded.connect(home, "postgres") as connection:
        for setting in FAST:
            connection.execute(f"ALTER SYSTEM SET {setting}")
    embedded.stop(home)
    embedded.connect(home, "postgres").close()
    try:
        yield Server(home)
    finally:
        embedded.stop(home)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def evertune_template(server: Server) -> str:
    """A database with Evertune's tables and Optuna's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVERTUNE_DATABASE_URL", server.url("evertune"))
        settings.cache_clear()
        open_storage().engine.dispose()
    settings.cache_clear()
    return "evertune"


@pytest.fixture(scope="session")
def mlflow_template(server: Server) -> str:
    """A database with MLflow's tables, which take it seconds to create, and no experiment yet."""
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

    embedded.connect(server.home, "mlflow").close()
    engine = create_sqlalchemy_engine(sqlalchemy_url(server.url("mlflow")))
    _initialize_tables(engine)
    engine.dispose()
    return "mlflow"


@pytest.fixture
def database(server: Server, evertune_template: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a database of the test's own, which EVERTUNE_DATABASE_URL names: for tests that need no more."""
    with server.fresh(evertune_template) as url:
        monkeypatch.setenv("EVERTUNE_DATABASE_URL", url)
        settings.cache_clear()
        yield url
    settings.cache_clear()


@pytest.fixture
def home(
    server: Server, evertune_template: str, mlflow_template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A fresh EVERTUNE_HOME, databases of its own for Evertune and MLflow, and Metaflow's files inside it."""
    folder = tmp_path / "home"
    folder.mkdir()
    with server.fresh(evertune_template) as url, server.fresh(mlflow_template) as mlflow_url:
        monkeypatch.setenv("EVERTUNE_HOME", str(folder))
        monkeypatch.setenv("EVERTUNE_DATABASE_URL", url)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlalchemy_url(mlflow_url))
        monkeypatch.setenv("METAFLOW_USER", "tester")
        monkeypatch.setenv("METAFLOW_HOME", str(folder / "metaflowconfig"))
        monkeypatch.setenv("METAFLOW_DATASTORE_SYSROOT_LOCAL", str(folder))
        settings.cache_clear()
        yield folder
    settings.cache_clear()
