"""Writes that nobody waits for are sent a moment later, by a thread of their own."""

from __future__ import annotations

import atexit
import logging
import os
import time
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Protocol

logger = logging.getLogger(__name__)

# Long enough that a quick trial's writes travel with its end, short enough that a killed worker's parameters are known.
LINGER_S = 0.02


class Sender(Protocol):
    def flush(self) -> None:
        """Send what waits to be sent."""


class Outbox:
    """Whoever has something to send. One for a process.

    Its primitives are those of C: an exception from a signal in the middle of `Event.set` leaves the event locked.
    """

    def __init__(self) -> None:
        self._senders: set[Sender] = set()
        self._lock = Lock()
        self._wakes: SimpleQueue[None] = SimpleQueue()
        self._thread: Thread | None = None

    def add(self, sender: Sender) -> None:
        """Let `sender` flush in a moment."""
        with self._lock:
            if not self._senders:
                self._wakes.put(None)
            self._senders.add(sender)
            if self._thread is None:
                thread = Thread(target=self._run, name="evertune-outbox", daemon=True)
                thread.start()
                self._thread = thread

    def flush(self) -> None:
        """Let everybody flush now."""
        with self._lock:
            senders, self._senders = self._senders, set()
        for sender in senders:
            try:
                sender.flush()
            except Exception:  # whoever ends the trial sends the same again, and is told
                logger.warning("writes not sent", exc_info=True)

    def _run(self) -> None:
        while True:
            self._wakes.get()
            time.sleep(LINGER_S)
            self.flush()


_outbox = Outbox()


def outbox() -> Outbox:
    """The process's own."""
    return _outbox


def _after_fork() -> None:
    global _outbox
    _outbox = Outbox()


atexit.register(lambda: outbox().flush())
os.register_at_fork(after_in_child=_after_fork)
