"""Where answers are made, so that the event loop only reads and writes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from deployments.model_server.answers import ARROW, Asked, Question, answer, read

SMALL_BYTES = 16 * 1024  # some rows, but for Arrow: a few bytes of it stand for millions
MOST, MOST_ROWS = 32, 1000  # requests that are answered together, and rows with which no other one joins them

Waiting = tuple[Question, asyncio.Future[bytes]]


class Threads:
    """One thread answers small requests, all that wait at a time; the large ones have threads of their own.

    A call of a model costs much more than a row of it, so requests that come together are cheap: the more of them
    wait, the faster they are answered. None waits for others to come.
    """

    def __init__(self, n: int) -> None:
        self._waiting: deque[Waiting] = deque()
        self._small = ThreadPoolExecutor(1, thread_name_prefix="small")
        self._large = ThreadPoolExecutor(n, thread_name_prefix="large")

    async def answer(self, question: Question) -> bytes:
        """The answer to a request; raises what it raises."""
        future = asyncio.get_running_loop().create_future()
        if is_small(question):
            self._waiting.append((question, future))
            self._small.submit(self._answer_waiting)
        else:
            self._large.submit(_answer, deque([(question, future)]))
        return await future

    def _answer_waiting(self) -> None:
        """Each request brings one call of this, which finds nothing to do where an earlier one has taken it along."""
        if self._waiting:
            _answer(self._waiting)


def is_small(question: Question) -> bool:
    """Whether its rows are so few that others may wait for them."""
    *_, content_type, body = question
    return content_type != ARROW and len(body) <= SMALL_BYTES


def _answer(waiting: deque[Waiting]) -> None:
    """Answer the first that wait together."""
    futures, found = zip(*take(waiting), strict=True)
    futures[0].get_loop().call_soon_threadsafe(_deliver, futures, answer(found))


def take(waiting: deque[Waiting]) -> list[tuple[asyncio.Future[bytes], Asked | Exception]]:
    """Read the first that wait, as many as are predicted in one call."""
    taken, n_rows = [], 0
    while waiting and len(taken) < MOST and n_rows < MOST_ROWS:
        question, future = waiting.popleft()
        found = read(question)
        taken.append((future, found))
        n_rows += len(found.rows) if isinstance(found, Asked) else 0
    return taken


def _deliver(futures: Sequence[asyncio.Future[bytes]], answers: Sequence[bytes | Exception]) -> None:
    for future, found in zip(futures, answers, strict=True):
        if future.done():  # its request was cancelled
            continue
        if isinstance(found, Exception):
            future.set_exception(found)
        else:
            future.set_result(found)
