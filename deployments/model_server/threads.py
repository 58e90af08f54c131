"""Where answers are made, so that the event loop only reads and writes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from deployments.model_server.answers import ARROW, JSON, Asked, Question, answer, read

SMALL_BYTES = 16 * 1024  # some rows, but for Arrow: a few bytes of it stand for millions
BULKY_BYTES = 1024 * 1024  # of JSON
MOST, MOST_ROWS = 32, 1000  # requests that are answered together, and rows with which no other one joins them
WAIT = 0.25  # of the time that an answer took: how long the next one waits for as many requests as are expected

Waiting = tuple[Question, asyncio.Future[bytes]]
Taken = tuple[asyncio.Future[bytes], Asked | Exception]


@dataclass(frozen=True)
class Group:
    """Requests that may come again: n: how many; until_s: when they have, or don't, on the monotonic clock."""

    n: int = 1
    until_s: float = 0.0

    def wait_s(self, n: int, now_s: float) -> float:
        """How long `n` of them wait for the next one."""
        return max(0.0, self.until_s - now_s) if n < self.n else 0.0


class Together:
    """One thread answers all small requests that wait for a model.

    A call of a model costs much more than a row of it, so requests that come together are cheap: the more of them
    wait, the faster they are answered. Who was answered asks again, but not at one moment: so the first waits a little
    for the others, and those that came meanwhile wait for those that were just answered, or else two halves would take
    turns for good. Who asks alone never waits.
    """

    def __init__(self, name: str) -> None:
        self._waiting: SimpleQueue[Waiting] = SimpleQueue()
        self._expected = Group()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"small {name}")

    def put(self, question: Question, future: asyncio.Future[bytes]) -> None:
        """Let a request be answered; the future gets the answer."""
        self._waiting.put((question, future))
        self._thread.submit(self._answer_waiting)

    def _answer_waiting(self) -> None:
        """Each request brings one call of this, which finds nothing to do where an earlier one has taken it along."""
        if not (taken := take(self._waiting, self._expected)):
            return
        begun = time.monotonic()
        _answer(taken)
        ended = time.monotonic()
        self._expected = Group(len(taken) + self._waiting.qsize(), ended + WAIT * (ended - begun))


class Threads:
    """Small requests are answered together, by a thread for each model; the large ones have threads of their own.

    A body of JSON becomes up to ninety times as much memory while it is read, so of the bulky ones one is answered at a
    time. Reading them is Python's own work, of which no second thread does more.
    """

    def __init__(self, models: Iterable[str], n: int) -> None:
        self._small = {name: Together(name) for name in models}
        self._large = ThreadPoolExecutor(n, thread_name_prefix="large")
        self._bulky = ThreadPoolExecutor(1, thread_name_prefix="bulky")

    async def answer(self, name: str, question: Question) -> bytes:
        """The answer to a request to the model of that name; raises what it raises."""
        future = asyncio.get_running_loop().create_future()
        if is_small(question):
            self._small[name].put(question, future)
        else:
            threads = self._bulky if is_bulky(question) else self._large
            threads.submit(lambda: _answer([(future, read(question))]))
        return await future


def is_small(question: Question) -> bool:
    """Whether its rows are so few that others may wait for them."""
    *_, content_type, body = question
    return content_type != ARROW and len(body) <= SMALL_BYTES


def is_bulky(question: Question) -> bool:
    """Whether reading its rows may take hundreds of megabytes."""
    *_, content_type, body = question
    return content_type == JSON and len(body) > BULKY_BYTES


def take(waiting: SimpleQueue[Waiting], expected: Group) -> list[Taken]:
    """Read the first that wait, as many as are predicted in one call, and those that are expected."""
    taken: list[Taken] = []
    n_rows = 0
    while len(taken) < MOST and n_rows < MOST_ROWS:
        try:
            wait_s = expected.wait_s(len(taken), time.monotonic()) if taken else 0.0
            question, future = waiting.get(timeout=wait_s)
        except Empty:
            break
        found = read(question)
        taken.append((future, found))
        n_rows += len(found.rows) if isinstance(found, Asked) else 0
    return taken


def _answer(taken: Sequence[Taken]) -> None:
    """Answer requests together."""
    futures, found = zip(*taken, strict=True)
    futures[0].get_loop().call_soon_threadsafe(_deliver, futures, answer(found))


def _deliver(futures: Sequence[asyncio.Future[bytes]], answers: Sequence[bytes | Exception]) -> None:
    for future, found in zip(futures, answers, strict=True):
        if future.done():  # its request was cancelled
            continue
        if isinstance(found, Exception):
            future.set_exception(found)
        else:
            future.set_result(found)
