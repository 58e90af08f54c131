"""What the environment says of this machine, read once."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.errors import ConfigError
from shared.settings import Settings


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, and no variable that says where its files are."""
    (tmp_path / "obproject.toml").touch()
    (tmp_path / "flows").mkdir()
    for name in ("EVERTUNE_HOME", "EVERTUNE_DATA_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "home"), [(None, ".evertune"), ("here", "here"), ("./a/b", "a/b"), ("../beside", "../beside")]
)
def test_the_home_is_one_folder_from_wherever_it_is_asked(
    project: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, home: str
):
    if given:
        monkeypatch.setenv("EVERTUNE_HOME", given)
    at_root = Settings()
    monkeypatch.chdir(project / "flows")
    below = Settings()
    assert at_root.home == below.home == project / home
    assert at_root.datasets_uri == str(project / home / "datasets")


def test_an_absolute_home_stays_as_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVERTUNE_HOME", "/var/tmp/evertune")
    assert Settings().home == Path("/var/tmp/evertune")


@pytest.mark.parametrize(
    ("runtime", "remote"), [(None, False), ("local", False), ("kubernetes", True), ("aws-batch", True)]
)
def test_a_task_of_a_cluster_is_remote_and_a_notebook_in_a_pod_is_not(
    monkeypatch: pytest.MonkeyPatch, runtime: str | None, remote: bool
):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")  # any pod has it, also one that stays
    monkeypatch.delenv("METAFLOW_RUNTIME_ENVIRONMENT", raising=False)
    if runtime:
        monkeypatch.setenv("METAFLOW_RUNTIME_ENVIRONMENT", runtime)
    assert Settings().remote == remote


def test_a_data_root_with_credentials_is_refused_without_telling_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVERTUNE_DATA_ROOT", "s3://key:hunter2@bucket/datasets")
    with pytest.raises(ConfigError, match="EVERTUNE_DATA_ROOT must have no credentials in it") as refused:
        _ = Settings().datasets_uri
    assert "hunter2" not in str(refused.value)
