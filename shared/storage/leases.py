"""The exact budget of a study, and the dated claims of workers on its trials.

What counts against the budget are the trials that have finished and those that run under a lease. A trial is created,
or taken from the queue, only where there is room, in one transaction under the lock of its study; so no interleaving
of workers lets one more trial finish than the budget allows, and a trial that fails gives its place back by failing.

A worker renews its leases from a thread. Where it stops to, its trials are given back: when the lease is over, or,
where its connection has gone too, after a moment in which it could have come back with another. After a start of the
server everybody has that moment.
"""

from __future__ import annotations

import logging
from threading import Event, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg

if TYPE_CHECKING:
    from shared.storage.postgres import PostgresStorage

logger = logging.getLogger(__name__)

LEASE_S = 30.0
RENEWALS = 10  # in the time of a lease
# A worker whose connection has gone has this part of a lease to come back: more than two renewals, since it may learn
# of the loss by the next one only.
GRACE = 1 / 3

# Held until the connection closes, for whatever reason.
LIVE = "SELECT pg_advisory_lock(hashtextextended('evertune.worker/' || %(worker)s, 0))"

# A worker whose connection was lost goes on under another name, so that it need not wait for its own old lock.
RENAME = "UPDATE evertune.leases SET worker = %(worker)s, renewed = clock_timestamp() WHERE worker = ANY(%(before)s)"

RENEW = """
UPDATE evertune.leases
SET renewed = clock_timestamp(), expires = clock_timestamp() + make_interval(secs => %(lease_s)s)
WHERE worker = %(worker)s
"""

RUNNING = """
SELECT EXISTS (SELECT FROM evertune.leases l JOIN trials USING (trial_id) WHERE l.study_id = %s AND state = 'RUNNING')
"""

# Trials whose worker died become FAIL, and say why. Own leases are looked at first: one's own lock can be had again.
# Trials are locked before leases, as where a trial is told something, and a lease must still be the one judged.
GIVE_BACK = """
WITH judged AS MATERIALIZED (
    SELECT trial_id, worker, renewed,
           CASE WHEN worker = %(worker)s THEN false
                WHEN owner = %(owner)s THEN true
                WHEN pg_postmaster_start_time() > clock_timestamp() - make_interval(secs => %(grace_s)s) THEN false
                WHEN expires < clock_timestamp() THEN true
                WHEN renewed > clock_timestamp() - make_interval(secs => %(grace_s)s) THEN false
                ELSE pg_try_advisory_xact_lock(hashtextextended('evertune.worker/' || worker, 0)) END AS dead
    FROM evertune.leases WHERE study_id = %(study_id)s),
held AS MATERIALIZED (
    SELECT t.trial_id, judged.worker, judged.renewed
    FROM trials t JOIN judged USING (trial_id) WHERE judged.dead
    ORDER BY t.trial_id FOR NO KEY UPDATE OF t),
over AS (
    DELETE FROM evertune.leases l USING held
    WHERE l.trial_id = held.trial_id AND l.worker = held.worker AND l.renewed = held.renewed
    RETURNING l.trial_id),
failed AS (
    UPDATE trials t SET state = 'FAIL', datetime_complete = clock_timestamp() AT TIME ZONE 'UTC'
    FROM over WHERE t.trial_id = over.trial_id AND t.state = 'RUNNING'
    RETURNING t.trial_id),
said AS (
    INSERT INTO trial_user_attributes (trial_id, key, value_json)
    SELECT trial_id, key, value FROM failed, (VALUES
        ('cause', '"worker lost"'), ('error', '"worker lost: its process or machine died, or stood still"')
    ) AS why (key, value)
    ON CONFLICT (trial_id, key) DO UPDATE SET value_json = EXCLUDED.value_json)
SELECT trial_id FROM failed
"""


class Leases:
    """A worker's claims on the trials of a study. Entered, `storage` runs trials of that study only, in its budget.

    budget: trials that finish, over all workers and runs of the study. owner: who the worker is; what an earlier one
    of the same name has left running is given back at once. lease_s: how long a claim holds that isn't renewed (None:
    30 s).

    Raises:
        ServiceError: the database can't be reached (from every method).
    """

    def __init__(
        self, storage: PostgresStorage, study_id: int, budget: int, owner: str = "", lease_s: float | None = None
    ) -> None:
        self.study_id = study_id
        self.budget = budget
        self._storage = storage
        self._owner = owner or uuid4().hex
        self.lease_s = lease_s or LEASE_S
        self._worker = ""
        self._names: list[str] = []
        self._over = Event()
        self._renewals = Thread(target=self._renew, name="evertune-leases", daemon=True)

    @property
    def values(self) -> dict[str, Any]:
        """What the statements want to know that claim a trial."""
        return {"budget": self.budget, "worker": self._worker, "owner": self._owner, "lease_s": self.lease_s}

    def is_full(self) -> bool:
        """Whether as many trials have finished as the budget allows; if not, there may be room again."""
        return self._storage.count_finished(self.study_id) >= self.budget

    def give_back(self) -> list[int]:
        """Ids of the trials whose worker died, after they were made FAIL."""
        more = {"study_id": self.study_id, "grace_s": self.lease_s * GRACE}
        found = self._storage.run(lambda connection, _: connection.execute(GIVE_BACK, self.values | more).fetchall())
        if found:
            logger.warning("dead workers found", extra={"study": self.study_id, "trials": [row[0] for row in found]})
        return [row[0] for row in found]

    def any_running(self) -> bool:
        """Whether a trial of the study runs under a lease, of whatever worker."""
        found = self._storage.run(lambda connection, _: connection.execute(RUNNING, [self.study_id]).fetchone())
        return bool(found and found[0])

    def hold(self, connection: psycopg.Connection) -> None:
        """Live on a connection: as long as it is open, this worker can't be dead."""
        self._worker = uuid4().hex
        connection.execute(LIVE, {"worker": self._worker})
        connection.execute(RENAME, {"worker": self._worker, "before": self._names})
        self._names.append(self._worker)

    def __enter__(self) -> Leases:
        self._storage.lease(self)
        self._renewals.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._renewals.join()
        self._storage.lease(None)

    def _renew(self) -> None:
        while not self._over.wait(self.lease_s / RENEWALS):
            try:
                self._storage.run(lambda connection, _: connection.execute(RENEW, self.values))
            except Exception:  # the next trial's end says it aloud
                logger.warning("leases not renewed", exc_info=True)
