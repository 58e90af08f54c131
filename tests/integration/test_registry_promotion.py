"""Moving the alias `champion`, on a real MLflow and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from mlflow import MlflowClient

from shared.config import UseCase
from shared.domain import PromotionDecision
from shared.errors import RegistryError, ServiceError
from shared.flow import system
from shared.registry import aliases, client
from shared.registry.promotion import (
    ChampionMovedError,
    decision_on,
    log_champion,
    promote,
    retire,
    rollback,
    settle,
)
from shared.settings import settings
from shared.storage import alias_lock
from shared.storage.database import connect
from shared.storage.ledger import Ledger
from tests import on_record

NAME = "iris"
YES = PromotionDecision(promote=True, reason="better by 1", figures={"gain": 1.0})
NO = PromotionDecision(promote=False, reason="not better", figures={"gain": -1.0})


@pytest.fixture(autouse=True)
def mlflow(home) -> MlflowClient:
    """What somebody uses who opens MLflow's own page. `iris` has versions 1, 2 and 3, none of them champion."""
    del home
    return on_record.register_versions(NAME, 3)


def log() -> list[tuple[int, int | None, bool, str]]:
    return [(p.version, p.previous, p.took_place, p.actor) for p in Ledger().promotions(NAME)]


def test_the_champion_moves_on_and_what_it_was_stays_known(mlflow):
    assert promote(NAME, 1, YES, seen=None, actor="SystemTuneFlow/1")
    assert aliases.of(NAME) == {"champion": 1}
    assert promote(NAME, 2, YES, seen=1, actor="SystemTuneFlow/2")
    assert aliases.of(NAME) == {"champion": 2, "previous": 1}
    assert log() == [(1, None, True, "SystemTuneFlow/1"), (2, 1, True, "SystemTuneFlow/2")]
    assert mlflow.get_model_version_by_alias(NAME, "champion").version == 2


def test_a_decision_against_promotion_is_logged_and_moves_nothing():
    promote(NAME, 1, YES, seen=None, actor="a")
    assert not promote(NAME, 2, NO, seen=1, actor="b")
    assert aliases.of(NAME) == {"champion": 1}
    assert log() == [(1, None, True, "a"), (2, 1, False, "b")]
    assert Ledger().promotions(NAME)[-1].reason == "not better"


def test_a_decision_made_against_a_champion_of_the_past_is_refused():
    promote(NAME, 1, YES, seen=None, actor="a")
    message = "version 2 was compared with none, but the champion is version 1 by now, moved by a; compare it with"
    with pytest.raises(RegistryError, match=message):
        promote(NAME, 2, YES, seen=None, actor="b")
    assert aliases.of(NAME) == {"champion": 1}
    assert log() == [(1, None, True, "a")]


@pytest.mark.parametrize("decision", [YES, NO], ids=["promoted", "not promoted"])
def test_a_retried_step_changes_nothing(decision):
    first = promote(NAME, 1, decision, seen=None, actor="a")
    before = aliases.of(NAME), log()
    assert promote(NAME, 1, decision, seen=None, actor="a") is first
    assert (aliases.of(NAME), log()) == before


def test_a_version_that_is_gone_is_not_promoted(mlflow):
    mlflow.delete_model_version(NAME, "2")
    for version in (2, 9):
        with pytest.raises(RegistryError, match=f"iris has no version {version} there"):
            promote(NAME, version, YES, seen=None, actor="a")
    assert log() == []


def test_a_move_in_mlflow_itself_is_logged_by_whoever_looks_next(mlflow):
    promote(NAME, 1, YES, seen=None, actor="a")
    promote(NAME, 2, YES, seen=1, actor="b")
    mlflow.set_registered_model_alias(NAME, "champion", "1")
    log_champion(NAME)
    log_champion(NAME)
    assert log()[2:] == [(1, 2, True, "somebody outside of Evertune")]
    assert aliases.of(NAME) == {"champion": 1, "previous": 2}


def test_a_night_with_nothing_to_do_notices_a_move_in_mlflow_and_a_registry_that_is_away_is_no_failure(
    mlflow, monkeypatch
):
    promote(NAME, 1, YES, seen=None, actor="a")
    mlflow.set_registered_model_alias(NAME, "champion", "2")
    use_case = UseCase.model_validate(
        {
            "name": NAME, "title": "Iris", "data": {"source": "sklearn:iris", "target": "target"},
            "tuning": {"metric": "accuracy"}, "classical": {"objective": "x.py"},
        }
    )  # fmt: skip
    assert "no table [system]" in system.plan(use_case, run="SystemTuneFlow/1").idle
    assert log()[1:] == [(2, 1, True, "somebody outside of Evertune")]

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://127.0.0.1:1/mlflow")
    settings.cache_clear()
    assert "no table [system]" in system.plan(use_case, run="SystemTuneFlow/2").idle


def test_a_version_that_somebody_has_set_in_mlflow_before_its_gate_is_not_judged(mlflow):
    promote(NAME, 1, YES, seen=None, actor="a")
    mlflow.set_registered_model_alias(NAME, "champion", "2")
    asked = []
    known = settle(NAME, 2, lambda champion: asked.append(champion) or NO, actor="SystemTuneFlow/2")
    assert (known.kind, known.took_place, asked) == ("found", True, [])


def test_a_gate_that_met_another_champion_than_somebody_has_chosen_since_is_refused(mlflow):
    promote(NAME, 1, YES, seen=None, actor="a")
    promote(NAME, 2, YES, seen=1, actor="b")
    mlflow.set_registered_model_alias(NAME, "champion", "1")
    with pytest.raises(RegistryError, match="the champion is version 1 by now, moved by somebody outside of Evertune"):
        promote(NAME, 3, YES, seen=2, actor="c")
    promote(NAME, 3, YES, seen=1, actor="d")
    assert log()[2:] == [(1, 2, True, "somebody outside of Evertune"), (3, 1, True, "d")]


def test_a_promotion_that_was_interrupted_is_carried_out_by_whoever_looks_next():
    promote(NAME, 1, YES, seen=None, actor="a")
    Ledger().log_promotion(NAME, 2, 1, YES, "b")
    assert not promote(NAME, 3, NO, seen=2, actor="c")
    assert aliases.of(NAME) == {"champion": 2, "previous": 1}
    assert log() == [(1, None, True, "a"), (2, 1, True, "b"), (3, 2, False, "c")]


def test_what_was_decided_of_a_version_is_told_once_it_is_carried_out():
    promote(NAME, 1, YES, seen=None, actor="a")
    Ledger().log_promotion(NAME, 2, 1, YES, "another run, which has not moved the alias yet")
    known = decision_on(NAME, 2)
    assert known is not None
    assert (known.took_place, aliases.champion(NAME)) == (True, 2)


def test_the_gate_meets_the_champion_that_promote_compares_with(monkeypatch):
    promote(NAME, 1, YES, seen=None, actor="a")
    monkeypatch.setattr(client, "_aliases", lambda *_: {"champion": "3"})  # of MLflow's client, in its own time
    met = []
    settle(NAME, 2, lambda champion: met.append(champion) or YES, actor="b")
    assert [champion.version for champion in met] == [1]
    assert aliases.champion(NAME) == 2


def test_the_files_of_a_deleted_version_go_without_holding_up_promotions(monkeypatch):
    monkeypatch.setattr(alias_lock, "WAIT_S", 1.0)
    deleted = []

    def slowly(location: str) -> None:
        promote(NAME, 1, YES, seen=None, actor="another run")
        deleted.append(location)

    monkeypatch.setattr(client, "delete_files", slowly)
    assert retire(client.version(NAME, 2))
    assert not retire(client.version(NAME, 1)), "it became champion meanwhile"
    assert (deleted, aliases.has_version(NAME, 2)) == (["/nowhere"], False)


def test_who_waits_too_long_for_another_promotion_is_told_who_may_hold_it_up(monkeypatch):
    monkeypatch.setattr(alias_lock, "WAIT_S", 0.2)
    with connect() as other:
        other.execute(alias_lock.LOCK, {"name": NAME})
        with pytest.raises(ServiceError, match=r"the aliases of iris must be free .* pg_locks .* do this again"):
            promote(NAME, 1, YES, seen=None, actor="a")
    assert log() == []
    assert promote(NAME, 1, YES, seen=None, actor="a")


@pytest.mark.parametrize("by_hand", ["moves the alias", "deletes the version"])
def test_a_promotion_that_was_interrupted_is_void_where_somebody_has_done_otherwise_meanwhile(mlflow, by_hand):
    promote(NAME, 1, YES, seen=None, actor="a")
    Ledger().log_promotion(NAME, 2, 1, YES, "b")
    if by_hand == "moves the alias":
        mlflow.set_registered_model_alias(NAME, "champion", "3")
    else:
        mlflow.delete_model_version(NAME, "2")
    log_champion(NAME)
    found = [(3, 1, True, "somebody outside of Evertune")] if by_hand == "moves the alias" else []
    assert log() == [(1, None, True, "a"), (2, 1, False, "b"), *found]
    assert aliases.champion(NAME) == (3 if found else 1)
    assert aliases.of(NAME).get("previous") == (1 if found else None)


@pytest.fixture
def meanwhile(mlflow, monkeypatch):
    """Version 2 is champion after 1; what is done in MLflow's own page between a decision and the move of its alias."""
    promote(NAME, 1, YES, seen=None, actor="a")
    promote(NAME, 2, YES, seen=1, actor="b")
    logged = Ledger.log_promotion

    def set_up(act: Callable[[MlflowClient], object]) -> None:
        def log_promotion(ledger: Ledger, *decision) -> int:
            number = logged(ledger, *decision)
            act(mlflow)
            return number

        monkeypatch.setattr(Ledger, "log_promotion", log_promotion)

    return set_up


@pytest.mark.parametrize("by", [partial(promote, NAME, 1, YES, seen=2, kind="hand"), partial(rollback, NAME)])
def test_who_is_overtaken_in_mlflow_by_somebody_else_is_told_who_is_champion(meanwhile, by):
    meanwhile(lambda mlflow: mlflow.set_registered_model_alias(NAME, "champion", "3"))
    message = "was to be champion, but the champion is version 3 by now, moved by somebody outside of Evertune"
    with pytest.raises(ChampionMovedError, match=message):
        by(actor="ann")
    assert log()[2:] == [(1, 2, False, "ann"), (3, 2, True, "somebody outside of Evertune")]


def test_who_promotes_a_version_that_is_deleted_in_this_moment_is_told(meanwhile):
    meanwhile(lambda mlflow: mlflow.delete_model_version(NAME, "3"))
    with pytest.raises(ChampionMovedError, match="version 3 was to be champion, but somebody has deleted it"):
        promote(NAME, 3, YES, seen=2, actor="ann", kind="hand")
    assert (log()[2:], aliases.champion(NAME)) == ([(3, 2, False, "ann")], 2)


def test_a_gate_that_is_overtaken_is_not_asked_again(meanwhile):
    meanwhile(lambda mlflow: mlflow.set_registered_model_alias(NAME, "champion", "1"))
    asked = []
    known = settle(NAME, 3, lambda champion: asked.append(champion) or YES, actor="SystemTuneFlow/3")
    assert (known.took_place, len(asked), aliases.champion(NAME)) == (False, 1, 1)


def test_a_champion_that_somebody_took_away_can_be_had_back(mlflow):
    promote(NAME, 1, YES, seen=None, actor="a")
    mlflow.delete_registered_model_alias(NAME, "champion")
    log_champion(NAME)
    assert aliases.of(NAME) == {"previous": 1}
    rollback(NAME, actor="ann")
    assert aliases.of(NAME) == {"champion": 1}
    assert log() == [(1, None, True, "a"), (1, None, True, "ann")]


def test_rollbacks_go_back_one_by_one_and_are_not_undone_by_the_gate():
    for version in (1, 2, 3):
        promote(NAME, version, YES, seen=version - 1 or None, actor="gate")
    assert rollback(NAME, reason="it drifts", actor="ann").reason == "it drifts"
    assert aliases.of(NAME) == {"champion": 2, "previous": 1}
    rollback(NAME, actor="ann")
    assert aliases.of(NAME) == {"champion": 1}

    promote(NAME, 3, YES, seen=1, actor="the next night")
    log_champion(NAME)

    assert aliases.of(NAME) == {"champion": 1}
    assert log()[3:] == [(2, 3, True, "ann"), (1, 2, True, "ann")]


def test_a_rollback_leads_to_any_version_that_was_champion_and_to_no_other(mlflow):
    for version in (1, 2, 3):
        promote(NAME, version, YES, seen=version - 1 or None, actor="gate")
    rollback(NAME, 1, actor="ann")
    rollback(NAME, 3, actor="ann")
    assert aliases.of(NAME) == {"champion": 3, "previous": 1}
    mlflow.delete_model_version(NAME, "1")
    for to, why in ((3, "is the champion already"), (9, "never was, or is deleted"), (1, "never was, or is deleted")):
        with pytest.raises(RegistryError, match=f"version {to} {why}; name another one: --to 2$"):
            rollback(NAME, to, actor="ann")
    rollback(NAME, 2, actor="ann")
    assert aliases.of(NAME) == {"champion": 2, "previous": 3}


def test_the_first_champion_has_none_before_it_and_later_ones_must_be_named():
    promote(NAME, 1, YES, seen=None, actor="gate")
    promote(NAME, 2, YES, seen=1, actor="gate")
    rollback(NAME, actor="ann")
    with pytest.raises(RegistryError, match="version 1 is the only champion in its line; name another one: --to 2"):
        rollback(NAME, actor="ann")


def test_a_model_that_never_had_a_champion_has_nothing_to_go_back_to():
    with pytest.raises(RegistryError, match="there never was one; `evertune models list iris` shows what there is"):
        rollback(NAME, actor="ann")


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
    assert aliases.of(NAME) == {"champion": winner}
    assert log() == [(winner, None, True, f"run {winner}")]
