"""What comes into use between the look and the deletion stays, with all that it is made of."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import optuna
import psycopg
import pytest

from shared.config import load_use_case
from shared.events.prune import holdings
from shared.settings import settings
from shared.storage import PostgresStorage, records, sources, studies
from shared.storage.database import connect
from shared.storage.ledger import Ledger, LedgerEntry
from shared.storage.sources import Source
from tests import on_record
from tests.conftest import Server
from tests.integration.test_storage_ledger import dataset

NAME = "digits/classical/aaaa00000000/12345678"
SOURCE = "def build(trial): ...\n"


@pytest.fixture
def ledger(database: str) -> Ledger:  # noqa: ARG001
    return Ledger()


@pytest.fixture
def entry(ledger: Ledger) -> LedgerEntry:
    """A study of two trials, done, as it was looked at."""
    storage = PostgresStorage()
    study = optuna.create_study(study_name=NAME, storage=storage)
    study.set_user_attr("evertune", {"objective_hash": ledger.save_source(SOURCE)})
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), 2)
    storage.close()
    return on_record.finish(NAME, {"budget": 2, "objective_hash": ledger.save_source(SOURCE)})


def begin(ledger: Ledger, budget: int = 3) -> LedgerEntry:
    return ledger.begin(NAME, "digits", "classical", "aaaa", budget=budget, run="B/2")


def n_trials() -> int:
    with connect() as connection:
        row = connection.execute("SELECT count(*) FROM trials").fetchone()
    assert row is not None
    return int(row[0])


def the_source() -> Source:
    (found,) = sources.sources()
    return found


def test_a_study_that_nobody_asked_for_again_goes_with_its_trials(ledger: Ledger, entry: LedgerEntry) -> None:
    assert studies.retire(entry)
    assert (ledger.entry(NAME), n_trials()) == (None, 0)
    assert not studies.retire(entry)


def test_a_study_that_a_run_has_begun_by_now_keeps_its_trials(ledger: Ledger, entry: LedgerEntry) -> None:
    begin(ledger)
    assert not studies.retire(entry)
    assert n_trials() == 2


@pytest.mark.parametrize("again", ["confirm", "fail"])
def test_a_study_that_was_asked_for_by_now_keeps_its_trials(ledger: Ledger, entry: LedgerEntry, again: str) -> None:
    if again == "confirm":
        ledger.confirm(NAME)
    else:
        begin(ledger)
        ledger.fail(NAME, "boom", run="B/2")
    assert not studies.retire(entry)
    assert n_trials() == 2


def test_a_run_that_begins_a_study_while_it_goes_begins_it_anew(
    ledger: Ledger, entry: LedgerEntry, database: str
) -> None:
    with psycopg.connect(database) as connection, ThreadPoolExecutor() as threads:
        connection.execute(studies.RETIRE, {"name": NAME, "asked_at": entry.asked_at})
        begun = threads.submit(begin, ledger, budget=2)
        with pytest.raises(TimeoutError):
            begun.result(timeout=0.3)  # it waits
        connection.commit()
        assert (begun.result().state, begun.result().outcome) == ("claimed", {})


def test_a_source_stays_as_long_as_a_study_names_it(ledger: Ledger, entry: LedgerEntry) -> None:
    assert the_source().studies == [NAME]
    ledger.forget(NAME)
    assert the_source().studies == [NAME], "a study that isn't on record yet is one of Optuna's"
    assert not sources.forget_source(the_source())
    studies.delete_study(NAME)
    assert the_source().studies == []
    assert sources.forget_source(the_source())
    assert sources.sources() == []
    assert entry.outcome["objective_hash"]


def test_a_source_that_a_run_has_saved_again_stays(ledger: Ledger) -> None:
    PostgresStorage().close()  # Optuna's tables
    ledger.save_source(SOURCE)
    looked_at = the_source()
    ledger.save_source(SOURCE)
    assert not sources.forget_source(looked_at)
    assert sources.forget_source(the_source())


def test_before_there_is_a_study_there_is_nothing_to_delete(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with server.fresh("template1") as url, monkeypatch.context() as patch:
        patch.setenv("EVERTUNE_DATABASE_URL", url)
        settings.cache_clear()
        Ledger().save_source(SOURCE)
        assert sources.sources() == []
        studies.delete_study(NAME)
    settings.cache_clear()


def test_a_dataset_version_that_a_study_is_at_stays(ledger: Ledger) -> None:
    ledger.record_dataset(dataset(), run="r")
    begin(ledger)
    assert not ledger.forget_dataset(dataset())
    ledger.fail(NAME, "boom", run="B/2")
    assert ledger.forget_dataset(dataset())


def test_a_dataset_version_that_came_back_meanwhile_stays(ledger: Ledger) -> None:
    ledger.record_dataset(dataset(), run="r")
    ledger.record_dataset(dataset(created_at=datetime(2026, 7, 1, tzinfo=UTC)), run="s")
    assert not ledger.forget_dataset(dataset())
    assert ledger.newest_dataset("digits") is not None


@pytest.mark.usefixtures("home")
def test_a_source_is_held_by_no_version_that_was_deleted() -> None:
    source = Ledger().save_source(SOURCE)
    for model in ("digits-classical", "wine-classical"):
        records.record(model, 1, {}, {"objective": {"hash": source}})

    (found,) = holdings(load_use_case("digits"), datetime.now(UTC)).sources

    assert found.versions == ["models:/wine-classical/1"], "what another use case holds isn't known here"
