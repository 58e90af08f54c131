"""Where answers are made: by the event loop where that is short, else by threads, so that it reads and writes on."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from deployments.model_server.answers import ARROW, JSON, Asked, Question, answer, read

SMALL_BYTES = 16 * 1024  # some rows, but for Arrow: a few bytes of it stand for millions
BULKY_BYTES = 1024 * 1024  # of JSON
MOST, MOST_ROWS = 32, 1000  # requests that are answered together, and rows with which no other one joins them
SHORT_S = 0.03  # what a call of a model may take in the event loop, where a thread's turn would cost a millisecond
WAIT = 0.25  # of the time that an answer took: how long the next one waits for as many requests as are expected

Waiting = tuple[asyncio.Future[bytes], Asked | Exception]


@dataclass(frozen=True)
class Group:
    """Requests that may come again: n: how many; until_s: when they have, or don't, on the loop's clock."""

    n: int = 1
    until_s: float = 0.0


class Together:
    """All small requests that wait for a model are answered in one call.

    A call of a model costs much more than a row of it, so requests that come together are cheap: the more of them
    wait, the faster they are answered. Who was answered asks again, but not at one moment: so the first waits a little
    for the others, and those that came meanwhile wait for those that were just answered, or else two halves would take
    turns for good. Who asks alone never waits.
    """

    def __init__(self, name: str) -> None:
        self._waiting: deque[Waiting] = deque()
        self._expected = Group()
        self._all_there = asyncio.Event()
        self._answering: asyncio.Task[None] | None = None
        self._took_s = math.inf
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"small {name}")

    async def answer(self, question: Question) -> bytes:
        """The answer to a request; raises what it raises."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append((future, read(question)))
        if len(self._waiting) >= self._expected.n:
            self._all_there.set()
        if self._answering is None or self._answering.done():
            self._answering = asyncio.create_task(self._answer_waiting())
        return await future

    async def _answer_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            await self._expect()
            taken = take(self._waiting)
            begun_s = loop.time()
            answers = await self._call([found for _, found in taken])
            self._took_s = loop.time() - begun_s
            self._expected = Group(len(taken) + len(self._waiting), loop.time() + WAIT * self._took_s)
            deliver(taken, answers)

    async def _call(self, found: Sequence[Asked | Exception]) -> Sequence[bytes | Exception]:
        if self._took_s > SHORT_S:
            return await asyncio.get_running_loop().run_in_executor(self._thread, answer, found)
        answers = answer(found)
        await asyncio.sleep(0)  # what came meanwhile is read,
        await asyncio.sleep(0)  # and joins those that wait
        return answers

    async def _expect(self) -> None:
        """Wait for those that are expected, but not long."""
        if len(self._waiting) < self._expected.n:
            self._all_there.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._expected.until_s):
                    await self._all_there.wait()


class Threads:
    """Small requests to a model are answered together; the large ones have threads of their own.

    A body of JSON becomes up to ninety times as much memory while it is read, so of the bulky ones one is answered at a
    time. Reading them is Python's own work, of which no second thread does more.
    """

    def __init__(self, models: Iterable[str], n: int) -> None:
        self._small = {name: Together(name) for name in models}
        self._large = ThreadPoolExecutor(n, thread_name_prefix="large")
        self._bulky = ThreadPoolExecutor(1, thread_name_prefix="bulky")

    async def answer(self, name: str, question: Question) -> bytes:
        """The answer to a request to the model of that name; raises what it raises."""
        if is_small(question):
            return await self._small[name].answer(question)
        threads = self._bulky if is_bulky(question) else self._large
        found = await asyncio.get_running_loop().run_in_executor(threads, lambda: answer([read(question)])[0])
        if isinstance(found, Exception):
            raise found
        return found


def is_small(question: Question) -> bool:
    """Whether its rows are so few that others may wait for them."""
    *_, content_type, body = question
    return content_type != ARROW and len(body) <= SMALL_BYTES


def is_bulky(question: Question) -> bool:
    """Whether reading its rows may take hundreds of megabytes."""
    *_, content_type, body = question
    return content_type == JSON and len(body) > BULKY_BYTES


def take(waiting: deque[Waiting]) -> list[Waiting]:
    """The first that wait, as many as are predicted in one call."""
    taken: list[Waiting] = []
    n_rows = 0
    while waiting and len(taken) < MOST and n_rows < MOST_ROWS:
        taken.append(waiting.popleft())
        found = taken[-1][1]
        n_rows += len(found.rows) if isinstance(found, Asked) else 0
    return taken


def deliver(taken: Sequence[Waiting], answers: Sequence[bytes | Exception]) -> None:
    for (future, _), said in zip(taken, answers, strict=True):
        if future.done():  # its request was cancelled
            continue
        if isinstance(said, Exception):
            future.set_exception(said)
        else:
            future.set_result(said)
