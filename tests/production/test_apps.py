"""The apps beside the flows: served, readable for no one else, and ended with their command."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import optuna
import psutil
import pytest
import yaml

from shared.registry import client
from shared.settings import settings, use_platform_database
from shared.storage import PostgresStorage

ROOT = Path(__file__).parents[2]
PASSWORD = "hunter2"

# The keys that `outerbounds app deploy` knows (outerbounds 0.12.53); another one is dropped in silence.
KNOWN_KEYS = {
    "name", "port", "description", "image", "tags", "secrets", "compute_pools", "environment", "commands", "resources",
    "auth", "replicas", "dependencies", "package", "persistence",
}  # fmt: skip
KNOWN_KEYS_OF = {
    "resources": {"cpu", "memory", "gpu", "disk", "shared_memory"},
    "auth": {"type", "public"},
    "replicas": {"fixed", "min", "max", "scaling_policy"},
    "package": {"src_paths", "suffixes"},
}  # fmt: skip


@pytest.fixture
def passworded(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both services' addresses with a password, as they are elsewhere; the test's server takes any."""
    for name in ("EVERTUNE_DATABASE_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, os.environ[name].replace("//postgres@", f"//postgres:{PASSWORD}@"))
    settings.cache_clear()
    return home


def two_free_ports() -> int:
    """A port that is free, as is the next one."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


@contextmanager
def dashboard(port: int, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "shared.cli", "dashboard", "--port", str(port)]
    with output.open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def read(url: str, process: subprocess.Popen[bytes]) -> str:
    """What is at an address, once something listens there."""
    while True:
        try:
            with urlopen(url) as answer:
                return str(answer.read().decode())
        except OSError:
            assert process.poll() is None, "the command ended"
            time.sleep(0.1)


@pytest.mark.usefixtures("passworded")
def test_the_dashboard_shows_studies_and_models_and_ends_with_its_command(tmp_path: Path) -> None:
    storage = PostgresStorage()
    optuna.create_study(storage=storage, study_name="toy/classical/0/1").optimize(
        lambda trial: trial.suggest_float("x", 0, 1), n_trials=3
    )
    storage.close()
    client.champion("toy")  # creates MLflow's tables
    port, output = two_free_ports(), tmp_path / "output"
    with dashboard(port, output) as process:
        (study,) = json.loads(read(f"http://127.0.0.1:{port}/api/studies", process))["study_summaries"]
        assert study["study_name"] == "toy/classical/0/1"
        trials = json.loads(read(f"http://127.0.0.1:{port}/api/studies/{study['study_id']}", process))["trials"]
        assert [trial["state"] for trial in trials] == ["Complete"] * 3
        assert read(f"http://127.0.0.1:{port + 1}/health", process) == "OK"
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        lines = [" ".join(member.cmdline()) for member in family]
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        gone, left = psutil.wait_procs(family, timeout=20)
        assert (len(gone) >= 5, left) == (True, [])
    said = output.read_text()
    assert f"studies  http://127.0.0.1:{port}" in said
    assert f"models   http://127.0.0.1:{port + 1}" in said
    assert PASSWORD not in "\n".join([said, *lines])


@pytest.mark.usefixtures("home")
def test_a_port_that_is_taken_is_told_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with dashboard(port, tmp_path / "output") as process:
            assert process.wait() == 1
    assert (
        f"the studies must have a port of this machine that is free, but http://127.0.0.1:{port} isn't one"
        in (tmp_path / "output").read_text()
    )


@pytest.mark.parametrize("config", sorted(ROOT.glob("deployments/*/config.yml")), ids=lambda path: path.parent.name)
def test_an_app_says_nothing_that_the_platform_drops_in_silence(config: Path) -> None:
    said = yaml.safe_load(config.read_text())
    assert {"name", "port", "commands"} <= said.keys() <= KNOWN_KEYS
    for key, known in KNOWN_KEYS_OF.items():
        assert said.get(key, {}).keys() <= known
    assert said["name"] == config.parent.name.replace("_", "-")


def test_the_dashboard_on_the_platform_reads_its_own_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deployments.outerbounds import own_database

    (tmp_path / "config.json").write_text('{"METAFLOW_SERVICE_AUTH_KEY": "t0ken"}')
    monkeypatch.setenv("METAFLOW_HOME", str(tmp_path))
    assert own_database() is None
    monkeypatch.setenv("OB_PROJECT", "evertune_digits")
    assert own_database() == ("postgresql://userspace_default:t0ken@localhost:5432/userspace_default?sslmode=disable")


def test_a_platforms_database_is_asked_for_late_and_never_against_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def find() -> str:
        asked.append(1)
        return f"postgresql://app:{PASSWORD}@there/studies"

    use_platform_database(find)
    try:
        monkeypatch.delenv("EVERTUNE_DATABASE_URL", raising=False)
        settings.cache_clear()
        assert (settings().given_database_url, asked) == (None, [])
        assert settings().environment() == {"EVERTUNE_DATABASE_URL": find()}
        assert PASSWORD not in repr(settings())
        asked.clear()
        monkeypatch.setenv("EVERTUNE_DATABASE_URL", "postgresql://here/studies")
        settings.cache_clear()
        assert settings().environment() == {"EVERTUNE_DATABASE_URL": "postgresql://here/studies"}
        assert asked == []
    finally:
        use_platform_database(None)
        settings.cache_clear()
