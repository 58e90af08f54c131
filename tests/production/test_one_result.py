"""One result per study, whatever becomes of events and runs: in random histories, and by flows that are killed."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from shared.config import UseCase, load_use_case
from shared.domain import ModelVersion, PromotionDecision, TrialSummary, TuningResult, Variant
from shared.errors import FlowError, ResultTaken
from shared.flow import hpo, system
from shared.flow.plan import Plan, outcome
from shared.registry import aliases, client, history, promotion
from shared.storage import claims
from shared.storage.database import connect
from shared.storage.ledger import Ledger
from tests import on_record
from tests.flows.conftest import IRIS, ROOT
from tests.on_record import prepare_rows

OBJECTIVE = """
def objective(trial): return trial.suggest_float("x", 0, 1)
def train(trial, data): ...
"""
VARIANTS: tuple[Variant, ...] = ("classical", "deep", "system")
HISTORIES = 20  # each time
ACTIONS = (
    "new data",
    *["deliver"] * 3,
    *["step"] * 6,
    "duplicate",
    "drop",
    "kill",
    "kill at an alias",
    "stall",
    "time",
)
numbers = itertools.count()


class Killed(BaseException):
    """No clean-up answers to it, as none would to a SIGKILL."""


class Run:
    """A run of a flow: a thread that goes from one `pause` to the next when it is told to."""

    def __init__(self, name: str, variant: Variant, work: Callable[[Run], None]) -> None:
        self.name, self.variant, self._work = name, variant, work
        self.over = self.finished = self.killed = False
        self.error: BaseException | None = None
        self._go, self._paused = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        self._go.acquire()
        try:
            self._work(self)
            self.finished = True
        except Killed:
            pass
        except BaseException as err:  # noqa: BLE001  # shown by the one who steps
            self.error = err
        self.over = True
        self._paused.release()

    def pause(self, *_: object) -> None:
        self._paused.release()
        self._go.acquire()
        if self.killed:
            raise Killed

    def step(self) -> None:
        self._go.release()
        self._paused.acquire()
        if self.error:
            raise self.error

    def kill(self) -> None:
        self.killed = True
        self.step()


class Registry:
    """Versions and aliases of registered models, as MLflow keeps them: the last writer of an alias wins."""

    def __init__(self) -> None:
        self.versions: dict[str, list[str]] = {}
        self.aliases: dict[tuple[str, str], int] = {}
        self.published: Counter[tuple[str, int]] = Counter()
        self.refused: set[tuple[str, int]] = set()
        self.deadly = False

    def register(self, model: str, study: str) -> int:
        self.versions.setdefault(model, []).append(study)
        return len(self.versions[model])

    def of(self, model: str) -> dict[str, int]:
        return {alias: version for (name, alias), version in self.aliases.items() if name == model}

    def has_version(self, model: str, version: int) -> bool:
        return version <= len(self.versions.get(model, ()))

    def version(self, model: str, number: int) -> ModelVersion:
        assert self.has_version(model, number)
        return ModelVersion(name=model, version=number)

    def champion(self, model: str) -> ModelVersion | None:
        version = self.of(model).get(aliases.CHAMPION)
        return None if version is None else self.version(model, version)

    def point(self, model: str, alias: str, version: int) -> None:
        self.aliases[model, alias] = version
        if self.deadly:
            self.deadly = False
            raise Killed

    def remove(self, model: str, alias: str) -> None:
        del self.aliases[model, alias]


class World:
    """A use case with its data, its events on their way, its runs, and what they leave in ledger and registry."""

    def __init__(self, folder: Path, registry: Registry) -> None:
        self.name = f"toy{next(numbers)}"
        self.folder, self.registry, self.ledger = folder, registry, Ledger()
        member = {"objective": "x.py", "n_trials": 3, "workers": 1}
        self.config = UseCase.model_validate(
            {
                "name": self.name, "title": "Toy", "data": {"source": "sklearn:iris", "target": "target"},
                "tuning": {"metric": "accuracy"}, "classical": member, "deep": member,
                "system": {"n_trials": 3, "workers": 1}, "promotion": {},
            }
        )  # fmt: skip
        self.events: list[Variant] = []
        self.runs: list[Run] = []
        self.n_data = 0
        self.told: set[str] = set()

    def act(self, action: str, which: int) -> None:
        alive = self.alive
        if action == "new data":
            self.new_data()
        elif action == "time":
            self.time_passes()
        elif action in ("deliver", "duplicate", "drop") and self.events:
            flow = self.events[which % len(self.events)]
            if action == "duplicate":
                self.events.append(flow)
            else:
                self.events.remove(flow)
            if action == "deliver":
                self.start(flow)
        elif action in ("step", "kill", "kill at an alias", "stall") and alive:
            run = alive[which % len(alive)]
            if action == "kill":
                run.kill()
            elif action == "stall":
                self.expire(run.name)
                self.start(run.variant)  # one that may take over
            else:
                self.registry.deadly = action == "kill at an alias"
                self.step(run)
                self.registry.deadly = False

    @property
    def fingerprint(self) -> str:
        """Of the newest dataset version."""
        return f"{self.n_data:012}".ljust(64, "0")

    @property
    def alive(self) -> list[Run]:
        return [run for run in self.runs if not run.over]

    def new_data(self) -> None:
        """DataPrepFlow has found new rows, and ends."""
        self.n_data += 1
        on_record.arrive(self.name, self.fingerprint, run=f"DataPrepFlow/{self.n_data}")
        self.events += ["classical", "deep"]

    def start(self, variant: Variant) -> Run:
        run = Run(f"{variant}/{len(self.runs)}", variant, self.tune)
        self.runs.append(run)
        return run

    def step(self, run: Run) -> None:
        run.step()
        if run.over and run.finished and run.variant != "system":
            self.events.append("system")

    def tune(self, run: Run) -> None:
        """What a flow does, with a pause wherever it can be killed or another run can come in between."""
        try:
            plan = self.plan(run)
        except FlowError:  # the system was woken too early
            return
        run.pause()
        if plan.idle:
            self.told.add("a run was idle from the start")
            return
        best = TrialSummary(number=0, values=(0.9, 1.0)[: len(plan.study.directions)], params={"x": 0.9})
        result = TuningResult(study=plan.study.name, best=best, top=(best,), counts={"COMPLETE": 3}, wall_s=1, cpu_s=1)
        model = self.name if run.variant == "system" else f"{self.name}-{run.variant}"

        def make() -> Mapping[str, Any]:
            run.pause()
            version = self.registry.register(model, plan.study.name)
            run.pause()
            return {**outcome(plan, result, None), "model": model, "version": version}

        def publish(found: Mapping[str, Any]) -> None:
            run.pause()
            self.registry.published[plan.study.name, found["version"]] += 1
            promotion.point_challenger(model)
            if run.variant == "system":
                run.pause()
                promotion.settle(model, found["version"], lambda met: self.judge(run, met), actor=run.name)
            run.pause()

        def refuse(late: Mapping[str, Any], why: str) -> None:
            self.told.add("a late result was refused")
            assert "taken over" in why
            self.registry.refused.add((plan.study.name, late["version"]))

        try:
            claims.conclude(
                plan.study.name, plan.study.n_trials, run.name,
                make=make, publish=publish, refuse=refuse, wait=run.pause,
            )  # fmt: skip
        except ResultTaken:
            self.told.add("a result was taken by another run")

    def plan(self, run: Run) -> Plan:
        if run.variant == "system":
            return system.plan(self.config, run=run.name)
        return hpo.plan(self.config, run.variant, self.folder, run=run.name)

    def judge(self, run: Run, met: ModelVersion | None) -> PromotionDecision:
        run.pause()
        return PromotionDecision(promote=met is None or met.version % 3 != 0, reason="by its number")

    def time_passes(self) -> None:
        """Runs that are alive renew their claims; those of dead ones are over."""
        with connect() as connection:
            connection.execute(
                "UPDATE evertune.studies SET expires = clock_timestamp() + interval '30 s' * CASE "
                "WHEN holder = ANY(%s) THEN 1 ELSE -1 END WHERE holder IS NOT NULL AND use_case = %s",
                [[run.name for run in self.alive], self.name],
            )

    def expire(self, holder: str) -> None:
        with connect() as connection:
            connection.execute(
                "UPDATE evertune.studies SET expires = clock_timestamp() WHERE holder = %s AND use_case = %s",
                [holder, self.name],
            )

    def end(self) -> None:
        """All runs come to their end; then catching up starts what is due, without an event, until nothing is."""
        self.finish_runs()
        for _ in range(2):  # the members, and then the system that waits for them
            for variant in VARIANTS:
                if self.n_data and self.is_due(variant):
                    self.start(variant)
            self.finish_runs()
        assert not any(self.is_due(variant) for variant in VARIANTS if self.n_data)

    def finish_runs(self) -> None:
        for _ in range(100):
            if not self.alive:
                return
            self.time_passes()
            for run in self.alive:
                self.step(run)
        raise AssertionError(f"no end of {[run.name for run in self.alive]}")

    def is_due(self, variant: Variant) -> bool:
        try:
            if variant == "system":
                return not system.due(self.config).idle
            return not hpo.due(self.config, variant, self.folder).idle
        except FlowError:
            return False

    def check(self) -> None:
        entries = self.ledger.entries(self.name)
        newest = [entry for entry in entries if entry.fingerprint == self.fingerprint]
        assert {e.variant: e.state for e in newest} == (dict.fromkeys(VARIANTS, "done") if self.n_data else {})
        for entry in entries:
            published = {version for study, version in self.registry.published if study == entry.study}
            results = {entry.outcome["version"]} if entry.recorded else set()
            assert published <= results, "one result per study"
            assert published == results or entry.state != "done"
            assert {v for study, v in self.registry.refused if study == entry.study}.isdisjoint(results)
        for (model, alias), version in self.registry.aliases.items():
            study = self.registry.versions[model][version - 1]
            assert (study, version) in self.registry.published, f"{alias} stands at a result"
            assert alias != aliases.CHALLENGER or version == self.ledger.newest_version(model)
        self.check_promotions([e.outcome["version"] for e in entries if e.variant == "system" and e.state == "done"])

    def check_promotions(self, results: list[int]) -> None:
        log = self.ledger.promotions(self.name)
        decided = Counter(decision.version for decision in log)
        assert set(decided.values()) <= {1}, "one decision per version"
        assert set(results) <= decided.keys()
        champion = self.registry.champion(self.name)
        assert (champion.version if champion else None) == history.champion(log)


@pytest.fixture
def folder(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Holds the objective. A registry is reachable: its models are the test's."""
    monkeypatch.setattr(hpo, "check_registry", lambda: None)
    del database
    (tmp_path / "x.py").write_text(OBJECTIVE)
    return tmp_path


@given(history=st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 7)), min_size=10, max_size=60))
@settings(
    max_examples=HISTORIES, deadline=None, database=None, print_blob=True,
    suppress_health_check=[*HealthCheck], phases=[Phase.generate],
)  # fmt: skip
@pytest.mark.usefixtures("repetition")
def test_in_any_history_each_study_has_one_result(folder: Path, history: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        registry = Registry()
        for name in ("champion", "version"):
            patch.setattr(client, name, getattr(registry, name))
        for name in ("of", "has_version", "point", "remove"):
            patch.setattr(aliases, name, getattr(registry, name))
        world = World(folder, registry)
        world.new_data()
        for action, which in history:
            world.act(action, which)
        world.end()
        world.check()
    for what in world.told:
        event(what)


CONFIG = (
    IRIS
    + """folds = 3
[classical]
objective = "{objective}"
n_trials = 3
workers = 1
sampler = "RandomSampler"
"""
)
TREE = """
from sklearn.tree import DecisionTreeClassifier

def build(trial):
    return DecisionTreeClassifier(max_depth=trial.suggest_int("max_depth", 2, 16), random_state=0)
"""

# Python runs it at its start: a process that logs this ends its whole process group, as the kernel would.
MURDERER = """
import logging, os, signal

class Murderer(logging.LogRecord):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if os.environ.get("DIE_AT") == self.getMessage() != "":
            os.killpg(0, signal.SIGKILL)

logging.setLogRecordFactory(Murderer)
"""
MOMENTS = ("study recorded", "result claimed", "model registered", "result recorded", "study closed")


@pytest.fixture
def iris(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The config of a use case with data, whose flows can be told to die."""
    del home
    (tmp_path / "sitecustomize.py").write_text(MURDERER)
    (tmp_path / "tree.py").write_text(TREE)
    config = tmp_path / "iris.toml"
    config.write_text(CONFIG.format(objective=tmp_path / "tree.py"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    prepare_rows(load_use_case(config))
    return config


def start_flow(config: Path, log: Path, die_at: str = "") -> subprocess.Popen[bytes]:
    command = [sys.executable, "flows/classical_hpo/flow.py", "--no-pylint", "--config", "use_case", str(config), "run"]
    with log.open("ab") as output:
        return subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"DIE_AT": die_at}, stdout=output, stderr=output, start_new_session=True
        )


def test_a_flow_that_is_killed_and_one_that_comes_twice_have_one_result(
    iris: Path, tmp_path: Path, repetition: int
) -> None:
    moment, log = MOMENTS[repetition % len(MOMENTS)], tmp_path / "log"
    assert start_flow(iris, log, die_at=moment).wait() == -signal.SIGKILL, log.read_text()

    both = [start_flow(iris, log) for _ in range(2)]

    assert [flow.wait() for flow in both] == [0, 0], log.read_text()
    (entry,) = Ledger().entries("iris")
    assert (entry.state, sum(entry.outcome["counts"].values())) == ("done", 3)
    challenger = client.by_alias("iris-classical", aliases.CHALLENGER)
    assert challenger is not None
    assert challenger.version == entry.outcome["version"]
    left = range(1, challenger.version)
    assert len(left) <= (moment == "model registered"), "only a run that died right after it leaves one behind"
    assert all(client.version("iris-classical", number).aliases == () for number in left)
    told = ("another run is faster", "another run was faster", "nothing changed", "nothing to do")
    finished = log.read_text()
    assert moment == "study closed" or any(text in finished for text in told)
