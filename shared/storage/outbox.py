"""Writes that nobody waits for are sent a moment later, by a thread of their own."""

from __future__ import annotations

import atexit
import logging
import os
import time
from threading import Event, Lock, Thread
from typing import Protocol

logger = logging.getLogger(__name__)

# Long enough that a quick trial's writes travel with its end, short enough that a killed worker's parameters are known.
LINGER_S = 0.02


class Sender(Protocol):
    def flush(self) -> None:
        """Send what waits to be sent."""


class Outbox:
    """Whoever has something to send. One for a process."""

    def __init__(self) -> None:
        self._senders: set[Sender] = set()
        self._lock = Lock()
        self._wake = Event()
        self._thread: Thread | None = None

    def add(self, sender: Sender) -> None:
        """Let `sender` flush in a moment."""
        with self._lock:
            self._senders.add(sender)
            if self._thread is None:
                self._thread = Thread(target=self._run, name="evertune-outbox", daemon=True)
                self._thread.start()
        self._wake.set()

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
            self._wake.wait()
            time.sleep(LINGER_S)
            self._wake.clear()
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
