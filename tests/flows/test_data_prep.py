"""DataPrepFlow by itself, through Metaflow's Runner, on the first rows of a small source."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from shared.config import load_use_case
from shared.data.store import is_complete, load_dataset
from shared.events.metaflow_api import Runner
from shared.storage.ledger import Ledger

ROOT = Path(__file__).parents[2]


def run(n_rows: int):
    """The finished run on the first rows of breast_cancer, and its log."""
    use_case = load_use_case(ROOT / "configs/breast_cancer.toml", [f"data.rows={n_rows}", "tuning.folds=3"])
    config = use_case.model_dump(mode="json", exclude_none=True)
    flow = str(ROOT / "flows/data_prep/flow.py")
    with Runner(flow, show_output=False, cwd=str(ROOT), config_value=[("use_case", config)]).run() as running:
        assert running.status == "successful", running.stdout + running.stderr
        return running.run, running.stdout


def shown(card: Path) -> str:
    """What a card shows, as the JSON that Metaflow puts into its page."""
    (packed,) = re.findall(r'__MF_DATA__\["[^"]+"\] = "([^"]+)"', card.read_text())
    return base64.b64decode(packed).decode()


@pytest.mark.usefixtures("forked")
def test_a_run_records_a_version_with_a_card_and_the_next_finds_it_unchanged(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("USERNAME", "tester")  # read whenever asked, METAFLOW_USER only when metaflow is imported
    monkeypatch.setenv("METAFLOW_CARD_LOCALROOT", str(home / "cards"))  # else in the working directory
    first, log = run(200)
    version = Ledger().newest_dataset("breast_cancer")
    assert first.data.dataset == version
    assert not first.data.unchanged
    assert {f"fingerprint:{version.fingerprint[:12]}", "use_case:breast_cancer"} <= first.tags
    assert f"200 rows, {version.rows['development']} development / {version.rows['holdout']} holdout" in log
    assert is_complete(version)
    assert Path(version.uri).is_relative_to(home)
    assert len(load_dataset(version).y) == version.rows["development"]
    card = shown(next(home.rglob(f"{first.id}/**/cards/*.html")))
    assert "Breast cancer (diagnostic)" in card
    assert "Distributions of the features" in card

    second, log = run(200)
    assert second.data.dataset == version
    assert second.data.unchanged
    assert "unchanged" in second.tags
    assert "unchanged since" in log
    assert Ledger().datasets("breast_cancer") == [version]
