"""Where answers are made: by the event loop where that is short, else by threads, so that it reads and writes on."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from deployments.model_server.answers import ARROW, JSON, Asked, Question, answer, at_once, read
from deployments.model_server.live import Served

SMALL_BYTES = 16 * 1024  # some rows, but for Arrow: a few bytes of it stand for millions
SMALL_RECORDS = 100  # objects of JSON: those of MLflow's forms may leave columns out, and are rows of all of them
BULKY_BYTES = 1024 * 1024  # of JSON
MOST, MOST_ROWS = 32, 1000  # requests that are answered together, and rows with which no other one joins them
SHORT_S = 0.01  # what a call of a model may take in the event loop, where a thread's turn would cost a millisecond
WAIT = 0.25  # of the time that an answer took: how long the next one waits for as many requests as are expected
MOST_WAIT_S = 0.05

Waiting = tuple[asyncio.Future[bytes], Asked]
Answers = TypeVar("Answers")


@dataclass(frozen=True)
class Group:
    """Requests that may come again: n: how many; until_s: when they have, or don't, on the loop's clock."""

    n: int = 1
    until_s: float = 0.0


@dataclass(frozen=True)
class Call:
    """A call of a version with some rows, and how long it took; by default one that says nothing of others."""

    served: Served | None = None
    n_rows: int = 1
    took_s: float = math.inf

    def takes_s(self, asked: Sequence[Asked]) -> float:
        """How long another one may take at most."""
        if any(one.served is not self.served for one in asked):
            return math.inf
        return self.took_s * max(1.0, n_rows(asked) / self.n_rows)


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
        self._complete = asyncio.Event()
        self._answering: asyncio.Task[None] | None = None
        self._last = Call()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"small {name}")

    async def answer(self, question: Question) -> bytes:
        """The answer to a request; raises what it raises."""
        found = read(question)
        if isinstance(found, Exception):
            raise found
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append((future, found))
        if self._is_complete():
            self._complete.set()
        if self._answering is None or self._answering.done():
            self._answering = asyncio.create_task(self._answer_waiting())
        return await future

    def _is_complete(self) -> bool:
        """Whether nobody more is expected, or could join those that wait."""
        return len(self._waiting) >= self._expected.n or n_rows([asked for _, asked in self._waiting]) >= MOST_ROWS

    async def _answer_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            await self._expect()
            taken = take(self._waiting)
            begun_s = loop.time()
            answers = await self._call([asked for _, asked in taken])
            wait_s = min(WAIT * (loop.time() - begun_s), MOST_WAIT_S)
            self._expected = Group(min(MOST, len(taken) + len(self._waiting)), loop.time() + wait_s)
            deliver(taken, answers)

    async def _expect(self) -> None:
        """Wait for those that are expected, but not long."""
        if not self._is_complete():
            self._complete.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._expected.until_s):
                    await self._complete.wait()

    async def _call(self, asked: Sequence[Asked]) -> Sequence[bytes | Exception]:
        """Never raises: who waits would wait for ever."""
        if self._last.takes_s(asked) <= SHORT_S:
            called, answers = timed(at_once, asked)
            if isinstance(answers, list):
                self._last = called
                await asyncio.sleep(0)  # what came meanwhile is read,
                await asyncio.sleep(0)  # and joins those that wait
                return answers
        try:
            called, said = await asyncio.get_running_loop().run_in_executor(self._thread, timed, answer, asked)
        except Exception as err:  # noqa: BLE001 # such as that there may be no more threads
            return [RuntimeError(repr(err)) for _ in asked]
        if all(isinstance(one, bytes) for one in said):
            self._last = called
        return said


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
    """Whether its rows are so few that the event loop may read them, and others wait for them."""
    *_, content_type, body = question
    if content_type == ARROW or len(body) > SMALL_BYTES:
        return False
    return content_type != JSON or body.count(b"{") <= SMALL_RECORDS


def is_bulky(question: Question) -> bool:
    """Whether reading its rows may take hundreds of megabytes."""
    *_, content_type, body = question
    return content_type == JSON and len(body) > BULKY_BYTES


def n_rows(asked: Sequence[Asked]) -> int:
    return sum(len(one.rows) for one in asked)


def take(waiting: deque[Waiting]) -> list[Waiting]:
    """The first that wait, as many as are predicted in one call."""
    taken: list[Waiting] = []
    while waiting and len(taken) < MOST and n_rows([asked for _, asked in taken]) < MOST_ROWS:
        taken.append(waiting.popleft())
    return taken


def timed(call: Callable[[Sequence[Asked]], Answers], asked: Sequence[Asked]) -> tuple[Call, Answers]:
    """The answers, and what they say of the next call."""
    begun_s = time.monotonic()
    answers = call(asked)
    return Call(asked[0].served, n_rows(asked), time.monotonic() - begun_s), answers


def deliver(taken: Sequence[Waiting], answers: Sequence[bytes | Exception]) -> None:
    for (future, _), said in zip(taken, answers, strict=True):
        if future.done():  # its request was cancelled
            continue
        if isinstance(said, Exception):
            future.set_exception(said)
        else:
            future.set_result(said)
