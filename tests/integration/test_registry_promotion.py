"""Moving the alias `champion`, on a real MLflow and a real PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from shared.domain import PromotionDecision
from shared.errors import RegistryError
from shared.model import Member, Signature, System, save
from shared.registry import client
from shared.registry.promotion import promote
from shared.storage.ledger import Ledger

pytestmark = pytest.mark.usefixtures("home", "registered")

NAME = "iris"
YES = PromotionDecision(promote=True, reason="better by 1", figures={"gain": 1.0})
NO = PromotionDecision(promote=False, reason="not better", figures={"gain": -1.0})


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    rows, y = load_iris(return_X_y=True, as_frame=True)
    model = LogisticRegression(max_iter=999).fit(rows, y)
    return save(System(Signature(tuple(rows.columns), (4,), (0, 1, 2)), [Member("one", model)]))


@pytest.fixture
def registered(files):
    """Versions 1, 2 and 3 of a registered model, none of them champion."""
    rows = load_iris(as_frame=True).data[:2]
    facts = {"use_case": NAME, "metrics": {}, "params": {}, "lineage": {}}
    for _ in range(3):
        client.register(NAME, files, example=rows, predictions=rows.iloc[:, 0].to_numpy(), **facts)


def aliases() -> dict[str, int]:
    found = {alias: client.by_alias(NAME, alias) for alias in ("champion", "previous")}
    return {alias: version.version for alias, version in found.items() if version}


def log() -> list[tuple[int, int | None, bool, str]]:
    return [(p.version, p.previous, p.promoted, p.actor) for p in Ledger().promotions(NAME)]


def test_the_champion_moves_on_and_what_it_was_stays_known():
    assert promote(NAME, 1, YES, seen=None, actor="SystemTuneFlow/1")
    assert aliases() == {"champion": 1}
    assert promote(NAME, 2, YES, seen=1, actor="SystemTuneFlow/2")
    assert aliases() == {"champion": 2, "previous": 1}
    assert log() == [(1, None, True, "SystemTuneFlow/1"), (2, 1, True, "SystemTuneFlow/2")]


def test_a_decision_against_promotion_is_logged_and_moves_nothing():
    promote(NAME, 1, YES, seen=None, actor="a")
    assert not promote(NAME, 2, NO, seen=1, actor="b")
    assert aliases() == {"champion": 1}
    assert log() == [(1, None, True, "a"), (2, 1, False, "b")]
    assert Ledger().promotions(NAME)[-1].reason == "not better"


def test_a_decision_made_against_a_champion_of_the_past_is_refused():
    promote(NAME, 1, YES, seen=None, actor="a")
    message = "iris: version 2 was compared with none, but the champion is version 1 by now; compare it with that one"
    with pytest.raises(RegistryError, match=message):
        promote(NAME, 2, YES, seen=None, actor="b")
    assert aliases() == {"champion": 1}
    assert log() == [(1, None, True, "a")]


@pytest.mark.parametrize("decision", [YES, NO], ids=["promoted", "not promoted"])
def test_a_retried_step_changes_nothing(decision):
    first = promote(NAME, 1, decision, seen=None, actor="a")
    before = aliases(), log()
    assert promote(NAME, 1, decision, seen=None, actor="a") is first
    assert (aliases(), log()) == before


def test_what_died_between_the_alias_and_the_log_is_finished_by_its_retry():
    promote(NAME, 1, YES, seen=None, actor="a")
    client.set_alias(NAME, "previous", 1)
    client.set_alias(NAME, "champion", 2)
    assert promote(NAME, 2, YES, seen=1, actor="b")
    assert aliases() == {"champion": 2, "previous": 1}
    assert log() == [(1, None, True, "a"), (2, 1, True, "b")]


def test_a_promotion_that_died_before_it_was_logged_is_logged_by_the_next_gate(monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    promote(NAME, 1, YES, seen=None, actor="a")
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "log_promotion", die)
        with pytest.raises(KeyboardInterrupt):
            promote(NAME, 2, YES, seen=1, actor="b")
    assert aliases() == {"champion": 2, "previous": 1}
    promote(NAME, 3, NO, seen=2, actor="c")
    promote(NAME, 3, NO, seen=2, actor="c")
    assert log() == [(1, None, True, "a"), (2, 1, True, "unknown"), (3, 2, False, "c")]


def test_an_alias_that_was_moved_by_hand_is_logged_by_the_next_gate():
    promote(NAME, 1, YES, seen=None, actor="a")
    promote(NAME, 2, YES, seen=1, actor="b")
    client.set_alias(NAME, "champion", 1)
    with pytest.raises(RegistryError, match="compared with version 2, but the champion is version 1 by now"):
        promote(NAME, 3, YES, seen=2, actor="c")
    promote(NAME, 3, YES, seen=1, actor="d")
    assert log()[2:] == [(1, 2, True, "unknown"), (3, 1, True, "d")]


def test_of_two_that_promote_at_once_one_wins_and_the_other_is_told():
    def attempt(version: int) -> str:
        try:
            promote(NAME, version, YES, seen=None, actor=f"run {version}")
        except RegistryError:
            return "refused"
        return "promoted"

    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(attempt, (1, 2, 3)))
    assert sorted(outcomes) == ["promoted", "refused", "refused"]
    winner = outcomes.index("promoted") + 1
    assert aliases() == {"champion": winner}
    assert log() == [(winner, None, True, f"run {winner}")]
