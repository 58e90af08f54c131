"""The claim on a study's result, on a real database: by clocks, tokens and threads of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shared.errors import ResultTaken
from shared.storage import claims
from shared.storage.database import connect
from shared.storage.ledger import Ledger, LedgerEntry

pytestmark = pytest.mark.usefixtures("database", "study")

NAME = "digits/classical/aaaa00000000/12345678"
BUDGET = 10


@pytest.fixture
def study() -> str:
    begin("A/1")
    return NAME


def begin(run: str, budget: int = BUDGET) -> LedgerEntry:
    return Ledger().begin(NAME, "digits", "classical", "aaaa", budget=budget, run=run)


def entry() -> LedgerEntry:
    found = Ledger().entry(NAME)
    assert found is not None
    return found


def outcome(version: int = 1, budget: int = BUDGET) -> Mapping[str, Any]:
    return {"budget": budget, "model": "m", "version": version}


def make_nothing() -> Mapping[str, Any]:
    raise AssertionError("there is a result already")


def stand_still() -> None:
    """As long as a lease."""
    with connect() as connection:
        connection.execute("UPDATE evertune.studies SET expires = clock_timestamp() - interval '1 s'")


def conclude(run: str, version: int = 1, budget: int = BUDGET) -> Mapping[str, Any]:
    return claims.conclude(NAME, budget, run, make=lambda: outcome(version, budget), publish=lambda found: found)


def test_a_result_is_made_once(study: str) -> None:
    assert conclude("A/1") == outcome()
    with pytest.raises(ResultTaken, match=f"another run was faster: {study} is done \\(A/1\\)") as taken:
        conclude("B/2", version=2)
    assert taken.value.run == "A/1"
    assert (entry().state, entry().run, entry().outcome, entry().recorded) == ("done", "A/1", outcome(), True)


def test_a_larger_budget_is_another_result() -> None:
    conclude("A/1")
    begin("B/2", budget=20)
    assert conclude("B/2", version=2, budget=20)["version"] == 2
    with pytest.raises(ResultTaken):
        conclude("A/1", version=3, budget=20)
    with pytest.raises(ResultTaken):
        conclude("C/3", version=4, budget=10)
    assert entry().outcome["version"] == 2


def test_of_many_runs_at_once_one_makes_the_result() -> None:
    made, together = [], threading.Barrier(8)

    def run(i: int) -> str:
        together.wait()
        try:
            claims.conclude(
                NAME, BUDGET, f"R/{i}", make=lambda: made.append(i) or outcome(i), publish=lambda _: time.sleep(0.2)
            )
        except ResultTaken:
            return "taken"
        return "done"

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(run, range(8))) == ["done", *["taken"] * 7]
    assert [entry().outcome["version"]] == made


def test_a_living_holder_is_told_from_a_dead_one_by_its_next_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LEASE_S", 3.0)
    with claims.take(NAME, BUDGET, "A/1"):
        with pytest.raises(ResultTaken, match="another run is faster: A/1 makes the result") as taken:
            claims.take(NAME, BUDGET, "B/2")
        assert taken.value.run == "A/1"
    assert claims.look(NAME).holder == "A/1", "as if it had been killed: nobody renews the claim, nobody closed it"
    with claims.take(NAME, BUDGET, "B/2") as claim:
        claim.record(outcome(2))
        claim.close("done")
    assert entry().outcome["version"] == 2


def test_what_comes_after_the_claim_was_taken_over_is_refused_and_told_so() -> None:
    refused = []

    def too_slow() -> Mapping[str, Any]:
        stand_still()
        conclude("B/2", version=2)
        return outcome(1)

    with pytest.raises(ResultTaken, match="stood still for too long: B/2 has taken over the result"):
        claims.conclude(
            NAME, BUDGET, "A/1", make=too_slow, publish=lambda _: None, refuse=lambda o, why: refused.append((o, why))
        )
    ((late, why),) = refused
    assert late["version"] == 1
    assert "B/2" in why
    assert (entry().state, entry().run, entry().outcome["version"]) == ("done", "B/2", 2)


def test_a_lease_that_is_over_but_was_not_taken_over_still_holds() -> None:
    def slow() -> Mapping[str, Any]:
        stand_still()
        return outcome()

    claims.conclude(NAME, BUDGET, "A/1", make=slow, publish=lambda _: None)
    assert entry().state == "done"


def test_a_retried_step_takes_up_its_own_claim_and_fences_off_the_attempt_before() -> None:
    before = claims.take(NAME, BUDGET, "A/1")
    with claims.take(NAME, BUDGET, "A/1") as claim:
        claim.record(outcome(2))
    with pytest.raises(ResultTaken):
        before.record(outcome(1))
    before.close("failed", "too late")
    assert (entry().state, entry().outcome["version"]) == ("claimed", 2)


def test_what_a_run_recorded_before_it_died_is_published_by_the_next_and_not_made_again() -> None:
    class Killed(BaseException):
        """Nothing is cleaned up after it."""

    def die(_: object) -> None:
        raise Killed

    with pytest.raises(Killed):
        claims.conclude(NAME, BUDGET, "A/1", make=outcome, publish=die)
    assert (entry().state, entry().recorded) == ("claimed", True)
    stand_still()
    assert begin("B/2").recorded
    published = claims.conclude(NAME, BUDGET, "B/2", make=make_nothing, publish=lambda found: found)
    assert published == outcome()
    assert entry().state == "done"


def test_a_failure_and_an_interrupt_give_the_claim_back() -> None:
    def fail() -> Mapping[str, Any]:
        raise ValueError("no room")

    def interrupt() -> Mapping[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(ValueError, match="no room"):
        claims.conclude(NAME, BUDGET, "A/1", make=fail, publish=lambda _: None)
    assert (entry().state, entry().note) == ("failed", "no room")
    with pytest.raises(KeyboardInterrupt):
        claims.conclude(NAME, BUDGET, "B/2", make=interrupt, publish=lambda _: None)
    assert (entry().state, entry().note) == ("due", "B/2 was interrupted")
    conclude("C/3")
    assert entry().state == "done"


def test_a_study_that_is_begun_anew_refuses_what_was_claimed_before() -> None:
    old = claims.take(NAME, BUDGET, "A/1")
    Ledger().forget(NAME)
    with pytest.raises(ResultTaken, match="isn't on record any more: a run with --force"):
        old.record(outcome())
    begin("B/2")
    claims.take(NAME, BUDGET, "B/2")
    with pytest.raises(ResultTaken):
        old.record(outcome())
