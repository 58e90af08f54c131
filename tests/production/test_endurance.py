"""The trial engine under load and under fire: real workers on a real server, which are really killed.

`make test` runs each once, `make soak` twenty times.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import optuna
import psutil
import pytest
from optuna.trial import TrialState

from shared.domain import StrategySpec, StudySpec
from shared.logs import show_logs
from shared.settings import settings
from shared.storage import PostgresStorage, leases
from shared.storage.database import connect
from shared.storage.services import database_url
from shared.tuning.study import open_study
from shared.tuning.worker import run_worker
from tests.conftest import copy_home, remove_home

fork = multiprocessing.get_context("fork")

TRIAL_S = 0.05
KILLS = 6


def spec(n_trials: int, max_failures: int = 5) -> StudySpec:
    return StudySpec(
        name="toy/classical/0/1", use_case="toy", variant="classical", fingerprint="0", objective_hash="1",
        directions=("minimize",), n_trials=n_trials, sampler=StrategySpec(name="RandomSampler"),
        max_failures=max_failures,
    )  # fmt: skip


def states(study_spec: StudySpec) -> Counter[str]:
    storage = PostgresStorage()
    found = Counter(trial.state.name for trial in open_study(study_spec, storage).get_trials(deepcopy=False))
    storage.close()
    return found


def finished(found: Counter[str]) -> int:
    return found["COMPLETE"] + found["PRUNED"]


def some_fail(trial: optuna.Trial) -> float:
    x = trial.suggest_float("x", 0, 1)
    chance = random.random()
    if chance < 0.2:
        raise ValueError("by chance")
    if chance < 0.4:
        raise optuna.TrialPruned
    return x


def takes_a_moment(trial: optuna.Trial) -> float:
    x = trial.suggest_float("x", 0, 1)
    trial.report(x, 0)
    time.sleep(TRIAL_S)
    return x


@pytest.mark.parametrize("budget", [1, 7, 100])
@pytest.mark.parametrize("n_workers", [1, 2, 8, 32])
@pytest.mark.usefixtures("database", "repetition")
def test_any_number_of_workers_runs_exactly_the_budget(n_workers: int, budget: int) -> None:
    study_spec, most = spec(budget, max_failures=10_000), 0
    workers = [
        fork.Process(target=run_worker, args=(study_spec, some_fail), kwargs={"worker": i}) for i in range(n_workers)
    ]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        most = max(most, connections())
        time.sleep(0.02)
    assert [worker.exitcode for worker in workers] == [0] * n_workers
    assert most <= 2 * n_workers
    found = states(study_spec)
    assert finished(found) == budget
    assert found["RUNNING"] == 0
    assert run_worker(study_spec, some_fail).trials == 0, "a study that is done runs none"


def connections() -> int:
    """To the test's database, without this one."""
    with connect() as connection:
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        row = connection.execute(count).fetchone()
    assert row
    return int(row[0])


class Crew:
    """Four workers of a study; one that was killed is replaced by another, as a scheduler does it.

    log: gets a byte for each trial that was begun.
    """

    def __init__(self, study_spec: StudySpec, log: Path) -> None:
        self.spec = study_spec
        self.log = log
        self.numbers = itertools.count()
        self.workers = [self.start() for _ in range(4)]

    def start(self) -> BaseProcess:
        number = next(self.numbers)
        worker = fork.Process(
            target=run_worker, args=(self.spec, self.evaluate), kwargs={"worker": number}, daemon=True
        )
        worker.start()
        return worker

    def evaluate(self, trial: optuna.Trial) -> float:
        with self.log.open("ab") as log:
            log.write(b".")
        return takes_a_moment(trial)

    def wait_for(self, n_trials: int) -> None:
        deadline = time.monotonic() + 120
        while not self.log.exists() or self.log.stat().st_size < n_trials:
            assert time.monotonic() < deadline, "the study doesn't go on"
            time.sleep(0.01)

    @property
    def works(self) -> bool:
        return any(worker.is_alive() for worker in self.workers)

    def kill_one(self) -> None:
        victim = random.choice(self.workers)
        victim.kill()
        victim.join()
        self.workers[self.workers.index(victim)] = self.start()

    def end(self) -> list[int | None]:
        for worker in self.workers:
            worker.join()
        return [worker.exitcode for worker in self.workers]


def kill_server(home: Path, crew: Crew) -> None:
    """The postmaster and all its processes, at once; where it isn't there yet after the last time, a moment later."""
    while crew.works:
        with suppress(psutil.NoSuchProcess, FileNotFoundError, IndexError):
            server = psutil.Process(int((home / "postgres" / "postmaster.pid").read_text().splitlines()[0]))
            children = server.children()
            server.kill()
            for child in children:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            server.wait(60)
            return
        time.sleep(0.05)


@pytest.fixture
def own_home(pristine_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home with a server of its own, which may be killed."""
    home = copy_home(pristine_home)
    monkeypatch.delenv("EVERTUNE_DATABASE_URL", raising=False)
    monkeypatch.setenv("EVERTUNE_HOME", str(home))
    settings.cache_clear()
    database_url()
    yield home
    settings.cache_clear()
    remove_home(home)


@pytest.mark.parametrize("killed", ["workers", "server", "both"])
@pytest.mark.usefixtures("repetition")
def test_a_kill_costs_at_most_the_trial_that_ran(
    own_home: Path, killed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 6.0)
    study_spec = spec(200)
    states(study_spec)
    crew, n_killed = Crew(study_spec, tmp_path / "begun"), 0
    for i in range(KILLS):
        crew.wait_for(30 * i + random.randrange(1, 30))
        if killed != "server":
            crew.kill_one()
            n_killed += 1
        if killed == "server" or (killed == "both" and i % 2):
            kill_server(own_home, crew)
    assert crew.end() == [0] * 4
    found = states(study_spec)
    assert finished(found) == 200
    assert found["RUNNING"] == 0
    assert found["FAIL"] <= n_killed
    assert crew.log.stat().st_size <= 200 + n_killed, "no trial was run twice but for a kill: none was forgotten"


@pytest.mark.usefixtures("database", "repetition")
def test_a_worker_that_stands_still_beyond_its_lease_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 1.0)

    def waits(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        (tmp_path / "running").touch()
        time.sleep(0.5)
        trial.report(x, 0)
        return x

    def run() -> None:
        show_logs()
        run_worker(spec(5), waits)

    still = fork.Process(target=run)
    still.start()
    while not (tmp_path / "running").exists():
        time.sleep(0.01)
    assert still.pid
    os.kill(still.pid, signal.SIGSTOP)
    run_worker(spec(5), takes_a_moment, worker=1)
    os.kill(still.pid, signal.SIGCONT)
    still.join()
    assert still.exitcode == 0
    assert "trial ended too late" in capfd.readouterr().err
    assert states(spec(5)) == {"COMPLETE": 5, "FAIL": 1}
    (lost,) = [t for t in open_study(spec(5), PostgresStorage()).trials if t.state == TrialState.FAIL]
    assert lost.user_attrs["cause"] == "worker lost"
    assert lost.values is None
