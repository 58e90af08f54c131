"""The model server while what it follows is away: it goes on, says so, and follows again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from shared.model import Member, Signature, System
from shared.registry import aliases
from shared.settings import settings
from shared.storage import embedded
from shared.storage.database import sqlalchemy_url
from shared.storage.ledger import Ledger
from tests.conftest import Server, copy_home, remove_home
from tests.production.test_model_server import ROOT, free_port, promote, serve, until

ROWS, KINDS = load_iris(return_X_y=True, as_frame=True)
SYSTEM = System(
    Signature(tuple(ROWS.columns), (4,), (0, 1, 2)), [Member("one", LogisticRegression(max_iter=500).fit(ROWS, KINDS))]
)
ASKED = {"rows": ROWS[:3].to_numpy().tolist()}


@pytest.fixture
def away_s(request: pytest.FixtureRequest) -> float:
    """How long it is away: a minute, where tests are repeated to see what lasts."""
    return 60.0 if request.config.getoption("repetitions") > 1 else 5.0


@pytest.fixture
def own_home(pristine_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home with an embedded PostgreSQL of its own, which may be stopped."""
    home = copy_home(pristine_home)
    for variable in ("EVERTUNE_DATABASE_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("EVERTUNE_HOME", str(home))
    settings.cache_clear()
    yield home
    settings.cache_clear()
    remove_home(home)


class Served:
    """A server of the use case `digits`, asked over HTTP."""

    def __init__(self, address: str) -> None:
        self.address = address

    def version(self) -> Any:
        answer = requests.post(f"{self.address}/predict", json=ASKED, timeout=10)
        answer.raise_for_status()
        return answer.json()["version"]

    def trouble(self) -> str:
        ready = requests.get(f"{self.address}/readyz", timeout=10)
        ready.raise_for_status()
        return str(ready.json()["models"]["digits"]["trouble"])

    def goes_on(self, version: int, for_s: float, saying: str) -> None:
        end = time.monotonic() + for_s
        while time.monotonic() < end:
            assert (self.version(), saying in self.trouble()) == (version, True)
            time.sleep(0.1)


def logged() -> list[int]:
    """The versions that the server has found as champion."""
    return [entry.version for entry in Ledger().promotions("digits")]


@contextmanager
def serving(output: Path) -> Iterator[Served]:
    port = free_port()
    served = Served(f"http://127.0.0.1:{port}")
    with serve("digits", "--port", str(port), output=output):
        until(lambda: requests.get(f"{served.address}/readyz").ok)
        yield served


def test_while_the_embedded_database_is_stopped_it_goes_on_and_does_not_start_it(
    own_home: Path, away_s: float, tmp_path: Path
) -> None:
    promote(SYSTEM, ROWS)
    with serving(tmp_path / "output") as served:
        assert (served.version(), served.trouble()) == (1, "")
        embedded.stop(own_home)
        until(lambda: "the embedded PostgreSQL" in served.trouble())
        served.goes_on(1, away_s, saying="start it with `evertune services start`")
        assert not embedded.answers(own_home)
        embedded.connect(own_home, "postgres").close()
        until(lambda: served.trouble() == "")
        promote(SYSTEM, ROWS)
        until(lambda: served.version() == 2)
    assert "Traceback" not in (tmp_path / "output").read_text()


def test_while_evertunes_database_is_away_and_mlflow_answers_it_says_so_and_follows_what_moved_meanwhile(
    own_home: Path, server: Server, mlflow_template: str, away_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.fresh(mlflow_template) as mlflow_url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlalchemy_url(mlflow_url))
        settings.cache_clear()
        assert [promote(SYSTEM, ROWS), promote(SYSTEM, ROWS)] == [1, 2]
        with serving(tmp_path / "output") as served:
            assert (served.version(), served.trouble()) == (2, "")
            until(lambda: logged() == [2])
            embedded.stop(own_home)
            until(lambda: "the embedded PostgreSQL" in served.trouble())
            aliases.point("digits", aliases.CHAMPION, 1)
            served.goes_on(2, away_s, saying="the embedded PostgreSQL")
            embedded.connect(own_home, "postgres").close()
            until(lambda: (served.version(), served.trouble(), logged()) == (1, "", [2, 1]))
    assert "Traceback" not in (tmp_path / "output").read_text()


@contextmanager
def mlflow_server(port: int, uri: str) -> Iterator[None]:
    """MLflow's server, killed at the end with all its processes."""
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_PORT": str(port)}
    command = [sys.executable, "-m", "deployments.mlflow_server"]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        until(lambda: requests.get(f"http://127.0.0.1:{port}/health").ok)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.usefixtures("home")
def test_while_mlflows_server_is_dead_it_goes_on_and_follows_the_next_one(
    away_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, uri = free_port(), os.environ["MLFLOW_TRACKING_URI"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    settings.cache_clear()
    with ExitStack() as first:
        first.enter_context(mlflow_server(port, uri))
        assert [promote(SYSTEM, ROWS), promote(SYSTEM, ROWS)] == [1, 2]
        with serving(tmp_path / "output") as served:
            assert (served.version(), served.trouble()) == (2, "")
            first.close()
            until(lambda: "the registry doesn't answer" in served.trouble())
            served.goes_on(2, away_s, saying=f"127.0.0.1:{port}")
            with mlflow_server(port, uri):
                until(lambda: served.trouble() == "")
                aliases.point("digits", aliases.CHAMPION, 1)
                until(lambda: served.version() == 1)
    assert "Traceback" not in (tmp_path / "output").read_text()
