"""Which requests are answered together, and by whom."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from deployments.model_server import threads
from deployments.model_server.answers import ARROW, JSON, predict_proba, read
from deployments.model_server.live import Served
from deployments.model_server.rows import InvalidRowsError
from deployments.model_server.threads import MOST, SMALL_BYTES, Threads, is_small, take
from tests.unit.test_model_server_answers import ROWS, as_arrow, asked, hours, served

Ask = Callable[..., Coroutine[Any, Any, bytes]]  # of a row, or of so many of a version


class Calls:
    """How a model is called: with how many rows each time, and by which thread. It can be held."""

    def __init__(self) -> None:
        self.n_rows: list[int] = []
        self.by: list[str] = []
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.during: Callable[[], object] = lambda: None
        self.may_end.set()
        self.model = self._served()

    def _served(self) -> Served:
        made = served(lambda days: self._hours(days))  # a function isn't copied
        self.n_rows.clear(), self.by.clear()
        return made

    def _hours(self, days: pd.DataFrame) -> np.ndarray:
        self.n_rows.append(len(days))
        self.by.append(threading.current_thread().name)
        self.during()
        self.begun.set()
        assert self.may_end.wait(60)
        return hours(days)

    def run(self, story: Callable[[Ask], Coroutine[Any, Any, None]]) -> None:
        """Let it happen; what hangs ends after a minute."""

        async def told() -> None:
            answering = Threads(["mixed"], 1)
            await asyncio.wait_for(story(lambda *rows: answering.answer("mixed", asked(*rows or (1, self.model)))), 60)

        asyncio.run(told())

    @property
    def by_the_loop(self) -> list[bool]:
        return [name == threading.current_thread().name for name in self.by]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Of a model for whose callers the next one waits until they are there."""
    monkeypatch.setattr(threads, "WAIT", 1e6)
    monkeypatch.setattr(threads, "MOST_WAIT_S", 1e6)
    return Calls()


def test_requests_are_predicted_together_up_to_a_number_and_until_their_rows_are_many():
    model = served()
    for waiting, expected in (([1] * (MOST + 8), [MOST, 8]), ([600, 600, 600, 5000, 1, 1], [2, 2, 2])):
        left = deque((None, read(asked(n_rows, model))) for n_rows in waiting)
        assert [len(take(left)) for _ in expected] == expected
        assert not left


async def one_then_another(ask: Ask) -> None:
    """Two ask together; then one comes again, and later the other."""
    await asyncio.gather(ask(), ask())
    first = asyncio.ensure_future(ask())
    await asyncio.sleep(0.1)
    await asyncio.gather(first, ask())


def test_the_first_of_a_group_waits_for_those_that_were_answered_with_it(calls):
    calls.run(one_then_another)
    assert calls.n_rows == [2, 2]


def test_it_waits_no_longer_than_a_share_of_the_time_that_the_answer_took(calls, monkeypatch):
    monkeypatch.setattr(threads, "WAIT", 0)
    calls.run(one_then_another)
    assert calls.n_rows == [2, 1, 1]


def test_who_asks_alone_never_waits(calls):
    async def again_and_again(ask: Ask) -> None:
        for _ in range(3):
            await ask()

    calls.run(again_and_again)
    assert calls.n_rows == [1, 1, 1]


def test_those_that_came_meanwhile_wait_for_who_was_just_answered(calls):
    async def story(ask: Ask) -> None:
        calls.begun.clear(), calls.may_end.clear()
        first = asyncio.ensure_future(ask())
        await asyncio.to_thread(calls.begun.wait, 60)
        meanwhile = [asyncio.ensure_future(ask()) for _ in range(2)]
        await asyncio.sleep(0)
        calls.may_end.set()
        await first
        await asyncio.sleep(0.2)  # in which the others would be taken without it
        await asyncio.gather(ask(), *meanwhile)

    calls.run(story)
    assert calls.n_rows == [1, 3]


def test_so_do_those_that_could_not_be_read_meanwhile_since_the_loop_predicted(calls, monkeypatch):
    monkeypatch.setattr(threads, "SHORT_S", 1e9)

    async def story(ask: Ask) -> None:
        await ask()
        loop, meanwhile = asyncio.get_running_loop(), []
        calls.during = lambda: loop.call_soon(lambda: meanwhile.append(asyncio.ensure_future(ask())))
        await ask()
        calls.during = lambda: None
        await asyncio.sleep(0.2)
        await asyncio.gather(ask(), *meanwhile)

    calls.run(story)
    assert calls.n_rows == [1, 1, 2]


def test_as_many_as_are_answered_together_wait_for_nobody(calls, monkeypatch):
    monkeypatch.setattr(threads, "MOST", 2)

    async def story(ask: Ask) -> None:
        await asyncio.gather(ask(), ask(), ask(), ask())

    calls.run(story)
    assert calls.n_rows == [2, 2]


def test_so_many_rows_that_no_other_request_joins_them_wait_for_nobody(calls, monkeypatch):
    monkeypatch.setattr(threads, "MOST_ROWS", 5)

    async def story(ask: Ask) -> None:
        await asyncio.gather(ask(), ask())
        await ask(5, calls.model)

    calls.run(story)
    assert calls.n_rows == [2, 5]


async def three_times(ask: Ask) -> None:
    for _ in range(3):
        await ask()


@pytest.mark.parametrize(("short_s", "by_the_loop"), [(1e9, [False, True, True]), (0, [False, False, False])])
def test_what_was_short_the_last_time_is_done_by_the_loop(short_s: float, by_the_loop: list[bool], calls, monkeypatch):
    monkeypatch.setattr(threads, "SHORT_S", short_s)
    calls.run(three_times)
    assert calls.by_the_loop == by_the_loop


def test_the_loop_does_what_is_short_until_it_is_long_and_again_when_it_is_short(calls, monkeypatch):
    monkeypatch.setattr(threads, "SHORT_S", 0.5)
    lasts_s = iter([0, 0, 1, 1, 0, 0, 0])
    calls.during = lambda: time.sleep(next(lasts_s))

    async def story(ask: Ask) -> None:
        for _ in range(7):
            await ask()

    calls.run(story)
    assert calls.by_the_loop == [False, True, True, False, False, True, True]


def test_how_long_a_call_takes_says_nothing_of_one_with_more_rows_or_of_another_version(calls, monkeypatch):
    monkeypatch.setattr(threads, "SHORT_S", 0.5)
    calls.during = lambda: time.sleep(0.01)

    async def story(ask: Ask) -> None:
        await ask()
        await ask()
        await ask(100, calls.model)
        await ask(100, calls.model)
        await ask(100, replace(calls.model))
        await ask(100, calls.model)

    calls.run(story)
    assert calls.by_the_loop == [False, True, False, True, False, False]


def test_a_request_that_cant_be_read_waits_for_nobody_and_says_nothing_of_how_long_a_call_takes(calls, monkeypatch):
    monkeypatch.setattr(threads, "SHORT_S", 0.5)
    calls.during = lambda: time.sleep(1)

    async def story(ask: Ask) -> None:
        await asyncio.gather(ask(), ask())
        with pytest.raises(InvalidRowsError, match="there must be at least one row"):
            await ask(0, calls.model)
        await asyncio.gather(ask(), ask())

    calls.run(story)
    assert calls.n_rows == [2, 2]
    assert calls.by_the_loop == [False, False]


def test_refused_rows_are_searched_for_by_the_thread(calls, monkeypatch):
    monkeypatch.setattr(threads, "SHORT_S", 1e9)

    def refuse() -> None:
        raise ValueError("no")

    async def story(ask: Ask) -> None:
        await ask()
        calls.during = refuse
        refused = await asyncio.gather(*(ask() for _ in range(4)), return_exceptions=True)
        assert [type(said) for said in refused] == [InvalidRowsError] * 4

    calls.run(story)
    assert calls.n_rows == [1, 4, 4, 2, 1, 1, 2, 1, 1]
    assert calls.by_the_loop == [False, True] + [False] * 7


def test_where_no_thread_starts_all_who_wait_are_told_and_the_next_are_answered(calls, monkeypatch):
    def fail(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    async def story(ask: Ask) -> None:
        with monkeypatch.context() as broken:
            broken.setattr(threads, "timed", fail)
            failed = await asyncio.gather(ask(), ask(), return_exceptions=True)
            assert [type(said) for said in failed] == [RuntimeError] * 2
        assert all(isinstance(said, bytes) for said in await asyncio.gather(ask(), ask()))

    calls.run(story)


def test_a_model_that_raises_what_no_future_takes_is_an_error_of_the_server(calls):
    def stop() -> None:
        raise StopIteration

    async def story(ask: Ask) -> None:
        calls.during = stop
        with pytest.raises(RuntimeError, match="StopIteration"):
            await ask()

    calls.run(story)


def test_who_has_gone_is_not_answered_and_costs_the_others_nothing(calls):
    async def story(ask: Ask) -> None:
        calls.begun.clear(), calls.may_end.clear()
        gone, other = asyncio.ensure_future(ask()), asyncio.ensure_future(ask())
        await asyncio.to_thread(calls.begun.wait, 60)
        gone.cancel()
        calls.may_end.set()
        assert isinstance(await other, bytes)

    calls.run(story)
    assert calls.n_rows == [2]


def test_arrow_is_never_small_since_a_few_bytes_of_it_stand_for_many_rows():
    model, row = served(), ROWS["text"]
    assert is_small((predict_proba, model, JSON, json.dumps([row]).encode()))
    assert not is_small((predict_proba, model, JSON, b" " * (SMALL_BYTES + 1)))
    assert not is_small((predict_proba, model, ARROW, as_arrow([row])))


def test_neither_is_json_of_many_objects_since_each_may_stand_for_a_row_of_all_columns():
    model, few, many = served(), b'[{"a":1}' + b",{}" * 99 + b"]", b'[{"a":1}' + b",{}" * 100 + b"]"
    assert is_small((predict_proba, model, JSON, few))
    assert not is_small((predict_proba, model, JSON, many))
