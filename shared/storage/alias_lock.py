"""One process at a time moves the aliases of a registered model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg.errors import LockNotAvailable

from shared.errors import ServiceError
from shared.storage.database import connect

WAIT_S = 30.0

PATIENCE = "SELECT set_config('lock_timeout', %(ms)s, false)"

LOCK = "SELECT pg_advisory_lock(hashtextextended('evertune.promotion/' || %(name)s, 0))"


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Held by this process alone; it ends with the connection, however the process ends.

    Raises:
        ServiceError: another one holds it for too long, or the database can't be reached.
    """
    with connect() as connection:
        connection.execute(PATIENCE, {"ms": str(int(WAIT_S * 1000))})
        try:
            connection.execute(LOCK, {"name": name})
        except LockNotAvailable:
            raise ServiceError(_busy(name)) from None
        yield


def _busy(name: str) -> str:
    return (
        f"the aliases of {name} must be free to be moved within {WAIT_S:g} s, but another run or command moves "
        "them, or hangs: `SELECT pid, client_addr, query_start FROM pg_stat_activity JOIN pg_locks USING (pid) "
        "WHERE locktype = 'advisory'` on Evertune's database tells which; wait for it or end it, and do this again"
    )
