"""A project's production token, while several flows are deployed at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from metaflow.plugins.aws.step_functions.production_token import load_token, store_token

from shared.events.argo import tokens

PROJECT = "mfprj-abc"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("METAFLOW_TOKEN_HOME", raising=False)
    monkeypatch.setenv("METAFLOW_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def as_process(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_a_token_that_one_process_is_writing_is_whole_for_the_others(home: Path, monkeypatch: pytest.MonkeyPatch):
    store_token(PROJECT, "old")
    with tokens.homes(2) as (first, second):
        Path(first["METAFLOW_TOKEN_HOME"], PROJECT).write_text("")  # opened for writing, as Metaflow does
        as_process(monkeypatch, second)
        assert load_token(PROJECT) == "old"
        store_token(PROJECT, "new")
        Path(first["METAFLOW_TOKEN_HOME"], PROJECT).unlink()

    monkeypatch.delenv("METAFLOW_TOKEN_HOME")
    assert load_token(PROJECT) == "new"
    assert [file.name for file in home.iterdir()] == [PROJECT]


def test_the_first_token_of_a_project_is_kept(home: Path, monkeypatch: pytest.MonkeyPatch):
    with tokens.homes(1) as (only,):
        as_process(monkeypatch, only)
        store_token(PROJECT, "made")
    monkeypatch.delenv("METAFLOW_TOKEN_HOME")
    assert load_token(PROJECT) == "made"
    assert [file.name for file in home.iterdir()] == [PROJECT]
