"""A database that an earlier version of Evertune has filled: what it knew is read as it was, and gone on with."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from psycopg import errors
from psycopg.types.json import Jsonb

from shared.domain import PromotionDecision
from shared.errors import ResultTaken
from shared.settings import settings
from shared.storage import claims, schema, turns
from shared.storage.database import connect
from shared.storage.ledger import Ledger
from tests.conftest import Server
from tests.integration.test_storage_ledger import dataset

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
STATES = ("due", "claimed", "failed", "done")  # each a study of the dataset version `aaaa`, an hour after the other
OUTCOME = {"budget": 10, "model": "digits-classical", "version": 3}

STUDY = """
INSERT INTO evertune.studies (name, use_case, variant, fingerprint, state, run, outcome, note, opened_at, updated_at)
VALUES (%(state)s, 'digits', 'classical', 'aaaa', %(state)s, 'A/1', %(outcome)s, %(note)s, %(at)s, %(at)s)
"""
TURN = {"turn": 3.0, "series": 2.0, "series_rows": 114.0, "level": 0.004}  # a gate's, in the log alone
DATASET = "INSERT INTO evertune.dataset_versions VALUES ('digits', %s, %s, 'DataPrepFlow/1', %s)"


@pytest.fixture(params=["0001", "0002"])
def revision(request: pytest.FixtureRequest) -> str:
    """Of the earlier version: the tables that are filled here were the same in these."""
    return str(request.param)


@pytest.fixture
def ledger(revision: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """Of a database that was filled at that revision; the first connection migrates it."""
    with server.fresh("template1") as url:
        upgrade(url, revision)
        with psycopg.connect(url) as connection:
            fill(connection)
        monkeypatch.setenv("EVERTUNE_DATABASE_URL", url)
        settings.cache_clear()
        yield Ledger()
    settings.cache_clear()


def upgrade(url: str, revision: str) -> None:
    config = Config(attributes={"connect": lambda: psycopg.connect(url)})
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    command.upgrade(config, revision)


def fill(connection: psycopg.Connection) -> None:
    for hour, fingerprint in enumerate(("aaaa", "bbbb")):
        ref = Jsonb(dataset(fingerprint).model_dump(mode="json"))
        connection.execute(DATASET, [fingerprint, ref, BEGUN + timedelta(hours=hour)])
    for hour, state in enumerate(STATES):
        outcome, note = Jsonb(OUTCOME if state == "done" else {}), "boom" if state == "failed" else ""
        at = BEGUN + timedelta(hours=hour)
        connection.execute(STUDY, {"state": state, "outcome": outcome, "note": note, "at": at})
    connection.execute(
        "INSERT INTO evertune.promotion_log (use_case, version, previous, promoted, reason, figures, actor) "
        "VALUES ('digits', 3, NULL, true, 'the first', '{}', 'SystemTuneFlow/1'), "
        "('digits', 2, 3, true, 'it was found as champion', '{}', 'unknown'), "
        "('digits', 5, 2, false, 'worse', %s, 'SystemTuneFlow/2')",
        [Jsonb({**TURN, "p": 0.4, "gain": -1.0})],
    )


def test_studies_dataset_versions_and_promotions_are_read_as_they_were(ledger: Ledger) -> None:
    entries = {entry.study: entry for entry in ledger.entries("digits")}
    assert [entry.state for entry in entries.values()] == [*STATES]
    assert [entry.asked_at for entry in entries.values()] == [BEGUN + timedelta(hours=h) for h in range(len(STATES))]
    assert {entry.run for entry in entries.values()} == {"A/1"}
    assert (entries["failed"].note, entries["done"].outcome) == ("boom", OUTCOME)

    assert [ref.fingerprint for ref in ledger.datasets("digits")] == ["bbbb", "aaaa"]
    assert ledger.seen_at(dataset("bbbb")) == BEGUN + timedelta(hours=1)
    assert [promotion.version for promotion in ledger.promotions("digits")] == [3, 2, 5]


def test_only_a_study_that_was_done_has_a_result(ledger: Ledger) -> None:
    for entry in ledger.entries("digits"):
        done = entry.state == "done"
        assert entry.recorded is done
        assert entry.finished_at == (entry.asked_at if done else None)
    assert ledger.newest_version("digits-classical") == 3


def test_what_was_done_is_not_done_again(ledger: Ledger) -> None:
    (done,) = [entry for entry in ledger.entries("digits") if entry.state == "done"]
    assert ledger.begin("done", "digits", "classical", "aaaa", budget=10, run="B/2") == done
    with pytest.raises(ResultTaken, match="done is done"):
        claims.take("done", 10, "B/2", wait=pytest.fail)


@pytest.mark.parametrize("state", [state for state in STATES if state != "done"])
def test_what_was_not_done_gets_its_result_now(ledger: Ledger, state: str) -> None:
    """Also where a run had claimed the study: such a claim had no date, so there is nobody to wait for."""
    ledger.begin(state, "digits", "classical", "aaaa", budget=10, run="B/2")
    claims.conclude(state, 10, "B/2", make=lambda: OUTCOME, publish=lambda _: None, wait=pytest.fail)
    entry = ledger.entry(state)
    assert entry is not None
    assert (entry.state, entry.run, entry.outcome, entry.recorded) == ("done", "B/2", OUTCOME, True)


def test_what_was_promoted_has_taken_place_and_who_moved_an_alias_is_known_by_its_kind(ledger: Ledger) -> None:
    first, second, _ = ledger.promotions("digits")
    assert (first.kind, first.took_place) == ("gate", True)
    assert (second.kind, second.took_place) == ("found", True)
    with connect() as connection, pytest.raises(errors.RaiseException, match="append-only"):
        connection.execute("DELETE FROM evertune.promotion_outcomes")


def test_what_gates_have_spent_stays_spent(ledger: Ledger) -> None:
    assert ledger.promotions("digits")
    assert turns.last("digits") == turns.Taken(1, 5, TURN)


def test_the_log_of_promotions_goes_on(ledger: Ledger) -> None:
    ledger.log_promotion("digits", 4, 3, PromotionDecision(promote=False, reason="worse"), actor="SystemTuneFlow/2")
    assert [promotion.version for promotion in ledger.promotions("digits")] == [3, 2, 5, 4]
