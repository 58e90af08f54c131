"""Exact budgets, and the trials of workers that died, lost their connection, or stood still."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from shared.errors import ServiceError
from shared.storage import PostgresStorage, leases, link
from shared.storage.database import connect
from shared.storage.leases import Leases
from shared.storage.postgres import GoneError, NoRoomError
from shared.storage.studies import delete_study

fork = multiprocessing.get_context("fork")


@pytest.fixture
def study(database: str) -> Iterator[optuna.Study]:  # noqa: ARG001
    study = optuna.create_study(storage=PostgresStorage(), study_name="s", sampler=optuna.samplers.RandomSampler())
    yield study
    study._storage.close()  # type: ignore[attr-defined]


class Worker:
    """A worker of the study `s`, with a storage and a connection of its own."""

    def __init__(self, budget: int, owner: str = "", lease_s: float = 30.0, study: str = "s") -> None:
        self.storage = PostgresStorage()
        sampler = optuna.samplers.RandomSampler()
        self.study = optuna.load_study(storage=self.storage, study_name=study, sampler=sampler)
        self.leases = Leases(self.storage, self.study._study_id, budget, owner, lease_s)

    def ask(self) -> optuna.Trial | None:
        try:
            return self.study.ask()
        except NoRoomError:
            return None

    def run(self, state: TrialState = TrialState.COMPLETE) -> None:
        trial = self.ask()
        assert trial is not None
        self.study.tell(trial, 1.0 if state == TrialState.COMPLETE else None, state)

    def __enter__(self) -> Worker:
        self.leases.__enter__()
        return self

    def __exit__(self, *_: Any) -> None:
        self.leases.__exit__(None, None, None)
        self.storage.close()


def states(study: optuna.Study) -> Counter[TrialState]:
    return Counter(trial.state for trial in study.get_trials(deepcopy=False))


def within_seconds(attempt: Callable[[], Any]) -> Any:
    """What the attempt returns when it is first true: PostgreSQL notices in its own time that a client is gone."""
    deadline = time.monotonic() + 20
    while not (found := attempt()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


@contextmanager
def other_process(*, told: bool = False, owner: str = "", lease_s: float = 30.0) -> Iterator[tuple[int, int]]:
    """A worker of its own process in the middle of a trial: its pid, and the trial's id."""
    receive, send = fork.Pipe(duplex=False)

    def work() -> None:
        with Worker(9, owner, lease_s) as worker:
            trial = worker.ask()
            assert trial is not None
            if told:
                worker.study.tell(trial, 1.0)
            send.send(trial._trial_id)
            time.sleep(600)

    process = fork.Process(target=work, daemon=True)
    process.start()
    assert process.pid
    yield process.pid, receive.recv()
    process.kill()
    process.join()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, os.WNOHANG)


def test_the_budget_is_what_finishes(study: optuna.Study) -> None:
    with Worker(4) as worker:
        for state in (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED, TrialState.FAIL, TrialState.COMPLETE):
            worker.run(state)
        worker.run()
        assert worker.ask() is None
        assert worker.leases.is_full()
    assert states(study) == {TrialState.COMPLETE: 3, TrialState.PRUNED: 1, TrialState.FAIL: 2}


@pytest.mark.usefixtures("study")
def test_while_others_run_the_last_trials_the_study_is_not_full() -> None:
    with Worker(1) as first, Worker(1) as second:
        trial = first.ask()
        assert second.ask() is None
        assert not second.leases.is_full()
        assert trial is not None
        first.study.tell(trial, state=TrialState.FAIL)
        assert second.ask() is not None


def test_a_larger_budget_goes_on_where_the_smaller_ended(study: optuna.Study) -> None:
    with Worker(1) as worker:
        worker.run()
        assert worker.ask() is None
    with Worker(3) as worker:
        worker.run()
        worker.run()
        assert worker.ask() is None
    assert states(study) == {TrialState.COMPLETE: 3}


def test_a_queued_trial_needs_room_too(study: optuna.Study) -> None:
    with Worker(1) as worker:
        running = worker.ask()
        study.enqueue_trial({"x": 0.5})
        assert worker.ask() is None
        assert states(study)[TrialState.WAITING] == 1, "it waits for room"
        assert running is not None
        worker.study.tell(running, state=TrialState.FAIL)
        queued = worker.ask()
        assert queued is not None
        assert queued.suggest_float("x", 0, 1) == 0.5


def test_trials_that_optuna_ran_by_itself_count_too(study: optuna.Study) -> None:
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    with Worker(2) as worker:
        assert worker.ask() is None
        assert worker.leases.is_full()


def test_studies_have_budgets_of_their_own(study: optuna.Study) -> None:
    optuna.create_study(storage=study._storage, study_name="other")
    with Worker(1) as worker, Worker(1, study="other") as other:
        assert worker.ask() is not None
        assert other.ask() is not None


def test_a_deleted_study_starts_anew(study: optuna.Study) -> None:
    with Worker(2) as worker:
        worker.run()
        assert worker.ask() is not None
    delete_study("s")
    optuna.create_study(storage=study._storage, study_name="s")
    with Worker(2) as worker:
        assert [worker.ask() is None for _ in range(3)] == [False, False, True]


def test_deleting_an_unknown_study_changes_nothing(study: optuna.Study) -> None:
    delete_study("unknown")
    assert [s.study_name for s in study._storage.get_all_studies()] == ["s"]


def test_a_killed_workers_trial_is_given_back(study: optuna.Study) -> None:
    with other_process() as (pid, trial_id), Worker(1, lease_s=1.5) as worker:
        assert worker.ask() is None
        kill(pid)
        assert within_seconds(worker.leases.give_back) == [trial_id]
        assert worker.leases.give_back() == []
        assert worker.ask() is not None
    lost = study.trials[0]
    assert (lost.state, lost.user_attrs["cause"]) == (TrialState.FAIL, "worker lost")


def test_a_trial_that_finished_before_its_worker_died_counts(study: optuna.Study) -> None:
    with other_process(told=True) as (pid, _), Worker(1, lease_s=1.5) as worker:
        kill(pid)
        time.sleep(1)
        assert worker.leases.give_back() == []
        assert worker.ask() is None
    assert states(study) == {TrialState.COMPLETE: 1}


@pytest.mark.usefixtures("study")
def test_the_trials_of_a_living_worker_are_left_alone() -> None:
    with other_process(lease_s=1.5), Worker(9) as worker:
        time.sleep(2)
        assert worker.leases.give_back() == []


def test_a_worker_that_stood_still_has_lost_its_trial(study: optuna.Study) -> None:
    with Worker(1, lease_s=0.3) as still, Worker(1) as worker:
        trial = still.ask()
        assert trial is not None
        still.leases._over.set()  # its thread stands still as well
        assert within_seconds(worker.leases.give_back) == [trial._trial_id]
        with pytest.raises((UpdateFinishedTrialError, ValueError)):
            still.study.tell(trial, 1.0)
        worker.run()
        assert still.ask() is None
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]


def test_a_stopped_process_that_goes_on_is_refused(study: optuna.Study) -> None:
    with other_process(lease_s=1.0) as (pid, trial_id), Worker(1) as worker:
        os.kill(pid, signal.SIGSTOP)
        assert within_seconds(worker.leases.give_back) == [trial_id]
        os.kill(pid, signal.SIGCONT)
        worker.run()
        assert worker.leases.is_full()
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]


@pytest.mark.usefixtures("study")
def test_another_attempt_at_a_task_takes_up_what_the_first_left() -> None:
    with other_process(owner="Flow/1/tune/2") as (pid, trial_id):
        os.kill(pid, signal.SIGSTOP)  # its lease still holds, and so does its connection
        with Worker(9, owner="Flow/1/tune/3") as other:
            assert other.leases.give_back() == []
        with Worker(9, owner="Flow/1/tune/2") as attempt:
            assert attempt.leases.give_back() == [trial_id]


def drop_connections() -> None:
    """What a restart of the server or a cut of the network does to workers."""
    with connect() as connection:
        held = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid() AND database = ("
        mine = "SELECT oid FROM pg_database WHERE datname = current_database())"
        connection.execute(f"SELECT pg_terminate_backend(pid, 10000) FROM ({held}{mine}) AS workers")


def test_a_worker_that_lost_its_connection_keeps_its_trial(study: optuna.Study) -> None:
    with Worker(1, lease_s=6.0) as worker, Worker(1, lease_s=6.0) as other:
        trial = worker.ask()
        assert trial is not None
        trial.suggest_float("x", 0, 1)
        for _ in range(4):
            time.sleep(0.5)  # just before a renewal, just after, …
            drop_connections()
            assert other.leases.give_back() == [], "it may come back"
        trial.report(0.5, 1)
        worker.study.tell(trial, 1.0)
    (told,) = study.trials
    assert (told.state, told.params, told.intermediate_values) == (TrialState.COMPLETE, trial.params, {1: 0.5})


def test_a_worker_whose_reconnection_failed_halfway_keeps_its_trial(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Worker(1) as worker, Worker(1, lease_s=0.3) as other:
        trial = worker.ask()
        assert trial is not None
        drop_connections()
        with monkeypatch.context() as patch:
            dies = "SELECT pg_terminate_backend(pg_backend_pid()), %(worker)s::text, %(before)s::text[]"
            patch.setattr(leases, "RENAME", dies)
            patch.setattr(link, "AWAY_S", 0.2)
            with pytest.raises(ServiceError, match=r"away for 0\.2 s.*what has finished is kept"):
                worker.study.get_trials()
        assert len(worker.study.get_trials()) == 1
        time.sleep(0.5)
        assert other.leases.give_back() == []
        worker.study.tell(trial, 1.0)
    assert states(study) == {TrialState.COMPLETE: 1}


def test_a_stopped_worker_may_go_on_while_its_trial_is_given_back(study: optuna.Study) -> None:
    with Worker(99) as worker, Worker(99) as other:
        for _ in range(20):
            trial = worker.ask()
            assert trial is not None
            with connect() as connection:
                connection.execute("UPDATE evertune.leases SET expires = 'epoch'")
            finder = threading.Thread(target=other.leases.give_back)
            finder.start()
            with suppress(UpdateFinishedTrialError, ValueError):
                worker.study.tell(trial, 1.0)
            finder.join()
    assert states(study)[TrialState.RUNNING] == 0
    assert sum(states(study).values()) == 20


def test_a_study_that_is_deleted_while_it_is_tuned_goes_whole(study: optuna.Study) -> None:
    ended: list[type] = []

    def work() -> None:
        with Worker(10_000) as worker:
            try:
                while True:
                    worker.run()
            except Exception as err:  # noqa: BLE001  # looked at below
                ended.append(type(err))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    delete_study("s")
    for thread in threads:
        thread.join()
    assert ended == [GoneError, GoneError]
    assert study._storage.get_all_studies() == []


class Interleavings(RuleBasedStateMachine):
    """Workers that ask, queue, end trials, die, stand still and give back what others left, one step at a time."""

    BUDGET = 3
    WORKERS = st.integers(0, 2)
    ENDS = st.sampled_from([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])

    def __init__(self) -> None:
        super().__init__()
        self.storage = PostgresStorage()
        self.study = optuna.create_study(storage=self.storage)
        self.running: dict[int, list[optuna.Trial]] = {0: [], 1: [], 2: []}
        self.late: list[tuple[Worker, optuna.Trial]] = []
        self.workers = {i: self.new_worker() for i in range(3)}

    def new_worker(self) -> Worker:
        worker = Worker(self.BUDGET, study=self.study.study_name)
        worker.storage.lease(worker.leases)  # without the thread: nothing happens here by itself
        return worker

    def counted(self) -> int:
        found = states(self.study)
        return found[TrialState.COMPLETE] + found[TrialState.PRUNED] + sum(map(len, self.running.values()))

    @rule(index=WORKERS)
    def ask(self, index: int) -> None:
        room = self.counted() < self.BUDGET
        trial = self.workers[index].ask()
        assert (trial is not None) == room
        if trial:
            self.running[index].append(trial)

    @rule()
    def queue(self) -> None:
        self.study.enqueue_trial({"x": 0.5})

    @precondition(lambda self: any(self.running.values()))
    @rule(index=WORKERS, end=ENDS)
    def tell(self, index: int, end: TrialState) -> None:
        if self.running[index]:
            trial = self.running[index].pop()
            self.workers[index].study.tell(trial, 1.0 if end == TrialState.COMPLETE else None, end)

    @rule(index=WORKERS, finder=WORKERS)
    def lose(self, index: int, finder: int) -> None:
        """A worker's leases are over; another finds its trials, and a third takes its place."""
        if index == finder:
            return
        with connect() as connection:
            late = "UPDATE evertune.leases SET expires = 'epoch' WHERE worker = %s"
            connection.execute(late, [self.workers[index].leases.values["worker"]])
        found = self.workers[finder].leases.give_back()
        lost = self.running[index]
        assert sorted(found) == sorted(trial._trial_id for trial in lost)
        self.late += [(self.workers[index], trial) for trial in lost]
        self.running[index] = []
        self.workers[index] = self.new_worker()

    @precondition(lambda self: self.late)
    @rule()
    def tell_late(self) -> None:
        worker, trial = self.late.pop()
        with pytest.raises((UpdateFinishedTrialError, ValueError)):
            worker.study.tell(trial, 1.0)

    @invariant()
    def the_budget_holds(self) -> None:
        found = states(self.study)
        assert self.counted() <= self.BUDGET
        assert found[TrialState.RUNNING] == sum(map(len, self.running.values()))

    def teardown(self) -> None:
        for worker in [*self.workers.values(), *(worker for worker, _ in self.late)]:
            worker.storage.close()
        self.storage.close()


@pytest.mark.usefixtures("database")
def test_no_interleaving_runs_more_trials_than_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "GRACE", 0.0)  # the server may have started just now
    checks = settings(
        max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    run_state_machine_as_test(Interleavings, settings=checks)
