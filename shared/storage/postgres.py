"""An Optuna storage on Optuna's own tables in PostgreSQL, by psycopg: few round trips, and none that nobody waits for.

`RDBStorage`, `optuna-dashboard` and the `optuna` command read and write the same studies at the same time.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.storages._base import DEFAULT_STUDY_NAME_PREFIX, BaseStorage
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from psycopg import errors

from shared.storage import database, optuna_tables, statements
from shared.storage.link import Link, Result
from shared.storage.outbox import outbox
from shared.storage.trials import Row, StudyTrials, Writes, attributes, check_key, frozen_trial, utc

if TYPE_CHECKING:
    import optuna

    from shared.storage.leases import Leases


class NoRoomError(Exception):
    """A trial can't run now: as many have finished, or may still finish, as the study's budget allows."""


class GoneError(KeyError):
    """There is no such study or trial, or not any more."""


class RunningTrial:
    """A trial that this process runs, and what it was told. `unsent` is the part that the database wasn't told yet."""

    def __init__(self, trial_id: int, number: int, study_id: int, start: datetime | None, told: Writes) -> None:
        self.study_id = study_id
        self.told = told
        self.unsent = Writes()
        self._identity = trial_id, number
        self._start = start

    def frozen(self, state: TrialState = TrialState.RUNNING, complete: datetime | None = None) -> FrozenTrial:
        return self.told.trial(*self._identity, state.name, self._start, complete)


class PostgresStorage(BaseStorage, BaseHeartbeat):
    """Studies and trials in PostgreSQL.

    What `create_new_trial` returned and the state and values of a finished trial are durable when the call returns.
    What a running trial is told is sent a moment later, and durable, in order, at the latest when it ends; until then
    it is kept, and sent again where the server was lost. What reading the trials costs follows those that have
    finished since the last time, and those that haven't. `get_trial` of a running trial says what this process told it.

    Threads may share it; it has one connection for each process, also after `fork`. Pickled, it has no password.

    url: a PostgreSQL URL; None is Evertune's own database. heartbeat_interval, grace_period: seconds; as in Optuna's
    `RDBStorage`, a trial without a heartbeat for `grace_period` (twice the interval) is stale.

    Raises:
        ServiceError: the database can't be reached, was away for a minute, or has tables of an Optuna that isn't
            known (from every method).
        StorageInternalError: the database refuses a value.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        heartbeat_interval: int | None = None,
        grace_period: int | None = None,
        heartbeat_stale_trial_callback: Callable[[optuna.Study, FrozenTrial], None] | None = None,
    ) -> None:
        for name, seconds in (("heartbeat_interval", heartbeat_interval), ("grace_period", grace_period)):
            if seconds is not None and seconds <= 0:
                raise ValueError(f"`{name}` must be a positive number of seconds, but is {seconds}")
        self._heartbeat_interval = heartbeat_interval
        self._grace_period = grace_period
        self._stale_trial_callback = heartbeat_stale_trial_callback
        self._url = url and database.without_password(url)
        self._link = Link(lambda: self._connect(url), self._forked)
        self._leases: Leases | None = None
        self._running: dict[int, RunningTrial] = {}
        self._trials: dict[int, StudyTrials] = {}
        self._directions: dict[int, list[StudyDirection]] = {}
        self._ended: FrozenTrial | None = None
        self._link.open()

    # ---- studies

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        values = {
            "name": DEFAULT_STUDY_NAME_PREFIX + str(uuid4()) if study_name is None else study_name,
            "directions": [direction.name for direction in directions],
        }

        def work(connection: psycopg.Connection, again: bool) -> int:
            if again and (found := connection.execute(statements.EMPTY_STUDY, [values["name"]]).fetchone()):
                return int(found[0])
            return int(_one(connection.execute(statements.CREATE_STUDY, values))[0])

        try:
            return self.run(work)
        except errors.UniqueViolation:
            raise DuplicatedStudyError(f"a study's name must be new, but there is one called {study_name!r}") from None

    def delete_study(self, study_id: int) -> None:
        def work(connection: psycopg.Connection, again: bool) -> int:
            with connection.pipeline():
                for statement in statements.DELETE_STUDY:
                    deleted = connection.execute(statement, {"study_id": study_id})
            return deleted.rowcount or int(again)

        with self._link.lock:
            self._forget_study(study_id)
            if not self.run(work):
                raise _no_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._set_study_attribute("user", study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._set_study_attribute("system", study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._study(statements.STUDY_BY_NAME, study_name)._study_id

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._study(statements.STUDY_BY_ID, study_id).study_name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        if study_id not in self._directions:
            self._directions[study_id] = self._study(statements.STUDY_BY_ID, study_id).directions
        return list(self._directions[study_id])

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._study(statements.STUDY_BY_ID, study_id).user_attrs

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._study(statements.STUDY_BY_ID, study_id).system_attrs

    def get_all_studies(self) -> list[FrozenStudy]:
        return [_frozen_study(row) for row in self._read(statements.ALL_STUDIES)]

    # ---- writing trials

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        state = template_trial.state if template_trial else TrialState.RUNNING
        writes = Writes.of(template_trial) if template_trial else Writes()
        start = utc(template_trial.datetime_start if template_trial else datetime.now())
        values = {
            "study_id": study_id,
            "state": state.name,
            "start": start,
            "complete": utc(template_trial.datetime_complete) if template_trial else None,
            "writes": writes.dumps(),
        }
        leased = state == TrialState.RUNNING and self._is_leased(study_id)

        def work(connection: psycopg.Connection, again: bool) -> Row | None:
            if again and start and (found := connection.execute(statements.CREATED, values).fetchone()):
                return found
            with connection.pipeline():
                connection.execute(statements.LOCK_STUDY, values)
                create = statements.create_trial(writes.kinds, leased=leased)
                created = connection.execute(create, values | (self._claim(study_id) if leased else {}))
            return created.fetchone()

        with self._link.lock:
            try:
                row = self.run(work)
            except errors.ForeignKeyViolation:
                raise _no_study(study_id) from None
            if row is None:
                raise NoRoomError(study_id)
            trial_id, number = row
            if state == TrialState.RUNNING:
                self._running[trial_id] = RunningTrial(trial_id, number, study_id, start, writes)
            return int(trial_id)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        with self._link.lock:
            running = self._running.get(trial_id)
            study_id = running.study_id if running else self._writable(trial_id)
            self._check_compatible(study_id, param_name, distribution)
            writes = Writes()
            writes.param(param_name, param_value_internal, distribution)
            self._write(trial_id, writes)
            self._trials_of(study_id).distributions.setdefault(param_name, distribution)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        writes = Writes()
        writes.step(step, intermediate_value)
        self._write(trial_id, writes)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        writes = Writes()
        writes.attribute("user", key, value)
        self._write(trial_id, writes)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        writes = Writes()
        writes.attribute("system", key, value)
        self._write(trial_id, writes)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        at, runs = utc(datetime.now()), state == TrialState.RUNNING
        written = Writes()
        if values is not None:
            written.values(values)

        def work(connection: psycopg.Connection, again: bool) -> tuple[Row | None, Row | None, bool]:
            running, writes = self._running.get(trial_id), Writes()
            writes.update(running.unsent if running else Writes())
            writes.update(written)
            given = {"trial_id": trial_id, "state": state.name, "at": at, "writes": writes.dumps()}
            tell = statements.tell_trial(writes.kinds, leased=self._leases is not None, runs=runs)
            with connection.pipeline():
                if self._leases:
                    given |= self._claim(self._leases.study_id)
                    if runs:
                        connection.execute(statements.LOCK_STUDY, given)
                told = connection.execute(tell, given)
                now = connection.execute(statements.TRIAL, [trial_id]) if runs else None
            return told.fetchone(), now.fetchone() if now else None, again

        with self._link.lock:
            before, now, again = self.run(work)
            found, changed, by_this = before or (None, False, False)
            done = changed or (again and by_this)
            if found == "RUNNING" and not done:
                return False
            running = self._running.pop(trial_id, None)
            if found is None:
                raise _no_trial(trial_id)
            if not done:
                self.check_trial_is_updatable(trial_id, TrialState[found])
                raise NoRoomError(trial_id)
            if now:
                told = Writes.of(frozen_trial(now))
                self._running[trial_id] = RunningTrial(trial_id, now[1], now[-1], now[3], told)
            elif running:
                running.told.update(written)
                self._ended = running.frozen(state, at)
            return True

    # ---- reading trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        with self._link.lock:
            if (running := self._running.get(trial_id)) is not None:
                return running.frozen()
            if self._ended is not None and self._ended._trial_id == trial_id:
                return self._ended
        return frozen_trial(self._trial_row(trial_id))

    def get_trial_param(self, trial_id: int, param_name: str) -> float:
        trial = self.get_trial(trial_id)
        return float(trial.distributions[param_name].to_internal_repr(trial.params[param_name]))

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        rows = self._read(statements.TRIAL_ID, [study_id, trial_number])
        if not rows:
            raise KeyError(f"study {study_id} has no trial of number {trial_number}")
        return int(rows[0][0])

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        with self._link.lock:
            if states == (TrialState.WAITING,) and not self._any_waiting(study_id):
                return []
            trials = self._news(study_id).in_states(states)
        return copy.deepcopy(trials) if deepcopy else trials

    # ---- heartbeats

    def record_heartbeat(self, trial_id: int) -> None:
        self.run(lambda connection, _: connection.execute(statements.HEARTBEAT, [trial_id]))

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        interval = self._heartbeat_interval or 0
        rows = self._read(statements.STALE, [study_id, self._grace_period or 2 * interval])
        return [row[0] for row in rows]

    def get_heartbeat_interval(self) -> int | None:
        return self._heartbeat_interval

    def get_heartbeat_stale_trial_callback(self) -> Callable[[optuna.Study, FrozenTrial], None] | None:
        return self._stale_trial_callback

    # ---- budgets

    def lease(self, leases: Leases | None) -> None:
        """From now on trials of its study run under a worker's leases, and in its budget; None: no longer."""
        with self._link.lock:
            self._leases = leases
            if leases:
                self.run(lambda connection, _: leases.hold(connection))

    def count_finished(self, study_id: int) -> int:
        """Trials of a study that count against its budget."""
        with self._link.lock:
            return self._news(study_id).n_finished

    @contextmanager
    def exclusive(self, study_id: int) -> Iterator[None]:
        """Let one process at a time do what follows to a study."""
        with self._link.lock:
            self.run(lambda connection, _: connection.execute(statements.ENTER, [study_id]))
            try:
                yield
            finally:
                self.run(lambda connection, _: connection.execute(statements.LEAVE, [study_id]))

    # ---- the connection

    def flush(self) -> None:
        """Send what running trials were told, if it wasn't sent yet."""
        with self._link.lock:
            if any(running.unsent for running in self._running.values()):
                self._read()

    def close(self) -> None:
        """Send what wasn't sent, if the server is there, and let go of the connection; the next call opens another."""
        if self._link.connected:
            self.flush()
        self._link.close()

    def __getstate__(self) -> dict[str, Any]:
        self.flush()
        return {
            "url": self._url,
            "heartbeat_interval": self._heartbeat_interval,
            "grace_period": self._grace_period,
            "heartbeat_stale_trial_callback": self._stale_trial_callback,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _connect(self, url: str | None) -> psycopg.Connection:
        """A connection, on which nothing is missing that was lost with the one before.

        A server that crashed comes back without what wasn't durable: what running trials were told, and maybe trials.
        """
        connection = optuna_tables.connect(url)
        try:
            self._trials.clear()
            self._ended = None
            for trial_id, running in self._running.items():
                if running.told:
                    self._send(connection, trial_id, running.told, again=True)
            if self._leases:
                self._leases.hold(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _forked(self) -> None:
        """In a child of `fork`: running trials, and the leases on them, are the parent's."""
        self._running, self._trials, self._directions = {}, {}, {}
        self._ended = self._leases = None

    def run(self, work: Callable[[psycopg.Connection, bool], Result]) -> Result:
        """`work(connection, again)` on the connection, as `Link.run` does it."""
        try:
            return self._link.run(work)
        except psycopg.IntegrityError:
            raise
        except psycopg.Error as err:
            raise StorageInternalError(f"the database refuses it: {err}") from err

    def _read(self, statement: str | None = None, values: Any = None) -> list[Row]:
        """The rows of a statement, after what running trials were told was sent with it.

        values: of the statement, or a function that gives them when it is sent.
        """

        def work(connection: psycopg.Connection, _: bool) -> list[Row]:
            given = values() if callable(values) else values
            unsent = [(trial_id, running) for trial_id, running in self._running.items() if running.unsent]
            if not unsent and statement:
                return connection.execute(statement, given).fetchall()
            with connection.pipeline():
                sent = [self._send(connection, trial_id, running.unsent, durable=False) for trial_id, running in unsent]
                read = connection.execute(statement, given) if statement else None
            for (trial_id, running), cursor in zip(unsent, sent, strict=True):
                running.unsent = Writes()
                if _one(cursor)[0] not in ("RUNNING", "WAITING"):
                    del self._running[trial_id]  # somebody else ended it; whoever writes next is told
            return read.fetchall() if read else []

        with self._link.lock:
            return self.run(work)

    def _is_leased(self, study_id: int) -> bool:
        return self._leases is not None and self._leases.study_id == study_id

    def _claim(self, study_id: int) -> dict[str, Any]:
        """What a statement wants to know that makes a trial run within a budget."""
        return self._leases.values | {"study_id": study_id, **self._trials_of(study_id).news} if self._leases else {}

    # ---- trials of this process and what it knows of others

    def _write(self, trial_id: int, writes: Writes) -> None:
        """Tell a trial something: a running one of this process a moment later, any other now."""
        with self._link.lock:
            running = self._running.get(trial_id)
            if running:
                running.told.update(writes)
                running.unsent.update(writes)
                outbox().add(self)
                return
            self._writable(trial_id)
            self.run(lambda connection, _: self._send(connection, trial_id, writes))

    @staticmethod
    def _send(
        connection: psycopg.Connection, trial_id: int, writes: Writes, *, durable: bool = True, again: bool = False
    ) -> psycopg.Cursor[Row]:
        statement = statements.write_trial(writes.kinds, durable=durable, again=again)
        return connection.execute(statement, {"trial_id": trial_id, "writes": writes.dumps()})

    def _writable(self, trial_id: int) -> int:
        """The study of a trial that isn't finished."""
        row = self._trial_row(trial_id)
        self.check_trial_is_updatable(trial_id, TrialState[row[2]])
        return int(row[-1])

    def _check_compatible(self, study_id: int, name: str, distribution: BaseDistribution) -> None:
        known = self._trials_of(study_id).distributions.get(name) or self._news(study_id).distributions.get(name)
        if known is not None:
            check_distribution_compatibility(known, distribution)

    def _trial_row(self, trial_id: int) -> Row:
        rows = self._read(statements.TRIAL, [trial_id])
        if not rows:
            raise _no_trial(trial_id)
        return rows[0]

    def _trials_of(self, study_id: int) -> StudyTrials:
        return self._trials.setdefault(study_id, StudyTrials())

    def _news(self, study_id: int) -> StudyTrials:
        """The study's trials, those read again that may have changed."""

        def since() -> dict[str, Any]:
            return {"study_id": study_id, **self._trials_of(study_id).news}

        rows = self._read(statements.NEWS, since)
        if not rows:
            self._forget_study(study_id)
            raise _no_study(study_id)
        trials = self._trials_of(study_id)
        for trial in trials.update(row for row in rows if row[1] is not None):
            if trial.state.is_finished():
                self._running.pop(trial._trial_id, None)  # somebody else ended it
        return trials

    def _any_waiting(self, study_id: int) -> bool:
        rows = self._read(statements.ANY_WAITING, [study_id])
        if not rows:
            raise _no_study(study_id)
        return bool(rows[0][0])

    def _forget_study(self, study_id: int) -> None:
        self._trials.pop(study_id, None)
        self._directions.pop(study_id, None)
        self._ended = None

    def _study(self, statement: str, key: int | str) -> FrozenStudy:
        rows = self._read(statement, [key])
        if not rows:
            raise _no_study(key)
        return _frozen_study(rows[0])

    def _set_study_attribute(self, kind: str, study_id: int, key: str, value: Any) -> None:
        statement = statements.SET_STUDY_ATTRIBUTE.format(kind=kind)
        values = {"study_id": study_id, "key": check_key(key), "value": json.dumps(value)}
        if not self.run(lambda connection, _: connection.execute(statement, values).rowcount):
            raise _no_study(study_id)


def _one(cursor: psycopg.Cursor[Row]) -> Row:
    row = cursor.fetchone()
    assert row is not None
    return row


def _frozen_study(row: Row) -> FrozenStudy:
    study_id, name, directions, user, system = row
    return FrozenStudy(
        study_name=name,
        direction=None,
        directions=[StudyDirection[direction] for direction in directions],
        user_attrs=attributes(json.loads(user) if user else None),
        system_attrs=attributes(json.loads(system) if system else None),
        study_id=study_id,
    )


def _no_study(key: int | str) -> GoneError:
    return GoneError(f"there is no study {key!r}")


def _no_trial(trial_id: int) -> GoneError:
    return GoneError(f"there is no trial of id {trial_id}")
