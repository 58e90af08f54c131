"""The record of a chain."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared.config import UseCase
from shared.events.chain import Chain, newest_chain
from shared.events.graph import Flow, Graph
from shared.events.runner import ChainRunner
from shared.events.watch import is_worth_a_look
from shared.settings import settings

NOW = datetime(2026, 11, 24, 6, 30, tzinfo=UTC)
PREP, HPO = Flow("Prep", Path("a")), Flow("HPO", Path("b"), frozenset({"Prep"}))
GRAPH = Graph.of(PREP, HPO)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVERTUNE_HOME", str(tmp_path))
    settings.cache_clear()
    yield
    settings.cache_clear()


def begun(use_case: str = "digits", now: datetime = NOW, pid: int = 1) -> Chain:
    return Chain.begin(use_case, GRAPH, pid, now)


def ended(prep: str, hpo: str) -> Chain:
    chain = begun().update("Prep", state=prep).update("HPO", state=hpo)
    return chain.model_copy(update={"finished_at": NOW})


def use_case(**tables: object) -> UseCase:
    data = {"source": "sklearn:digits", "target": "target"}
    return UseCase.model_validate({"name": "x", "title": "X", "data": data, "tuning": {"metric": "r2"}, **tables})


def test_a_chain_runs_until_its_end_is_recorded():
    assert begun().update("Prep", state="failed").state == "running"


@pytest.mark.parametrize(
    ("prep", "hpo", "state"),
    [
        ("done", "done", "done"),
        ("failed", "skipped", "failed"),
        ("done", "failed", "failed"),
        ("done", "stopped", "stopped"),
        ("stopped", "waiting", "stopped"),
    ],
)
def test_a_chain_ends_as_its_flows_do(prep, hpo, state):
    assert ended(prep, hpo).state == state


def test_the_newest_chain_of_a_use_case_is_found_again():
    mine, later, other = begun(), begun(now=NOW + timedelta(hours=1)), begun("wine", NOW + timedelta(hours=2))
    for chain in (later, mine, other):
        chain.save()

    assert newest_chain("digits") == later
    assert newest_chain() == other
    assert newest_chain("diabetes") is None


HOLD = """
import sys
from shared.events.chain import newest_chain
with newest_chain().held():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_chain_has_died_when_the_process_that_held_it_is_gone():
    begun().save()
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        assert not newest_chain().died

        process.kill()
        process.wait()

        assert newest_chain().died
        assert not ended("done", "done").died


def test_a_chain_has_died_even_if_its_process_id_is_somebody_elses_now():
    begun(pid=os.getpid()).save()

    assert newest_chain().died


def test_a_flow_that_has_nothing_to_do_is_not_started_and_what_waits_for_it_comes_next():
    chain = ChainRunner(use_case(classical={"objective": "o.py"}), GRAPH, root=Path(), idle=lambda f: f"no {f.name}")

    assert chain._due() == []
    assert [(flow.state, flow.note) for flow in chain.chain.flows.values()] == [("idle", "no Prep"), ("idle", "no HPO")]


def test_a_flow_is_asked_once_whether_it_has_something_to_do():
    asked = []

    def idle(flow: Flow) -> str:
        asked.append(flow.name)
        return "done" if flow.name == "Other" else ""

    graph = Graph.of(PREP, Flow("Other", Path("c")))
    chain = ChainRunner(use_case(classical={"objective": "o.py"}), graph, root=Path(), idle=idle)

    assert chain._due() == chain._due() == [PREP]
    assert sorted(asked) == ["Other", "Prep"]


def test_the_database_is_asked_only_when_a_flow_has_run_for_a_while():
    chain = begun().update("Prep", state="running", started_at=NOW)

    assert not is_worth_a_look(chain, NOW + timedelta(seconds=1))
    assert is_worth_a_look(chain, NOW + timedelta(seconds=5))
    assert not is_worth_a_look(chain.update("Prep", state="done"), NOW + timedelta(seconds=5))
