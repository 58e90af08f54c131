"""Where a model version comes from."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.registry.lineage import from_tags, git_commit, lineage, to_tags


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory outside of any checkout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    git_commit.cache_clear()
    yield tmp_path
    git_commit.cache_clear()


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_lineage_comes_back_from_tags_among_others():
    facts = {"dataset": "abc", "run": "SystemTuneFlow/7"}
    assert from_tags({**to_tags(facts), "mlflow.source": "x"}) == facts
    assert set(to_tags(facts)) == {"evertune.dataset", "evertune.run"}


def test_that_a_version_is_a_result_is_no_part_of_its_lineage_but_why_it_was_refused_is():
    assert from_tags({"evertune.result": "true", "evertune.refused": "it came too late"}) == {
        "refused": "it came too late"
    }


@pytest.mark.usefixtures("folder")
def test_facts_that_nobody_knows_are_left_out():
    facts = lineage(dataset="abc", run="SystemTuneFlow/7", upstream=["ClassicalHPOFlow/3", "DeepHPOFlow/4"], trial=0)
    assert facts == {
        "dataset": "abc",
        "run": "SystemTuneFlow/7",
        "upstream": "ClassicalHPOFlow/3,DeepHPOFlow/4",
        "trial": "0",
        "git_commit": "unknown",
    }


def test_the_commit_is_that_of_the_project_and_says_when_files_differ(folder):
    git("init", "-q")
    (folder / "a.py").write_text("x = 1\n")
    git("add", "a.py")
    git("commit", "-qm", "first")
    head = git("rev-parse", "HEAD")
    assert git_commit() == head
    git_commit.cache_clear()
    (folder / "a.py").write_text("x = 2\n")
    assert git_commit() == f"{head}-dirty"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("changed", "known"), [(False, "abc"), (True, "abc-dirty")])
def test_a_pod_knows_the_commit_that_its_flow_was_deployed_from(monkeypatch, changed, known):
    packed = {"flow_name": "DataPrepFlow", "commit_sha": "abc", "has_uncommitted_changes": changed}
    monkeypatch.setenv("METAFLOW_VERSION", json.dumps(packed))
    assert git_commit() == known
