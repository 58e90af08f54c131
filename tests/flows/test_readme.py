"""The README does what it says: its example is run as it stands, its commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from shared.cli.app import app
from shared.registry import client
from tests.flows.conftest import ROOT, Command

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def project(home: Path, checkout: Path) -> Path:
    """A copy of the project with the files that the README says to write."""
    del home
    for path, language, text in re.findall(r"`([\w/]+\.\w+)`:\n\n```(\w+)\n(.*?)```", README, re.DOTALL):
        assert language in ("python", "toml")
        (checkout / path).write_text(text)
    return checkout


@pytest.mark.usefixtures("forked")
def test_the_own_use_case_of_the_readme_ends_with_a_champion(project: Path, evertune: Command) -> None:
    assert (project / "configs" / "wine.toml").exists()
    assert "Wine cultivars" in evertune("config", "check", "wine", cwd=project).stdout
    evertune("run", "wine", cwd=project)
    champion = client.champion("wine")
    assert champion is not None

    (snippet,) = [block for block in blocks("python") if "load_model" in block]
    loads = snippet.replace("digits", "wine") + "\nprint(champion.metadata.get_input_schema())\n"
    done = subprocess.run([sys.executable, "-c", loads], cwd=project, capture_output=True, text=True, check=True)
    assert "malic_acid" in done.stdout


def test_every_command_of_the_readme_exists() -> None:
    main = get_command(app)
    known = main.commands | {group.name: group for group in app.registered_groups}  # type: ignore[attr-defined]
    used = set(re.findall(r"evertune ([a-z-]+)", README))
    assert used <= known.keys()
    targets = set(re.findall(r"make ([a-z]+)", README))
    assert targets <= set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
