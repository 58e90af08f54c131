"""`PostgresStorage` beside Optuna's other storages, and when things go wrong."""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import optuna
import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from shared.storage import PostgresStorage, outbox
from shared.storage.database import connect, sqlalchemy_url

MINIMIZE = [StudyDirection.MINIMIZE]
X = FloatDistribution(0, 1)


@pytest.fixture
def storage(database: str) -> Iterator[PostgresStorage]:  # noqa: ARG001
    storage = PostgresStorage()
    yield storage
    storage.close()


@pytest.fixture
def rdb(database: str) -> Iterator[RDBStorage]:
    storage = RDBStorage(sqlalchemy_url(database))
    yield storage
    storage.engine.dispose()


def drop_connections() -> None:
    """What a restart of the server does to those who are connected."""
    with connect() as connection:
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        connection.execute(f"SELECT pg_terminate_backend(pid, 10000) {others}")


SCRIPT = """
from optuna.study import StudyDirection
from shared.storage import PostgresStorage

storage = PostgresStorage()
trial_id = storage.create_new_trial(storage.create_new_study([StudyDirection.MINIMIZE], "s"))
storage.set_trial_user_attr(trial_id, "last", "words")
"""


# ---- what it sends, and when


def test_a_write_is_sent_a_moment_later_by_itself(storage: PostgresStorage, rdb: RDBStorage) -> None:
    trial_id = storage.create_new_trial(storage.create_new_study(MINIMIZE))
    storage.set_trial_param(trial_id, "x", 0.5, X)
    storage.set_trial_intermediate_value(trial_id, 3, math.inf)
    time.sleep(20 * outbox.LINGER_S)
    found = rdb.get_trial(trial_id)
    assert (found.params, found.intermediate_values) == ({"x": 0.5}, {3: math.inf})


def test_what_a_script_wrote_last_is_sent_when_it_exits(database: str, rdb: RDBStorage) -> None:  # noqa: ARG001
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)
    assert rdb.get_all_trials(rdb.get_study_id_from_name("s"))[0].user_attrs == {"last": "words"}


def test_reading_costs_what_is_new(storage: PostgresStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    from shared.storage import trials

    study_id = storage.create_new_study(MINIMIZE)
    for _ in range(20):
        storage.create_new_trial(study_id, create_trial(value=1.0))
    running = storage.create_new_trial(study_id)
    assert len(storage.get_all_trials(study_id)) == 21
    built: list[int] = []
    build = trials.frozen_trial
    monkeypatch.setattr(trials, "frozen_trial", lambda row: built.append(row[0]) or build(row))
    other = PostgresStorage()
    new = other.create_new_trial(study_id, create_trial(value=2.0))
    other.close()
    assert [t._trial_id for t in storage.get_all_trials(study_id)][-2:] == [running, new]
    assert built == [running, new]


def test_what_cannot_be_kept_is_refused_before_it_is_sent(storage: PostgresStorage) -> None:
    trial_id = storage.create_new_trial(storage.create_new_study(MINIMIZE))
    for key in ("k" * 513, "k\0", "\ud800"):
        with pytest.raises(StorageInternalError, match="up to 512 characters without NUL"):
            storage.set_trial_user_attr(trial_id, key, 1)
        with pytest.raises(StorageInternalError, match="up to 512 characters"):
            storage.set_trial_param(trial_id, key, 0.5, X)
    with pytest.raises(StorageInternalError, match=r"a step is between .*but this one is 1700000000000"):
        storage.set_trial_intermediate_value(trial_id, 1_700_000_000_000, 0.5)
    storage.set_trial_user_attr(trial_id, "k" * 512, "\0")
    assert storage.get_trial(trial_id).user_attrs == {"k" * 512: "\0"}


# ---- lost connections


def test_nothing_is_lost_with_the_connection(storage: PostgresStorage, rdb: RDBStorage) -> None:
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    drop_connections()
    trial.report(0.25, 1)
    trial.set_user_attr("k", "v")
    drop_connections()
    study.tell(trial, 1.0)
    drop_connections()
    assert storage.create_new_study(MINIMIZE) > 0
    rdb.engine.dispose()
    found = rdb.get_trial(trial._trial_id)
    assert (found.state, found.params, found.user_attrs) == (TrialState.COMPLETE, trial.params, {"k": "v"})
    assert found.intermediate_values == {1: 0.25}


def test_a_connection_lost_while_an_error_is_handled_is_opened_again(storage: PostgresStorage) -> None:
    study_id = storage.create_new_study(MINIMIZE)
    try:
        _ = os.environ["EVERTUNE_NOT_SET"]
    except KeyError:
        drop_connections()
        assert storage.get_all_trials(study_id) == []


class DiesAfter:
    """A connection whose server goes away after the n-th statement was carried out, before it could say so."""

    def __init__(self, connection: psycopg.Connection, n: int) -> None:
        self._connection, self._left = connection, n

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def pipeline(self) -> Any:
        return self

    def __enter__(self) -> None:
        self._inner = self._connection.pipeline()
        self._inner.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._inner.__exit__(*error)
        self._left -= 1
        if self._left == 0:
            drop_connections()
            self._connection.execute("SELECT 1")


def test_what_was_done_before_the_connection_was_lost_is_not_done_twice(storage: PostgresStorage) -> None:
    study_id = storage.create_new_study(MINIMIZE)
    storage._link._connection = DiesAfter(storage._link._connection, 1)  # type: ignore[arg-type, assignment]
    trial_id = storage.create_new_trial(study_id)
    assert storage.get_n_trials(study_id) == 1
    storage._link._connection = DiesAfter(storage._link._connection, 1)  # type: ignore[arg-type, assignment]
    assert storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
    assert storage.get_trial(trial_id).values == [1.0]
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [2.0])


def test_a_client_learns_when_it_sends_that_somebody_else_ended_its_trial(storage: PostgresStorage) -> None:
    other = PostgresStorage()
    trial_id = storage.create_new_trial(storage.create_new_study(MINIMIZE))
    other.set_trial_state_values(trial_id, TrialState.FAIL)
    other.close()
    storage.set_trial_user_attr(trial_id, "k", "v")
    storage.flush()
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_user_attr(trial_id, "k", "v")
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
    found = storage.get_trial(trial_id)
    assert (found.state, found.user_attrs) == (TrialState.FAIL, {})


def test_a_signal_in_the_middle_of_a_statement_costs_that_statement_only(storage: PostgresStorage) -> None:
    def too_late(*_: Any) -> None:
        raise TimeoutError

    def run_trials() -> None:
        while True:
            trial_id = storage.create_new_trial(study_id)
            storage.set_trial_param(trial_id, "x", 0.5, X)
            storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])

    study_id = storage.create_new_study(MINIMIZE)
    previous = signal.signal(signal.SIGALRM, too_late)
    for n in range(40):
        signal.setitimer(signal.ITIMER_REAL, 0.005 + n / 3000, 0.5)  # again, where the first falls into a destructor
        with pytest.raises(TimeoutError):
            run_trials()
        signal.setitimer(signal.ITIMER_REAL, 0)
        storage.create_new_trial(study_id, create_trial(value=2.0))
    signal.signal(signal.SIGALRM, previous)
    trials = storage.get_all_trials(study_id)
    assert [t.number for t in trials] == list(range(len(trials)))
    assert sum(t.values == [2.0] for t in trials) == 40
    assert all(t.params == {"x": 0.5} for t in trials if t.values == [1.0])


# ---- threads, processes, pickles


def test_threads_share_it(storage: PostgresStorage) -> None:
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=1))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=40, n_jobs=8)
    assert [t.number for t in study.trials] == list(range(40))
    assert all(t.state == TrialState.COMPLETE and t.value == t.params["x"] for t in study.trials)
    with connect() as connection:
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        assert connection.execute(count).fetchone() == (1,)


def test_a_forked_process_has_a_connection_of_its_own(storage: PostgresStorage) -> None:
    study = optuna.create_study(storage=storage)
    mine = study.ask()
    mine.suggest_float("x", 0, 1)

    def work() -> None:
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)

    children = [multiprocessing.get_context("fork").Process(target=work) for _ in range(2)]
    for child in children:
        child.start()
    mine.report(1.0, 1)
    for child in children:
        child.join()
    study.tell(mine, 2.0)
    assert [child.exitcode for child in children] == [0, 0]
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 7
    assert study.trials[0].intermediate_values == {1: 1.0}


def test_heartbeats_find_a_stale_trial(database: str) -> None:  # noqa: ARG001
    storage = PostgresStorage(heartbeat_interval=1, grace_period=1)
    study = optuna.create_study(storage=storage)
    stale = study.ask()
    storage.record_heartbeat(stale._trial_id)
    time.sleep(1.1)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    copy = pickle.loads(pickle.dumps(storage))
    assert copy.get_heartbeat_interval() == 1
    storage.close()


@pytest.mark.parametrize("name", ["heartbeat_interval", "grace_period"])
def test_seconds_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be a positive number of seconds, but is 0"):
        PostgresStorage(**{name: 0})  # type: ignore[arg-type]


def test_constraints_are_kept(storage: PostgresStorage) -> None:
    study = optuna.create_study(storage=storage)
    study.optimize(lambda trial: (trial.set_constraint("c", -1.0), trial.suggest_float("x", 0, 1))[1], n_trials=2)
    assert study.best_trial.number in (0, 1)


def test_two_kinds_of_clients_write_to_one_study_at_once(storage: PostgresStorage, rdb: RDBStorage) -> None:
    name = "both"
    optuna.create_study(storage=storage, study_name=name)

    def work(own: BaseStorage) -> None:
        study = optuna.load_study(study_name=name, storage=own, sampler=optuna.samplers.RandomSampler())
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=25)

    threads = [threading.Thread(target=work, args=(own,)) for own in (storage, rdb)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    study_id = storage.get_study_id_from_name(name)
    assert [t.number for t in storage.get_all_trials(study_id)] == list(range(50))
    assert storage.get_all_trials(study_id) == rdb.get_all_trials(study_id)


# ---- the same as Optuna's own, step by step

NUMBERS = st.floats(allow_nan=False)
NAMES = st.sampled_from(["x", "y", "z"])
DISTRIBUTIONS = st.sampled_from(
    [X, FloatDistribution(1e-9, 1e9, log=True), IntDistribution(1, 9), CategoricalDistribution(["a", None, 1.5])]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


def seen(trial: FrozenTrial) -> tuple[Any, ...]:
    """What two storages must agree upon; NaN equals itself."""
    return (
        trial.number, trial.state, trial.values, list(trial.params.items()), list(trial.distributions.items()),
        repr(sorted(trial.user_attrs.items())), repr(sorted(trial.system_attrs.items())),
        repr(sorted(trial.intermediate_values.items())), trial.datetime_start is None, trial.datetime_complete is None,
    )  # fmt: skip


class SameAsInMemory(RuleBasedStateMachine):
    """Two clients of `PostgresStorage` do what one of `InMemoryStorage` does; `RDBStorage` reads the same rows.

    A running trial is ended by the client that runs it: that somebody else did so it learns when it sends something,
    and what others wrote to it when it reads all trials.
    """

    trials: Bundle[int] = Bundle("trials")
    CLIENTS = st.sampled_from([0, 1])
    rdb: RDBStorage

    def __init__(self) -> None:
        super().__init__()
        self.clients = [PostgresStorage(), PostgresStorage()]
        self.model = InMemoryStorage()
        self.study_id = self.clients[0].create_new_study(MINIMIZE)
        self.model_study = self.model.create_new_study(MINIMIZE)
        self.ids: list[tuple[int, int]] = []
        self.runs: dict[int, int] = {}

    def both(self, client: int, method: str, trial: int, *arguments: Any) -> None:
        """Call a method of both; what one refuses, the other must."""
        if method == "set_trial_state_values":
            client = self.runs.setdefault(trial, client)
        outcomes = []
        for storage, trial_id in zip((self.clients[client], self.model), self.ids[trial], strict=True):
            try:
                outcomes.append(getattr(storage, method)(trial_id, *arguments))
            except (ValueError, UpdateFinishedTrialError) as err:
                outcomes.append(type(err))
        assert outcomes[0] == outcomes[1], method
        for other in self.clients:
            other.flush()

    @rule(target=trials, client=CLIENTS)
    def create(self, client: int) -> int:
        self.ids.append(
            (self.clients[client].create_new_trial(self.study_id), self.model.create_new_trial(self.model_study))
        )
        self.runs[len(self.ids) - 1] = client
        return len(self.ids) - 1

    @rule(target=trials, client=CLIENTS, state=st.sampled_from(list(TrialState)), value=NUMBERS, attribute=VALUES)
    def create_from_template(self, client: int, state: TrialState, value: float, attribute: Any) -> int:
        template = create_trial(
            state=state,
            value=value if state == TrialState.COMPLETE else None,
            params={"template": 0.5},  # which Optuna's storages don't agree to check others against
            distributions={"template": X},
            user_attrs={"given": attribute},
            intermediate_values={0: value},
        )
        mine = self.clients[client].create_new_trial(self.study_id, template)
        self.ids.append((mine, self.model.create_new_trial(self.model_study, template)))
        if state == TrialState.RUNNING:
            self.runs[len(self.ids) - 1] = client
        return len(self.ids) - 1

    @rule(client=CLIENTS, trial=trials, name=NAMES, distribution=DISTRIBUTIONS)
    def param(self, client: int, trial: int, name: str, distribution: BaseDistribution) -> None:
        self.both(client, "set_trial_param", trial, name, 1.0, distribution)

    @rule(client=CLIENTS, trial=trials, step=st.integers(0, 3), value=st.floats())
    def report(self, client: int, trial: int, step: int, value: float) -> None:
        self.both(client, "set_trial_intermediate_value", trial, step, value)

    @rule(client=CLIENTS, trial=trials, kind=st.sampled_from(["user", "system"]), name=NAMES, value=VALUES)
    def attribute(self, client: int, trial: int, kind: str, name: str, value: Any) -> None:
        self.both(client, f"set_trial_{kind}_attr", trial, name, value)

    @rule(client=CLIENTS, trial=trials, state=st.sampled_from([TrialState.RUNNING, TrialState.FAIL]))
    def change(self, client: int, trial: int, state: TrialState) -> None:
        self.both(client, "set_trial_state_values", trial, state)

    @rule(client=CLIENTS, trial=consumes(trials), value=NUMBERS)
    def complete(self, client: int, trial: int, value: float) -> None:
        self.both(client, "set_trial_state_values", trial, TrialState.COMPLETE, [value])

    @precondition(lambda self: len(self.ids) > 2)
    @rule()
    def connections_are_lost(self) -> None:
        drop_connections()
        self.rdb.engine.dispose()

    @rule(states=st.none() | st.sets(st.sampled_from(list(TrialState))).map(tuple))
    def filtered(self, states: tuple[TrialState, ...] | None) -> None:
        found = [seen(t) for t in self.clients[0].get_all_trials(self.study_id, deepcopy=False, states=states)]
        assert found == [seen(t) for t in self.model.get_all_trials(self.model_study, deepcopy=False, states=states)]

    @invariant()
    def all_read_the_same(self) -> None:
        wanted = [seen(t) for t in self.model.get_all_trials(self.model_study, deepcopy=False)]
        for storage in (*self.clients, self.rdb):
            assert [seen(t) for t in storage.get_all_trials(self.study_id, deepcopy=False)] == wanted
        for index, ((trial_id, _), trial) in enumerate(zip(self.ids, wanted, strict=True)):
            if self.runs.get(index) != 1:
                assert seen(self.clients[1].get_trial(trial_id)) == trial

    def teardown(self) -> None:
        for client in self.clients:
            client.close()


def test_step_by_step_it_is_as_optunas_own(rdb: RDBStorage) -> None:
    SameAsInMemory.rdb = rdb
    checks = settings(
        max_examples=12, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    run_state_machine_as_test(SameAsInMemory, settings=checks)
