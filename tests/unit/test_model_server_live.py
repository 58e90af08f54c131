"""How the live model follows the registry: what it takes over, what it refuses, and what it says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

from deployments.model_server.live import OVERDUE_S, RETRY_S, LiveModel, follow
from shared.errors import RegistryError, ServiceError, UnloadableModelError


class Registry:
    """An alias to move, and versions that may fail to load."""

    def __init__(self) -> None:
        self.champion: int | Exception | None = 1
        self.faults: dict[int, Exception] = {}
        self.loaded: list[int] = []
        self.logged = 0
        self.now_s = 0.0

    def find(self, _: str) -> int | None:
        if isinstance(self.champion, Exception):
            raise self.champion
        return self.champion

    def load(self, _: str, number: int) -> Any:
        self.loaded.append(number)
        if number in self.faults:
            raise self.faults[number]
        return SimpleNamespace(version=SimpleNamespace(version=number))

    def log(self, _: str) -> None:
        self.logged += 1
        if self.logged == 2:
            raise ServiceError("the log can't be written")


def following(registry: Registry) -> LiveModel:
    live = LiveModel("digits", registry.find, registry.load, registry.log, lambda: registry.now_s)
    live.look()
    return live


def state(live: LiveModel) -> tuple[int | None, int, str]:
    return live.served and live.served.version.version, live.swaps, live.trouble


def test_the_champion_is_loaded_once_and_another_one_takes_its_place():
    registry = Registry()
    live = following(registry)
    live.look()
    assert (state(live), registry.loaded) == ((1, 0, ""), [1])
    begun = live.served
    registry.champion = 3
    live.look()
    assert state(live) == (3, 1, "")
    assert begun.version.version == 1
    registry.champion = 1
    live.look()
    assert (state(live), registry.loaded) == ((1, 2, ""), [1, 3, 1])


def test_the_log_is_told_once_of_each_version_and_what_hurts_it_does_not_hurt_the_live_one():
    registry = Registry()
    live = following(registry)
    live.look()
    assert registry.logged == 1
    registry.champion = 2
    live.look()
    assert (state(live), registry.logged) == ((2, 1, ""), 2)


def test_a_version_that_does_not_load_never_goes_live_and_is_not_tried_again_at_once():
    registry = Registry()
    live = following(registry)
    registry.champion, registry.faults[2] = 2, UnloadableModelError("it holds a pickle")
    live.look()
    registry.now_s = RETRY_S - 1
    live.look()
    assert state(live) == (1, 0, "version 2 is not let live: it holds a pickle")
    assert registry.loaded == [1, 2]
    registry.champion = 1
    live.look()
    assert state(live) == (1, 0, "")
    registry.champion = 3
    live.look()
    assert state(live) == (3, 1, "")


def test_a_version_that_was_refused_is_tried_again_each_minute_and_goes_live_once_it_loads():
    registry = Registry()
    live = following(registry)
    registry.champion, registry.faults[2] = 2, UnloadableModelError("a file is damaged")
    for registry.now_s in (0, RETRY_S, RETRY_S + 2):
        live.look()
        assert state(live) == (1, 0, "version 2 is not let live: a file is damaged")
    assert registry.loaded == [1, 2, 2]
    del registry.faults[2]
    for registry.now_s, version in ((2 * RETRY_S - 2, 1), (2 * RETRY_S, 2)):
        live.look()
        assert live.served.version.version == version
    assert live.trouble == ""


def test_files_that_can_not_be_fetched_are_asked_for_again():
    registry = Registry()
    live = following(registry)
    registry.champion, registry.faults[2] = 2, RegistryError("no route to the bucket")
    live.look()
    assert state(live) == (1, 0, "the registry doesn't answer: no route to the bucket")
    del registry.faults[2]
    live.look()
    assert state(live) == (2, 1, "")


def test_without_the_registry_or_with_a_fault_in_it_the_live_one_goes_on():
    registry = Registry()
    live = following(registry)
    for gone, said in (
        (ServiceError("refused"), "the registry doesn't answer: refused"),
        (KeyError("x"), "looking for the champion failed: KeyError('x')"),
        (None, "digits has no champion; `evertune run digits` makes one"),
    ):
        registry.champion = gone
        live.look()
        assert state(live) == (1, 0, said)
    registry.champion = 2
    live.look()
    assert state(live) == (2, 1, "")


def test_a_look_that_hangs_is_told_until_one_ends_again():
    registry = Registry()
    live = following(registry)
    asked, answered = Event(), Event()

    def find(_: str) -> int:
        asked.set()
        answered.wait(10)
        return 1

    live._find = find
    hanging = Thread(target=live.look)
    hanging.start()
    assert asked.wait(10)
    registry.now_s = OVERDUE_S
    assert state(live) == (1, 0, "")
    registry.now_s = OVERDUE_S + 1
    assert state(live)[2].startswith("the registry was last asked 31 s ago: it doesn't answer")
    answered.set()
    hanging.join(timeout=10)
    assert state(live) == (1, 0, "")


@contextmanager
def followed(live: LiveModel) -> Iterator[None]:
    stopped = Event()
    thread = Thread(target=follow, args=(live, stopped, 0.01))
    thread.start()
    yield
    stopped.set()
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_it_is_followed_until_it_is_told_to_stop():
    registry = Registry()
    live = LiveModel("digits", registry.find, registry.load, registry.log)
    done = Event()

    def load(name: str, number: int) -> Any:
        if number == 2:
            done.set()
        return registry.load(name, number)

    live._load = load
    with followed(live):
        registry.champion = 2
        assert done.wait(10)
