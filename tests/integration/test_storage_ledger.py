"""The ledger on a real database."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime

import psycopg
import pytest

from shared.domain import DatasetRef, PromotionDecision, Table
from shared.errors import DataError
from shared.storage.database import connect
from shared.storage.ledger import Ledger

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
    ledger.open_study(NAME, "digits", "classical", "aaaa")
    return NAME


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


def test_the_newest_complete_version_has_all_variants_done(ledger: Ledger) -> None:
    for fingerprint, done in [("aaaa", ["classical", "deep"]), ("bbbb", ["classical"]), ("cccc", [])]:
        ledger.record_dataset(dataset(fingerprint), run="r")
        for variant in ("classical", "deep"):
            name = f"digits/{variant}/{fingerprint}"
            ledger.open_study(name, "digits", variant, fingerprint)
            if variant in done:
                ledger.finish(name, {}, run="r")

    def newest(*variants: str) -> str | None:
        ref = ledger.newest_complete("digits", variants)
        return ref and ref.fingerprint

    assert newest("classical", "deep") == "aaaa"
    assert newest("classical") == "bbbb"
    assert newest("classical", "deep", "system") is None


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


def test_opening_a_study_twice_changes_nothing(ledger: Ledger, study: str) -> None:
    ledger.claim(study, run="A/1")
    assert ledger.open_study(study, "digits", "classical", "aaaa") == ledger.entry(study)
    assert [entry.state for entry in ledger.entries("digits")] == ["claimed"]


@pytest.mark.parametrize("before", ["due", "claimed", "failed"])
def test_a_study_that_is_not_done_can_be_claimed(ledger: Ledger, study: str, before: str) -> None:
    if before != "due":
        ledger.claim(study, run="A/1")
    if before == "failed":
        ledger.fail(study, note="boom", run="A/1")
    entry = ledger.claim(study, run="B/2")
    assert (entry.state, entry.run, entry.note) == ("claimed", "B/2", "")


def test_a_study_that_is_done_stays_done(ledger: Ledger, study: str) -> None:
    done = ledger.finish(study, {"best": 1.0}, run="A/1")
    attempts: list[Callable[[], object]] = [
        lambda: ledger.claim(study, run="B/2"),
        lambda: ledger.finish(study, {"best": 2.0}, run="B/2"),
        lambda: ledger.fail(study, note="boom", run="A/1"),
        lambda: ledger.open_study(study, "digits", "classical", "aaaa"),
    ]
    for attempt in attempts:
        assert attempt() == done


def test_the_run_that_finished_a_study_may_say_more_of_it(ledger: Ledger, study: str) -> None:
    ledger.finish(study, {"best": 1.0}, run="A/1")
    assert ledger.finish(study, {"best": 1.0, "version": 3}, run="A/1").outcome == {"best": 1.0, "version": 3}


def test_a_reopened_study_is_due_and_remembers_its_outcome(ledger: Ledger, study: str) -> None:
    ledger.finish(study, {"budget": 10}, run="A/1")
    entry = ledger.reopen(study)
    assert (entry.state, entry.outcome) == ("due", {"budget": 10})
    assert ledger.claim(study, run="B/2").state == "claimed"


def test_the_failure_of_a_run_that_lost_its_claim_is_ignored(ledger: Ledger, study: str) -> None:
    ledger.claim(study, run="A/1")
    ledger.claim(study, run="B/2")
    assert ledger.fail(study, note="too late", run="A/1").state == "claimed"
    failed = ledger.fail(study, note="boom", run="B/2")
    assert (failed.state, failed.note) == ("failed", "boom")


@pytest.mark.parametrize("transition", ["claim", "finish", "fail", "reopen"])
def test_an_unknown_study_is_an_error_with_a_remedy(ledger: Ledger, transition: str) -> None:
    arguments = {"claim": ["r"], "finish": [{}, "r"], "fail": ["note", "r"], "reopen": []}[transition]
    with pytest.raises(DataError, match="'no/such/study' isn't; `evertune status` lists"):
        getattr(ledger, transition)("no/such/study", *arguments)


def test_numbers_that_json_lacks_are_kept(ledger: Ledger, study: str) -> None:
    entry = ledger.finish(study, {"best": math.inf, "top": [{"value": math.nan}], "pair": (1, 2.5)}, run="r")
    assert entry.outcome == {"best": "inf", "top": [{"value": "nan"}], "pair": [1, 2.5]}


def test_entries_are_those_of_the_use_case_and_version(ledger: Ledger) -> None:
    for name, use_case, fingerprint in [("1", "digits", "aaaa"), ("2", "digits", "bbbb"), ("3", "other", "aaaa")]:
        ledger.open_study(name, use_case, "deep", fingerprint)
    assert [entry.study for entry in ledger.entries("digits")] == ["1", "2"]
    assert [entry.study for entry in ledger.entries("digits", "bbbb")] == ["2"]


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
        "TRUNCATE evertune.promotion_log",
    ],
)
def test_the_promotion_log_is_append_only(ledger: Ledger, statement: str) -> None:
    ledger.log_promotion("digits", 1, None, PromotionDecision(promote=True, reason="first"), actor="a")
    with connect() as connection, pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        connection.execute(statement)
    assert len(ledger.promotions("digits")) == 1
