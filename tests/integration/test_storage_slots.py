"""The exact budget, with real processes, and with every interleaving that Hypothesis can think of."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import optuna
import pytest
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from optuna.study import StudyDirection
from optuna.trial import TrialState

from shared.errors import ServiceError
from shared.storage import PostgresStorage
from shared.storage.database import connect
from shared.storage.slots import Slot, Slots
from shared.storage.studies import delete_study

fork = multiprocessing.get_context("fork")


@pytest.fixture
def study(database: str) -> Iterator[optuna.Study]:  # noqa: ARG001
    storage = PostgresStorage()
    yield optuna.create_study(storage=storage, study_name="s")
    storage.close()


def run_one(study: optuna.Study, slot: Slot, state: TrialState = TrialState.COMPLETE) -> None:
    trial = study.ask()
    slot.attach(trial._trial_id)
    study.tell(trial, 1.0 if state == TrialState.COMPLETE else None, state)
    slot.release() if state == TrialState.FAIL else slot.finish()


def fail(study: optuna.Study, trial_id: int) -> None:
    study._storage.set_trial_state_values(trial_id, TrialState.FAIL)


def states(study: optuna.Study) -> Counter[TrialState]:
    return Counter(trial.state for trial in study.get_trials(deepcopy=False))


def within_seconds(attempt: Callable[[], Any]) -> Any:
    """What the attempt returns when it is first true: PostgreSQL notices in its own time that a client is gone."""
    deadline = time.monotonic() + 20
    while not (found := attempt()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


@contextmanager
def killed_worker(*, attached: bool, told: bool = False) -> Iterator[int]:
    """The trial of a worker that was killed with `kill -9` in the middle of it."""
    receive, send = fork.Pipe(duplex=False)

    def work() -> None:
        study = optuna.load_study(storage=PostgresStorage(), study_name="s")
        slot = Slots("s", 2, "victim").reserve()
        trial = study.ask()
        if attached and slot:
            slot.attach(trial._trial_id)
        if told:
            study.tell(trial, 1.0)
        send.send(trial._trial_id)
        time.sleep(600)

    worker = fork.Process(target=work, daemon=True)
    worker.start()
    trial_id = receive.recv()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    yield trial_id


def test_the_budget_is_what_finishes(study: optuna.Study) -> None:
    with Slots("s", 4, 0) as slots:
        for state in (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED, TrialState.FAIL, TrialState.COMPLETE):
            slot = slots.reserve()
            assert slot is not None
            run_one(study, slot, state)
        assert slots.reserve() is not None


def test_a_finished_study_runs_no_trial(study: optuna.Study) -> None:
    with Slots("s", 1, 0) as slots:
        slot = slots.reserve()
        assert slot is not None
        run_one(study, slot)
        assert slots.reserve() is None
        assert slots.full


def test_while_others_run_the_last_trials_the_study_is_not_full(study: optuna.Study) -> None:
    with Slots("s", 1, 0) as first, Slots("s", 1, 1) as second:
        slot = first.reserve()
        assert slot is not None
        assert second.reserve() is None
        assert not second.full
        run_one(study, slot, TrialState.FAIL)
        assert second.reserve() is not None


def test_a_larger_budget_goes_on_where_the_smaller_ended(study: optuna.Study) -> None:
    with Slots("s", 1, 0) as slots:
        run_one(study, slots.reserve() or pytest.fail("no slot"))
    with Slots("s", 3, 0) as slots:
        run_one(study, slots.reserve() or pytest.fail("no slot"))
        run_one(study, slots.reserve() or pytest.fail("no slot"))
        assert slots.reserve() is None
    assert states(study) == {TrialState.COMPLETE: 3}


def test_trials_that_optuna_ran_by_itself_count_too(study: optuna.Study) -> None:
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    with Slots("s", 2, 0) as slots:
        assert slots.reserve() is None
        assert slots.full


def test_studies_have_budgets_of_their_own(study: optuna.Study) -> None:
    optuna.create_study(storage=study._storage, study_name="other")
    with Slots("s", 1, 0) as slots, Slots("other", 1, 0) as others:
        assert slots.reserve() is not None
        assert others.reserve() is not None


def test_a_deleted_study_starts_anew(study: optuna.Study) -> None:
    with Slots("s", 2, 0) as slots:
        run_one(study, slots.reserve() or pytest.fail("no slot"))
        assert slots.reserve() is not None
        delete_study("s")
        optuna.create_study(storage=study._storage, study_name="s")
        assert slots.reserve() is not None
        assert slots.reserve() is not None
        assert slots.reserve() is None


def test_deleting_an_unknown_study_changes_nothing(study: optuna.Study) -> None:
    delete_study("unknown")
    assert [s.study_name for s in study._storage.get_all_studies()] == ["s"]


def test_several_processes_never_exceed_the_budget(study: optuna.Study) -> None:
    def work(worker: int) -> None:
        mine = optuna.load_study(storage=PostgresStorage(), study_name="s", sampler=optuna.samplers.RandomSampler())
        with Slots("s", 20, worker) as slots:
            while not slots.full:
                if slot := slots.reserve():
                    run_one(mine, slot, TrialState.FAIL if mine.sampler._rng.rng.random() < 0.3 else TrialState.PRUNED)

    workers = [fork.Process(target=work, args=(i,), daemon=True) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert states(study)[TrialState.PRUNED] == 20
    assert states(study)[TrialState.RUNNING] == 0


@pytest.mark.parametrize("attached", [True, False])
def test_a_killed_workers_trial_is_found_and_its_slot_given_back(study: optuna.Study, attached: bool) -> None:
    with killed_worker(attached=attached) as trial_id, Slots("s", 1, 0) as slots:
        assert within_seconds(lambda: reap(study, slots)) == [trial_id]
        assert list(slots.reap()) == []
        assert slots.reserve() is not None


def reap(study: optuna.Study, slots: Slots) -> list[int]:
    found = []
    for trial_id in slots.reap():
        fail(study, trial_id)
        found.append(trial_id)
    return found


def list_first(slots: Slots) -> list[int]:
    """The first trial of `reap`, left for the caller to fail: the iteration isn't gone on with."""
    reaped = slots.reap()
    first = next(reaped, None)
    reaped.close()
    return [] if first is None else [first]


def test_a_trial_that_finished_before_its_worker_died_counts(study: optuna.Study) -> None:
    with killed_worker(attached=True, told=True), Slots("s", 2, 0) as slots:
        assert list(slots.reap()) == []
        assert slots.reserve() is not None
        assert slots.reserve() is None
    assert states(study) == {TrialState.COMPLETE: 1}


@pytest.mark.usefixtures("study")
def test_a_trial_whose_finder_failed_is_found_again() -> None:
    with killed_worker(attached=True) as trial_id, Slots("s", 1, 0) as slots:
        assert within_seconds(lambda: list_first(slots)) == [trial_id]
        assert list_first(slots) == [trial_id]
        assert slots.reserve() is None, "its slot isn't free before the trial has failed"


def test_the_trials_of_a_living_worker_are_left_alone(study: optuna.Study) -> None:
    with Slots("s", 2, 0) as living, Slots("s", 2, 1) as other:
        for attached in (True, False):
            slot = living.reserve()
            assert slot is not None
            if attached:
                slot.attach(study.ask()._trial_id)
        study.ask()
        assert list(other.reap()) == []


def test_a_trial_that_is_being_created_is_not_taken_for_a_dead_workers(study: optuna.Study) -> None:
    with killed_worker(attached=False) as dead, Slots("s", 3, 0) as living, Slots("s", 3, 1) as other:
        slot = living.reserve()
        assert slot is not None
        created = study.ask()
        assert list(other.reap()) == [], "either trial could be the dead worker's"
        slot.attach(created._trial_id)
        assert within_seconds(lambda: reap(study, other)) == [dead]


def drop_connections() -> None:
    """What a restart of the server or a cut of the network does to workers."""
    with connect() as connection:
        held = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid() AND database = ("
        mine = "SELECT oid FROM pg_database WHERE datname = current_database())"
        connection.execute(f"SELECT pg_terminate_backend(pid, 10000) FROM ({held}{mine}) AS workers")


def test_a_worker_that_lost_its_connection_keeps_its_slot(study: optuna.Study) -> None:
    with Slots("s", 2, 0) as slots, Slots("s", 2, 1) as other:
        slot = slots.reserve()
        assert slot is not None
        drop_connections()
        slot.attach(study.ask()._trial_id)
        assert list(other.reap()) == [], "the worker lives again"
        assert slots.reserve() is not None
        assert slots.reserve() is None


def test_a_slot_lost_with_the_connection_stops_the_trial(study: optuna.Study) -> None:
    with Slots("s", 1, 0) as slots, Slots("s", 1, 1) as other:
        slot = slots.reserve()
        assert slot is not None
        trial = study.ask()
        drop_connections()
        assert reap(study, other) == [trial._trial_id]
        assert other.reserve() is not None
        with pytest.raises(ServiceError, match="slot given to another worker; start the worker again"):
            slot.attach(trial._trial_id)


def test_a_study_without_a_database_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from shared.settings import settings as environment

    monkeypatch.setenv("EVERTUNE_DATABASE_URL", "postgresql://u:hunter2@127.0.0.1:1/d")
    environment.cache_clear()
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:1/d isn't"):
        Slots("s", 1, 0)
    environment.cache_clear()


@dataclass
class Running:
    """What a living worker has done so far with its slot."""

    slot: Slot
    trial_id: int | None = None
    attached: bool = False
    told: bool = False


class Interleavings(RuleBasedStateMachine):
    """Workers that reserve, run, fail, die anywhere and find each other's trials, one step at a time."""

    BUDGET = 3
    WORKERS = strategies.integers(0, 2)
    ENDS = strategies.sampled_from([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
    storage: PostgresStorage

    def __init__(self) -> None:
        super().__init__()
        self.study = f"study/{uuid4().hex}"
        self.study_id = self.storage.create_new_study([StudyDirection.MINIMIZE], self.study)
        self.slots = {worker: self.new_worker(worker) for worker in range(3)}
        self.running: dict[int, Running] = {}

    def new_worker(self, worker: int) -> Slots:
        return Slots(self.study, self.BUDGET, worker)

    @rule(worker=WORKERS, end=ENDS)
    def go_on(self, worker: int, end: TrialState) -> None:
        """The next step of the worker's trial."""
        now = self.running.get(worker)
        if now is None:
            if slot := self.slots[worker].reserve():
                self.running[worker] = Running(slot)
        elif now.trial_id is None:
            now.trial_id = self.storage.create_new_trial(self.study_id)
        elif not now.attached:
            now.slot.attach(now.trial_id)
            now.attached = True
        elif not now.told:
            self.storage.set_trial_state_values(now.trial_id, end, [1.0] if end == TrialState.COMPLETE else None)
            now.told = True
        else:
            self.running.pop(worker).slot.release()

    @rule(worker=WORKERS)
    def die(self, worker: int) -> None:
        self.slots[worker].close()
        self.running.pop(worker, None)
        self.slots[worker] = self.new_worker(worker)

    @rule(worker=WORKERS)
    def reap(self, worker: int) -> None:
        of_the_living = {now.trial_id for now in self.running.values()}
        for trial_id in self.slots[worker].reap():
            assert trial_id not in of_the_living
            self.storage.set_trial_state_values(trial_id, TrialState.FAIL)

    def count(self, *states: TrialState) -> int:
        return len(self.storage.get_all_trials(self.study_id, deepcopy=False, states=states))

    @invariant()
    def the_budget_is_kept(self) -> None:
        assert self.count(TrialState.COMPLETE, TrialState.PRUNED) <= self.BUDGET

    def teardown(self) -> None:
        """Whatever has happened, one worker that lives on fills the budget exactly and leaves none running."""
        for worker in self.slots:
            self.slots[worker].close()
        with self.new_worker(9) as last:
            assert within_seconds(lambda: self.fill(last))
        assert self.count(TrialState.COMPLETE, TrialState.PRUNED) == self.BUDGET
        assert self.count(TrialState.RUNNING) == 0

    def fill(self, last: Slots) -> bool:
        for trial_id in last.reap():
            self.storage.set_trial_state_values(trial_id, TrialState.FAIL)
        while slot := last.reserve():
            trial_id = self.storage.create_new_trial(self.study_id)
            slot.attach(trial_id)
            self.storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
            slot.finish()
        return last.full and not self.count(TrialState.RUNNING)


def test_no_interleaving_runs_more_trials_than_the_budget(study: optuna.Study) -> None:
    Interleavings.storage = study._storage
    run_state_machine_as_test(
        Interleavings,
        settings=settings(
            max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
