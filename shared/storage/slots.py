"""The exact budget of a study: no interleaving of workers lets one more trial finish than it allows.

A worker reserves a slot before it creates a trial, and gives the slot back after it has told how the trial ended. What
counts against the budget are the trials that have finished, as Optuna's own table says, and the slots of those that
may still finish; so a slot given back by a trial that failed is free again, and nothing has to be kept in step.

A worker is alive as long as it holds a session-level advisory lock of PostgreSQL, which is freed when its process dies.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import RLock
from types import TracebackType
from typing import Any, TypeVar
from uuid import UUID, uuid4

import psycopg

from shared.errors import ServiceError
from shared.storage.database import connect

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# A dead machine is noticed in a minute, where the connection is remote.
KEEPALIVE = """
SELECT set_config('tcp_keepalives_idle', '30', false), set_config('tcp_keepalives_interval', '10', false),
       set_config('tcp_keepalives_count', '3', false)
"""

# Held until the connection closes, for whatever reason.
LIVE = "SELECT pg_advisory_lock(hashtextextended('evertune.worker/' || %(worker)s, 0))"

# A worker whose connection was lost goes on under another name, so that it need not wait for its own old lock.
RENAME = "UPDATE evertune.slots SET worker = %(worker)s WHERE worker = %(before)s"

# One at a time counts and changes the slots of a study, until its transaction ends.
LOCK_STUDY = "SELECT pg_advisory_xact_lock(hashtextextended('evertune.slots/' || %(study)s, 0))"

# Finished trials, and slots whose trial hasn't finished. A slot whose trial has is not counted twice.
USED = """
SELECT (SELECT count(*) FROM trials t JOIN studies s USING (study_id)
        WHERE s.study_name = %(study)s AND t.state IN ('COMPLETE', 'PRUNED')),
       (SELECT count(*) FROM evertune.slots p LEFT JOIN trials t USING (trial_id)
        WHERE p.study = %(study)s AND p.id <> %(id)s AND (t.state IS NULL OR t.state NOT IN ('COMPLETE', 'PRUNED')))
"""

# Repeated where the connection was lost before the answer came.
INSERT = "INSERT INTO evertune.slots (id, study, worker) VALUES (%(id)s, %(study)s, %(worker)s) ON CONFLICT DO NOTHING"

ATTACH = "UPDATE evertune.slots SET trial_id = %(trial_id)s WHERE id = %(id)s"

DELETE = "DELETE FROM evertune.slots WHERE id = %(id)s"

# Take over the slots of workers that have died. One without a trial is left alone while a living worker has one too,
# since a trial without a slot could then be either's.
ADOPT = """
WITH held AS MATERIALIZED (SELECT id, trial_id, worker FROM evertune.slots WHERE study = %(study)s),
judged AS MATERIALIZED (
    SELECT id, trial_id,
           CASE WHEN worker = %(worker)s THEN false
                ELSE pg_try_advisory_xact_lock(hashtextextended('evertune.worker/' || worker, 0)) END AS dead
    FROM held)
UPDATE evertune.slots p SET worker = %(worker)s
FROM judged
WHERE p.id = judged.id AND judged.dead
  AND (judged.trial_id IS NOT NULL OR NOT EXISTS (SELECT FROM judged WHERE trial_id IS NULL AND NOT dead))
RETURNING p.id, p.trial_id
"""

# Trials that run without a slot: their worker died after creating them, before it could attach them.
ORPHANS = """
SELECT t.trial_id FROM trials t JOIN studies s USING (study_id)
WHERE s.study_name = %(study)s AND t.state = 'RUNNING'
  AND NOT EXISTS (SELECT FROM evertune.slots p WHERE p.trial_id = t.trial_id)
ORDER BY t.trial_id LIMIT %(limit)s
"""

# Of the slots that were taken over, those with a trial that still runs.
RUNNING = """
SELECT p.id, p.trial_id FROM evertune.slots p JOIN trials t USING (trial_id)
WHERE p.id = ANY(%(ids)s) AND t.state = 'RUNNING'
"""

DELETE_ALL = "DELETE FROM evertune.slots WHERE id = ANY(%(ids)s)"


@dataclass(frozen=True)
class Slot:
    """A place in the budget, held for one trial: attach the trial, tell how it ended, then finish or release."""

    slots: Slots
    id: UUID

    def attach(self, trial_id: int) -> None:
        """Say which trial the slot is for, before it is evaluated.

        Raises:
            ServiceError: the connection was lost for so long that the slot went to another worker.
        """
        if self.slots._execute(ATTACH, id=self.id, trial_id=trial_id) == 0:
            raise ServiceError(
                f"a trial needs its slot in the budget of {self.slots.study}, but the connection to the database was "
                "lost, and the slot given to another worker; start the worker again"
            )

    def finish(self) -> None:
        """The trial was told COMPLETE or PRUNED: from now on itself counts against the budget."""
        self._delete()

    def release(self) -> None:
        """The trial was told FAIL, or never created: its place is free again."""
        self._delete()

    def _delete(self) -> None:
        self.slots._execute(DELETE, id=self.id)


class Slots:
    """A worker's access to the budget of a study. Thread-safe; holds one connection, which says that it lives.

    budget: trials that finish, over all workers and runs of the study.
    full: whether that many had finished at the last `reserve`; if not, and there was no slot, others may still give
    one back.

    Raises:
        ServiceError: the database can't be reached (from every method).
    """

    def __init__(self, study: str, budget: int, worker: int | str) -> None:
        self.study = study
        self.budget = budget
        self.full = False
        self._label = worker
        self._lock = RLock()
        self._dead: list[tuple[UUID, int]] = []
        self._open()

    def reserve(self) -> Slot | None:
        """A slot for one more trial, or None where as many have finished, or may still finish, as the budget allows."""
        slot = Slot(self, uuid4())

        def work(connection: psycopg.Connection) -> bool:
            values = {"id": slot.id, "study": self.study, "worker": self._worker}
            connection.execute(LOCK_STUDY, values)
            finished, held = connection.execute(USED, values).fetchone() or (0, 0)
            self.full = finished >= self.budget
            if finished + held < self.budget:
                connection.execute(INSERT, values)
                return True
            return False

        return slot if self._transact(work) else None

    def reap(self) -> Iterator[int]:
        """Ids of the trials that dead workers left running. Tell each FAIL before asking for the next one.

        The slot of a trial is given back when the iteration goes on. Should this worker die before that, the next one
        to reap finds the trial again.
        """
        self._dead += self._transact(self._adopt)
        while self._dead:
            slot, trial_id = self._dead.pop()
            try:
                yield trial_id
            except GeneratorExit:  # whoever asked has failed: the trial waits for the next `reap`
                self._dead.append((slot, trial_id))
                raise
            self._execute(DELETE, id=slot)

    def close(self) -> None:
        """Let go of the connection. What is still held goes to the workers that live."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Slots:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _adopt(self, connection: psycopg.Connection) -> list[tuple[UUID, int]]:
        values: dict[str, Any] = {"study": self.study, "worker": self._worker}
        connection.execute(LOCK_STUDY, values)
        adopted = connection.execute(ADOPT, values).fetchall()
        if not adopted:
            return []
        empty = [slot for slot, trial_id in adopted if trial_id is None]
        orphans = connection.execute(ORPHANS, {**values, "limit": len(empty)}).fetchall()
        for slot, (trial_id,) in zip(empty, orphans, strict=False):
            connection.execute(ATTACH, {"id": slot, "trial_id": trial_id})
        slots = [slot for slot, _ in adopted]
        running = connection.execute(RUNNING, {"ids": slots}).fetchall()
        connection.execute(DELETE_ALL, {"ids": list(set(slots) - {slot for slot, _ in running})})
        logger.warning("dead workers found", extra={"study": self.study, "trials": [trial for _, trial in running]})
        return running

    def _open(self, before: str = "") -> None:
        self._worker = f"{self._label}/{uuid4().hex}"
        self._connection = connect()
        self._connection.execute(KEEPALIVE)
        self._connection.execute(LIVE, {"worker": self._worker})
        if before:
            with self._connection.transaction():
                self._connection.execute(LOCK_STUDY, {"study": self.study})
                self._connection.execute(RENAME, {"worker": self._worker, "before": before})

    def _execute(self, statement: str, **values: Any) -> int:
        return self._transact(lambda connection: connection.execute(statement, values).rowcount)

    def _transact(self, work: Callable[[psycopg.Connection], Result]) -> Result:
        """Do the work in one transaction; once more, on a new connection, if the present one was lost."""
        with self._lock:
            try:
                with self._connection.transaction():
                    return work(self._connection)
            except psycopg.OperationalError:
                if not self._connection.closed:
                    raise
            logger.warning("connection lost", extra={"study": self.study, "worker": self._worker})
            self._open(before=self._worker)
            with self._connection.transaction():
                return work(self._connection)
