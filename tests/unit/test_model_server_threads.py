"""Which requests are answered together, and by whom."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pandas as pd
import pytest

from deployments.model_server import threads
from deployments.model_server.answers import ARROW, JSON, predict_proba, read
from deployments.model_server.live import Served
from deployments.model_server.threads import MOST, SMALL_BYTES, Threads, is_small, take
from tests.unit.test_model_server_answers import ROWS, as_arrow, asked, hours, served

Ask = Callable[[], Coroutine[Any, Any, bytes]]


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
        async def told() -> None:
            answering = Threads(["mixed"], 1)
            await story(lambda: answering.answer("mixed", asked(1, self.model)))

        asyncio.run(told())


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Of a model for whose callers the next one waits until they are there."""
    monkeypatch.setattr(threads, "WAIT", 1e6)
    return Calls()


def test_requests_are_predicted_together_up_to_a_number_and_until_their_rows_are_many():
    model = served()
    for waiting, expected in (([1] * (MOST + 8), [MOST, 8]), ([600, 600, 600, 5000, 1, 1], [2, 2, 2]), ([0, 1], [2])):
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


@pytest.mark.parametrize(("short_s", "by_the_loop"), [(1e9, [False, True, True]), (0, [False, False, False])])
def test_what_was_short_the_last_time_is_done_by_the_loop(short_s: float, by_the_loop: list[bool], calls, monkeypatch):
    monkeypatch.setattr(threads, "SHORT_S", short_s)

    async def again_and_again(ask: Ask) -> None:
        for _ in range(3):
            await ask()

    calls.run(again_and_again)
    assert [name == threading.current_thread().name for name in calls.by] == by_the_loop


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
    assert not is_small((predict_proba, model, ARROW, as_arrow(row)))
