"""Gates at once on one holdout, and gates whose process is killed: each has a turn of its own, which it has spent."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError
from typing import Any

import psycopg
import pytest
from sklearn.dummy import DummyClassifier

from shared.data.store import load_dataset
from shared.domain import ModelVersion, PromotionDecision
from shared.flow.gate import decide, take_turn
from shared.flow.plan import Plan
from shared.registry import promotion
from shared.storage import turns
from shared.storage.database import connect
from shared.storage.ledger import Ledger
from tests.integration.test_gate import honest, prepared, trained
from tests.production.test_promotion import end, start

pytestmark = pytest.mark.usefixtures("home")

ALPHA = 0.5  # of `prepared`
YES = PromotionDecision(promote=True, reason="the first")


@pytest.fixture
def plan() -> Plan:
    """Of a use case with a champion that no challenger here is better than."""
    plan = prepared()
    promotion.promote("toy", trained(honest(), plan).version, YES, seen=None, actor="ann")
    return plan


def guess(plan: Plan, seed: int) -> ModelVersion:
    return trained(DummyClassifier(strategy="uniform", random_state=seed), plan)


def gate(plan: Plan, version: ModelVersion) -> Any:
    """What a run does at the gate."""
    judge = lambda champion: decide(plan, version, champion, latency_ms=1.0)  # noqa: E731
    return promotion.settle("toy", version.version, judge, actor=f"SystemTuneFlow/{version.version}").figures


def all_see_the_same(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first `n` that read the last turn go on once all of them have."""
    read, together, first = turns.last, Barrier(n), itertools.count()

    def last(use_case: str) -> turns.Taken | None:
        found = read(use_case)
        if next(first) < n:
            with suppress(BrokenBarrierError):
                together.wait(timeout=60)
        return found

    monkeypatch.setattr(turns, "last", last)


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(lambda call: call(), calls))


def spent() -> list[float]:
    """The levels that were taken, in turn."""
    with connect() as connection:
        taken = connection.execute("SELECT figures FROM evertune.gate_turns ORDER BY place").fetchall()
    return [figures["level"] for (figures,) in taken]


@pytest.mark.usefixtures("repetition")
def test_two_gates_at_once_have_a_turn_each_and_spend_no_more_than_one_after_the_other(plan, monkeypatch) -> None:
    one, other = guess(plan, 1), guess(plan, 2)
    all_see_the_same(2, monkeypatch)

    decided = at_once([lambda: gate(plan, one), lambda: gate(plan, other)])

    assert sorted(figures["turn"] for figures in decided) == [1, 2]
    assert len({figures["series"] for figures in decided}) == 1
    assert sum(figures["level"] for figures in decided) == pytest.approx(ALPHA / 2 + ALPHA / 6)
    assert spent() == pytest.approx([ALPHA / 2, ALPHA / 6])


@pytest.mark.usefixtures("repetition")
def test_of_many_gates_at_once_none_takes_the_turn_of_another(plan, monkeypatch) -> None:
    holdout, rules, version = load_dataset(plan.data, "holdout"), plan.use_case.promotion, guess(plan, 1)
    all_see_the_same(8, monkeypatch)

    taken = at_once([lambda: take_turn(plan, version, holdout, rules, len(holdout.y))] * 8)

    assert sorted(turn.number for turn in taken) == [*range(1, 9)]
    assert sum(turn.level for turn in taken) == pytest.approx(ALPHA * 8 / 9)


def test_a_gate_that_is_killed_before_it_has_decided_has_spent_its_turn(plan) -> None:
    version = guess(plan, 1)

    assert end(*start(lambda: gate(plan, version), kill_at=1))[0] == signal.SIGKILL
    assert [entry.version for entry in Ledger().promotions("toy")] == [1], "it hasn't decided"
    assert gate(plan, version)["turn"] == 2

    assert spent() == pytest.approx([ALPHA / 2, ALPHA / 6])


def test_a_turn_that_was_taken_can_be_neither_given_back_nor_changed(plan) -> None:
    gate(plan, guess(plan, 1))
    for statement in ("UPDATE evertune.gate_turns SET figures = '{}'", "DELETE FROM evertune.gate_turns"):
        with connect() as connection, pytest.raises(psycopg.errors.RaiseException, match="append-only"):
            connection.execute(statement)
