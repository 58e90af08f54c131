"""One embedded PostgreSQL for a whole test session; each test gets empty tables, or databases of its own."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

# Read when BLAS and torch load. Threads that spin are costly where several processes are busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from shared.settings import settings
from shared.storage import PostgresStorage, embedded
from shared.storage.database import sqlalchemy_url
from tests import fork_server

# Tests kill processes, never the machine: what a commit has written to the page cache is durable enough.
FAST = ("fsync = off", "full_page_writes = off", "max_connections = 300")

# Ten times as fast as a new database. Whoever is still connected is a leftover of the test before.
EMPTY_ALL_TABLES = """
DO $$
DECLARE name text;
BEGIN
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid();
    SET LOCAL session_replication_role = replica; -- no triggers: neither foreign keys nor append_only
    FOR name IN SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
        WHERE schemaname IN ('public', 'evertune') AND tablename NOT IN ('alembic_version', 'version_info')
    LOOP
        EXECUTE 'DELETE FROM ' || name;
    END LOOP;
END $$
"""


@pytest.fixture(autouse=True)
def quiet_logs() -> Iterator[None]:
    """What a test shows of the log, the next one doesn't."""
    yield
    logger = logging.getLogger("shared")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


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
def pristine_home() -> Iterator[Path]:
    """A home whose PostgreSQL is stopped and holds nothing: a copy of it starts in a fraction of a first start."""
    home = Path(tempfile.mkdtemp(prefix="evertune-"))
    with embedded.connect(home, "postgres") as connection:
        for setting in FAST:
            connection.execute(f"ALTER SYSTEM SET {setting}")
    embedded.stop(home)
    yield home
    shutil.rmtree(home)


def copy_home(home: Path) -> Path:
    """A copy, owners included, in a path short enough for a socket."""
    copy = Path(tempfile.mkdtemp(prefix="evertune-"))
    subprocess.run(["cp", "-a", home / "postgres", copy], check=True)
    return copy


def remove_home(home: Path) -> None:
    embedded.stop(home)
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def server(pristine_home: Path) -> Iterator[Server]:
    """An embedded PostgreSQL of the session's own."""
    home = copy_home(pristine_home)
    embedded.connect(home, "postgres").close()
    yield Server(home)
    remove_home(home)


@pytest.fixture(scope="session")
def evertune_template(server: Server) -> str:
    """A database with Evertune's tables and Optuna's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVERTUNE_DATABASE_URL", server.url("evertune"))
        settings.cache_clear()
        PostgresStorage().close()
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


@pytest.fixture(scope="session")
def shared_database(server: Server, evertune_template: str) -> Iterator[str]:
    with server.fresh(evertune_template) as url:
        yield url


@pytest.fixture
def database(shared_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a database with empty tables, which EVERTUNE_DATABASE_URL names: for tests that need no more."""
    with psycopg.connect(shared_database, autocommit=True) as connection:
        connection.execute(EMPTY_ALL_TABLES)
    monkeypatch.setenv("EVERTUNE_DATABASE_URL", shared_database)
    settings.cache_clear()
    yield shared_database
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
        monkeypatch.setenv("USERNAME", "tester")
        monkeypatch.setenv("METAFLOW_HOME", str(folder / "metaflowconfig"))
        monkeypatch.setenv("METAFLOW_DATASTORE_SYSROOT_LOCAL", str(folder))
        settings.cache_clear()
        yield folder
    settings.cache_clear()


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a `python` that has imported all packages when it starts: see `fork_server`."""
    with fork_server.serving(tmp_path_factory.mktemp("forks")) as programs:
        yield programs


@pytest.fixture
def forked(forks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test starts by `sys.executable`, and all that is started by that, is forked.

    For what is said of flows and commands. How they start, import and end is shown without.
    """
    monkeypatch.setattr(sys, "executable", str(forks / "python"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--repetitions", type=int, default=1, help="how often to run each test of endurance")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "repetition" in metafunc.fixturenames:
        metafunc.parametrize("repetition", range(metafunc.config.getoption("repetitions")), indirect=True)


@pytest.fixture
def repetition(request: pytest.FixtureRequest) -> int:
    """Which one this is; a test that asks for it runs so often."""
    return int(request.param)
