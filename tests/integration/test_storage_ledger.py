"""The ledger on a real database."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import psycopg
import pytest

from shared.domain import DatasetRef, PromotionDecision, Table
from shared.errors import DataError
from shared.storage.database import connect
from shared.storage.ledger import Ledger, LedgerEntry
from tests import on_record

NAME = "digits/classical/aaaa00000000/12345678"


def dataset(fingerprint: str = "aaaa", use_case: str = "digits", **changes: object) -> DatasetRef:
    table = Table(
        features=("a", "b"),
        dtypes=("float64", "int64"),
        target="y",
        task="classification",
        classes=(0, 1.5, True, "x"),
        shape=(2,),
    )
    values = {
        "use_case": use_case,
        "fingerprint": fingerprint,
        "uri": f"/data/{fingerprint}",
        "table": table,
        "rows": {"development": 80, "holdout": 20},
        "folds": 5,
        "source": "sklearn:digits",
        "created_at": datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
    }
    return DatasetRef.model_validate(values | changes)


@pytest.fixture
def ledger(database: str) -> Ledger:  # noqa: ARG001
    return Ledger()


@pytest.fixture
def study(ledger: Ledger) -> str:
    begin(ledger)
    return NAME


def begin(ledger: Ledger, run: str = "A/1", budget: int = 10) -> LedgerEntry:
    return ledger.begin(NAME, "digits", "classical", "aaaa", budget=budget, run=run)


def test_a_dataset_version_comes_back_as_it_was_recorded(ledger: Ledger) -> None:
    ledger.record_dataset(dataset(previous="zzzz"), run="DataPrepFlow/1")
    assert ledger.newest_dataset("digits") == dataset(previous="zzzz")


def test_a_use_case_without_data_has_no_newest_version(ledger: Ledger) -> None:
    ledger.record_dataset(dataset(use_case="other"), run="r")
    assert ledger.newest_dataset("digits") is None
    assert ledger.datasets("digits") == []


def test_data_that_comes_back_is_the_newest_again(ledger: Ledger) -> None:
    for fingerprint in ("aaaa", "bbbb", "aaaa"):
        ledger.record_dataset(dataset(fingerprint), run="r")
    assert [ref.fingerprint for ref in ledger.datasets("digits")] == ["aaaa", "bbbb"]


def test_a_version_is_found_by_the_beginning_of_its_fingerprint(ledger: Ledger) -> None:
    for fingerprint in ("abc1", "abd2"):
        ledger.record_dataset(dataset(fingerprint), run="r")
    assert ledger.dataset("digits", "abd").fingerprint == "abd2"


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("ff", r"beginning of one fingerprint of 'digits', but is 'ff'; on record, newest first: abd2, abc1\."),
        ("ab", r"long enough to mean one fingerprint of 'digits', but is 'ab'; on record, newest first: abd2, abc1\."),
        ("%", r"beginning of one fingerprint .* but is '%'"),
    ],
)
def test_an_unknown_or_ambiguous_prefix_names_what_there_is(ledger: Ledger, prefix: str, message: str) -> None:
    for fingerprint in ("abc1", "abd2"):
        ledger.record_dataset(dataset(fingerprint), run="r")
    with pytest.raises(DataError, match=message) as caught:
        ledger.dataset("digits", prefix)
    assert "DataPrepFlow makes another: `python flows/data_prep/flow.py" in str(caught.value)


def test_a_prefix_where_nothing_is_on_record_says_so(ledger: Ledger) -> None:
    with pytest.raises(DataError, match="on record, newest first: none"):
        ledger.dataset("digits", "ab")


def test_a_source_is_kept_once_under_its_hash(ledger: Ledger) -> None:
    first, second = ledger.save_source("def build(trial): ...\n"), ledger.save_source("def build(trial): ...\n")
    assert first == second
    assert len(first) == 64
    assert ledger.source(first) == "def build(trial): ...\n"


def test_an_unknown_source_is_an_error_with_a_remedy(ledger: Ledger) -> None:
    with pytest.raises(DataError, match="0123456789ab isn't; run the flow that tunes it"):
        ledger.source("0123456789ab" * 5)


def test_a_source_that_was_changed_in_the_database_is_refused(ledger: Ledger) -> None:
    digest = ledger.save_source("def build(trial): ...\n")
    with connect() as connection:
        connection.execute("UPDATE evertune.objective_sources SET source = 'import os'")
    with pytest.raises(DataError, match=f"{digest[:12]} has been changed in .*; delete that row, and run .* --force"):
        ledger.source(digest)


def test_a_version_is_seen_when_it_is_recorded_and_whenever_its_rows_are_found_again(ledger: Ledger) -> None:
    assert ledger.seen_at(dataset()) is None
    ledger.record_dataset(dataset(), run="r")
    first = ledger.seen_at(dataset())
    ledger.see_dataset(dataset())
    second = ledger.seen_at(dataset())
    assert first is not None
    assert second is not None
    assert first < second


@pytest.mark.parametrize("before", ["new", "claimed", "failed"])
def test_a_run_begins_a_study_that_is_not_done(ledger: Ledger, before: str) -> None:
    if before != "new":
        begin(ledger, "A/1")
    if before == "failed":
        ledger.fail(NAME, note="boom", run="A/1")
    entry = begin(ledger, "B/2")
    assert (entry.state, entry.run, entry.note) == ("claimed", "B/2", "")
    assert ledger.entries("digits") == [entry]


def test_a_study_that_is_done_stays_done(ledger: Ledger) -> None:
    done = on_record.finish(NAME, {"budget": 10}, "A/1")
    assert begin(ledger, "B/2") == done
    assert begin(ledger, "B/2", budget=9) == done
    assert ledger.fail(NAME, note="boom", run="A/1") == done


def test_a_larger_budget_goes_on_with_what_was_done(ledger: Ledger) -> None:
    on_record.finish(NAME, {"budget": 10}, "A/1")
    entry = begin(ledger, "B/2", budget=11)
    assert (entry.state, entry.recorded, entry.outcome) == ("claimed", False, {"budget": 10})


def test_the_failure_of_a_run_beside_others_is_ignored(ledger: Ledger, study: str) -> None:
    begin(ledger, "B/2")
    assert ledger.fail(study, note="too late", run="A/1").state == "claimed"
    failed = ledger.fail(study, note="boom", run="B/2")
    assert (failed.state, failed.note) == ("failed", "boom")


def test_an_unknown_study_is_an_error_with_a_remedy(ledger: Ledger) -> None:
    with pytest.raises(DataError, match="'no/such/study' isn't; `evertune status` lists"):
        ledger.fail("no/such/study", "note", "r")


def test_numbers_that_json_lacks_are_kept(ledger: Ledger) -> None:
    del ledger
    entry = on_record.finish(NAME, {"best": math.inf, "top": [{"value": math.nan}], "pair": (1, 2.5)})
    assert entry.outcome == {"best": "inf", "top": [{"value": "nan"}], "pair": [1, 2.5]}


def test_entries_are_those_of_the_use_case_and_version(ledger: Ledger) -> None:
    for name, use_case, fingerprint in [("1", "digits", "aaaa"), ("2", "digits", "bbbb"), ("3", "other", "aaaa")]:
        ledger.begin(name, use_case, "deep", fingerprint, budget=1, run="r")
    assert [entry.study for entry in ledger.entries("digits")] == ["1", "2"]
    assert [entry.study for entry in ledger.entries("digits", "bbbb")] == ["2"]


def test_the_newest_version_of_a_model_is_that_of_the_newest_data_not_of_the_last_run(ledger: Ledger) -> None:
    assert ledger.newest_version("m") is None
    for fingerprint in ("aaaa", "bbbb"):
        ledger.record_dataset(dataset(fingerprint), run="r")
    for fingerprint, version in (("bbbb", 1), ("aaaa", 2)):
        on_record.finish(f"d/{fingerprint}", {"model": "m", "version": version}, fingerprint=fingerprint)
    assert ledger.newest_version("m") == 1
    on_record.finish("d/edited", {"model": "m", "version": 3}, fingerprint="bbbb")
    on_record.finish("d/not registered", {"model": "m", "version": None}, fingerprint="bbbb")
    assert ledger.newest_version("m") == 3


def test_promotions_are_logged_in_order(ledger: Ledger) -> None:
    yes = PromotionDecision(promote=True, reason="first", figures={"gain": math.inf})
    no = PromotionDecision(promote=False, reason="worse", figures={"gain": -0.1})
    ledger.log_promotion("digits", 1, None, yes, actor="SystemTuneFlow/1")
    ledger.log_promotion("digits", 2, 1, no, actor="SystemTuneFlow/2")
    first, second = ledger.promotions("digits")
    assert (first.version, first.previous, first.promoted, first.figures) == (1, None, True, {"gain": "inf"})
    assert (second.version, second.previous, second.promoted, second.actor) == (2, 1, False, "SystemTuneFlow/2")
    assert ledger.promotions("other") == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE evertune.promotion_log SET reason = 'better'",
        "DELETE FROM evertune.promotion_log",
        "TRUNCATE evertune.promotion_log CASCADE",
    ],
)
def test_the_promotion_log_is_append_only(ledger: Ledger, statement: str) -> None:
    ledger.log_promotion("digits", 1, None, PromotionDecision(promote=True, reason="first"), actor="a")
    with connect() as connection, pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        connection.execute(statement)
    assert len(ledger.promotions("digits")) == 1
