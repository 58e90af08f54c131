"""The notebooks, run from top to bottom as a user does, in their own folders."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from shared.registry import aliases, client
from shared.storage.ledger import Ledger


@pytest.mark.parametrize(("variant", "use_case"), [("classical", "breast_cancer"), ("deep", "digits")])
def test_a_notebook_tunes_its_own_objective_and_cleans_up(
    home: Path, checkout: Path, variant: str, use_case: str, request: pytest.FixtureRequest
):
    del home
    if variant == "deep":  # that all starts anew, too, is shown by the other one
        request.getfixturevalue("forked")
    path = checkout / f"flows/{variant}_hpo/interactive.ipynb"
    notebook = nbformat.read(path, as_version=4)

    NotebookClient(notebook, resources={"metadata": {"path": path.parent}}).execute()

    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("best" in output.get("text", "") or "10 trials" in output.get("text", "") for output in shown)
    assert any("vega" in output.get("data", {}).get("text/html", "") for output in shown), "a chart is drawn"
    assert Ledger().newest_dataset(use_case) is not None
    assert Ledger().entries(use_case) == []
    assert client.versions(f"{use_case}-{variant}") == []
    assert client.by_alias(f"{use_case}-{variant}", aliases.CHALLENGER) is None


def test_notebooks_are_kept_without_outputs():
    for path in Path(__file__).parents[2].glob("flows/*/*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), path
