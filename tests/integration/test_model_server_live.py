"""The live model on a real registry: loaded natively, warmed, followed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deployments.model_server.live import LiveModel
from shared import model
from shared.model import Member, save
from shared.registry import aliases, client
from shared.settings import settings
from shared.storage import services
from shared.storage.ledger import Ledger

pytestmark = pytest.mark.usefixtures("home")

NAME = "iris"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def promote(rows, system):
    """Registers a version with some files and lets `champion` stand at it."""

    def call(files=None, example=rows[:3]) -> int:
        facts = {"use_case": NAME, "metrics": {}, "params": {}, "lineage": {"dataset": "0123456789ab"}}
        version = client.register(
            NAME, files or save(system), example=example, predictions=system.predict(rows[:3]), **facts
        )
        aliases.point(NAME, aliases.CHAMPION, version.version)
        return version.version

    return call


def looked(live: LiveModel) -> int | None:
    live.look()
    return live.served and live.served.version.version


def test_the_champion_goes_live_with_its_columns_and_its_example_and_moves_with_the_alias(promote, rows, system):
    live = LiveModel(NAME)
    assert looked(live) is None
    assert live.trouble == "iris has no champion; `evertune run iris` makes one"
    assert [promote(), looked(live)] == [1, 1]
    served = live.served
    pd.testing.assert_frame_equal(served.example, rows[:3])
    assert served.version.lineage["dataset"] == "0123456789ab"
    assert {kind.words for kind in served.columns.kinds.values()} == {"a number"}
    np.testing.assert_array_equal(served.system.predict_proba(rows), system.predict_proba(rows))
    assert [promote(), looked(live)] == [2, 2]
    aliases.point(NAME, aliases.CHAMPION, 1)
    assert (looked(live), live.swaps, live.trouble) == (1, 2, "")


def test_a_champion_goes_live_without_mlflow_and_what_its_files_do_not_need(promote):
    promote()
    code = (
        "import sys; from deployments.model_server.live import LiveModel; live = LiveModel('iris'); live.look()\n"
        "heavy = {'mlflow', 'sqlalchemy', 'torch', 'xgboost'}\n"
        "print(live.served.version.version, sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1 []"


def test_a_champion_that_somebody_moved_by_hand_is_in_the_promotion_log(promote):
    live = LiveModel(NAME)
    assert [promote(), looked(live)] == [1, 1]
    assert [(entry.version, entry.promoted) for entry in Ledger().promotions(NAME)] == [(1, True)]
    assert [promote(), looked(live), looked(live)] == [2, 2, 2]
    assert [entry.version for entry in Ledger().promotions(NAME)] == [1, 2]


def test_a_champion_with_a_torch_member_goes_live_and_predicts_one_row_as_many(promote, rows, system):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
    blend = replace(system, members=[*system.members, Member("net", net)], weights=[0.5, 0.5])
    live = LiveModel(NAME)
    assert [promote(save(blend)), looked(live)] == [1, 1]
    found = live.served.system
    np.testing.assert_allclose(found.scores(rows), blend.scores(rows), atol=1e-6)
    np.testing.assert_allclose(found.scores(rows[:1]), found.scores(rows)[:1], atol=1e-6)


def test_a_version_that_does_not_load_or_does_not_predict_its_example_never_goes_live(promote, rows, system):
    live = LiveModel(NAME)
    assert [promote(), looked(live)] == [1, 1]
    damaged = promote({**save(system), "members/0/model.skops": b"no skops"})
    assert looked(live) == 1
    assert f"version {damaged} is not let live: can't load models:/iris/{damaged}: a saved system must" in live.trouble
    nothing = promote(example=rows[:3].assign(**{rows.columns[0]: np.nan}))
    assert looked(live) == 1
    assert f"version {nothing} is not let live" in live.trouble
    assert "contains NaN" in live.trouble
    assert (promote(), looked(live), live.trouble) == (4, 4, "")


def test_memory_that_was_short_says_nothing_about_a_version(promote, monkeypatch):
    def short(_: bytes) -> None:
        raise MemoryError("no room")

    live = LiveModel(NAME)
    assert [promote(), looked(live), promote()] == [1, 1, 2]
    with monkeypatch.context() as patch:
        patch.setattr(model, "_load_skops", short)
        assert (looked(live), live.trouble) == (1, "looking for the champion failed: MemoryError('no room')")
    assert (looked(live), live.trouble) == (2, "")


def test_a_version_whose_files_are_away_goes_live_when_they_are_back(promote):
    live = LiveModel(NAME)
    promote()
    (folder,) = Path(services.settings().home, "mlflow", NAME).glob("models/*")
    away = folder.rename(folder.with_name("away"))
    assert looked(live) is None
    assert "the registry doesn't answer: can't load models:/iris/1" in live.trouble
    away.rename(folder)
    assert (looked(live), live.trouble) == (1, "")


def test_it_goes_on_while_the_registry_is_away_and_follows_again(promote, monkeypatch):
    live = LiveModel(NAME)
    promote()
    assert looked(live) == 1
    promote()
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg://ann:hidden@127.0.0.1:1/mlflow")
        settings.cache_clear()
        assert looked(live) == 1
        assert "the registry doesn't answer: MLflow must be reachable, but 127.0.0.1:1 isn't" in live.trouble
        assert "hidden" not in live.trouble
    settings.cache_clear()
    assert (looked(live), live.trouble) == (2, "")
