"""A chain beside its caller: stopped at any moment, followed to its last letter, and never taken for alive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shared.errors import FlowError, ServiceError
from shared.events.background import Background
from shared.events.chain import Chain
from shared.events.graph import Flow, Graph
from shared.events.runner import ChainRunner
from shared.settings import settings
from tests.unit.test_flow_request import USE_CASE

FLOW = Flow("Tune", Path("tune.py"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVERTUNE_HOME", str(tmp_path))
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


class Scripted(ChainRunner):
    """Does what a test says in place of starting the flow."""

    def __init__(self, script: Callable[[Scripted], object]) -> None:
        super().__init__(USE_CASE, Graph.of(FLOW), root=Path(), watch_signals=False)
        self._script = script

    async def _run_flow(self, flow: Flow, cores: int | None) -> None:
        del cores
        self._script(self)
        await asyncio.sleep(0.3)
        self._finish(flow, 0)


def nothing(_: Scripted) -> None:
    pass


def test_one_that_is_cancelled_before_it_has_begun_does_not_run():
    done: list[Scripted] = []
    runner = Scripted(done.append)
    runner.stop()

    background = Background(runner)

    with pytest.raises(FlowError, match="Tune stopped"):
        background.wait()
    assert (background.status, done) == ("stopped", [])


def test_one_that_has_ended_can_be_cancelled_all_the_same():
    background = Background(Scripted(nothing))
    assert background.wait()

    background.cancel()

    assert background.wait()
    assert background.status == "done"


def test_a_log_is_followed_to_its_end_also_where_a_line_has_none():
    def write(runner: Scripted) -> None:
        runner.chain.log("Tune").write_text("one\ntwo\nhal", encoding="utf-8")

    async def lines() -> list[str]:
        return [line async for line in Background(Scripted(write)).log()]

    assert asyncio.run(asyncio.wait_for(lines(), 30)) == ["one", "two", "hal"]


def test_one_that_could_not_even_be_recorded_has_failed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVERTUNE_HOME", "/proc/nowhere")
    settings.cache_clear()

    background = Background(Scripted(nothing))

    with pytest.raises(ServiceError, match="EVERTUNE_HOME must be a folder"):
        background.wait()
    assert background.status == "failed"


def test_waiting_for_less_than_the_end_says_so_and_an_own_timeout_is_an_error():
    def time_out(_: Scripted) -> None:
        raise TimeoutError("of the network")

    slow = Background(Scripted(nothing))
    assert not slow.wait(0.01)
    assert slow.wait()

    with pytest.raises(TimeoutError, match="of the network"):
        Background(Scripted(time_out)).wait(30)


def test_it_is_on_record_when_it_has_been_started():
    runner = Scripted(nothing)
    background = Background(runner)

    on_record = Chain.model_validate_json((runner.chain.folder / "chain.json").read_text())

    assert on_record.started_at <= datetime.now(UTC)
    assert background.wait()
