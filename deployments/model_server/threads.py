"""Where answers are made, so that the event loop only reads and writes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from deployments.model_server.answers import Question, answer

SMALL_BYTES = 16 * 1024  # some rows
MOST = 32  # requests that are answered together


class Threads:
    """One thread answers small requests, all that wait at a time; the large ones have threads of their own.

    A call of a model costs much more than a row of it, so requests that come together are cheap: the more of them
    wait, the faster they are answered. None waits for others to come.
    """

    def __init__(self, n: int) -> None:
        self._waiting: deque[tuple[Question, asyncio.Future[bytes]]] = deque()
        self._small = ThreadPoolExecutor(1, thread_name_prefix="small")
        self._large = ThreadPoolExecutor(n, thread_name_prefix="large")

    async def answer(self, question: Question) -> bytes:
        """The answer to a request; raises what it raises."""
        future = asyncio.get_running_loop().create_future()
        if len(question[-1]) <= SMALL_BYTES:
            self._waiting.append((question, future))
            self._small.submit(self._answer_waiting)
        else:
            self._large.submit(_answer, [(question, future)])
        return await future

    def _answer_waiting(self) -> None:
        """Each request brings one call of this, which finds nothing to do where an earlier one has taken it along."""
        if batch := [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))]:
            _answer(batch)


def _answer(batch: Sequence[tuple[Question, asyncio.Future[bytes]]]) -> None:
    answers = answer([question for question, _ in batch])
    batch[0][1].get_loop().call_soon_threadsafe(_deliver, [future for _, future in batch], answers)


def _deliver(futures: Sequence[asyncio.Future[bytes]], answers: Sequence[bytes | Exception]) -> None:
    for future, found in zip(futures, answers, strict=True):
        if future.done():  # its request was cancelled
            continue
        if isinstance(found, Exception):
            future.set_exception(found)
        else:
            future.set_result(found)
