"""What waits to be sent is sent a moment later, whatever a signal interrupts."""

from __future__ import annotations

import random
import signal
from contextlib import suppress
from threading import Event
from typing import Any

import pytest

from shared.storage import outbox
from shared.storage.outbox import Outbox


class Letters:
    """A sender that says when it was asked to send."""

    def __init__(self) -> None:
        self.sent = Event()

    def flush(self) -> None:
        self.sent.set()


def test_a_sender_is_asked_once_in_a_moment() -> None:
    box, letters = Outbox(), Letters()
    for _ in range(3):
        box.add(letters)
    assert letters.sent.wait(60)
    letters.sent.clear()
    assert not letters.sent.wait(10 * outbox.LINGER_S)


def test_one_that_can_t_send_keeps_nobody_from_it(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def flush(self) -> None:
            raise ConnectionError

    box, letters = Outbox(), Letters()
    box.add(Broken())
    box.add(letters)
    assert letters.sent.wait(60)
    box.add(Broken())
    box.flush()
    assert "writes not sent" in caplog.text


def test_a_signal_in_the_middle_leaves_it_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    adding = Event()

    def interrupts(*_: Any) -> None:
        if adding.is_set():
            raise TimeoutError

    monkeypatch.setattr(outbox, "LINGER_S", 0.0)
    box, letters = Outbox(), Letters()
    box.add(letters)
    previous = signal.signal(signal.SIGALRM, interrupts)
    for _ in range(2000):
        with suppress(TimeoutError):
            signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-5, 3e-4))
            adding.set()
            for _ in range(1000):
                box.add(letters)
            adding.clear()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)
    letters.sent.clear()
    box.add(letters)
    assert letters.sent.wait(60)
