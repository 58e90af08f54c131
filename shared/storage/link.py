"""One connection to PostgreSQL that the threads of a process share, opened again where it was lost."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from threading import RLock
from typing import TypeVar
from weakref import WeakSet

import psycopg
from psycopg import errors
from psycopg.pq import PipelineStatus, TransactionStatus

from shared.errors import ServiceError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# How long a server may be away, and how often it is looked for: the first time after so long, then after twice as long.
AWAY_S = 60.0
PAUSE_S = (0.05, 2.0)

_links: WeakSet[Link] = WeakSet()


class Link:
    """Runs work on one connection, one thread at a time, and again on a new connection where the first was lost.

    connect: opens a connection. A child of `fork` gets one of its own; on_fork is called in it.
    """

    def __init__(self, connect: Callable[[], psycopg.Connection], on_fork: Callable[[], None]) -> None:
        self.lock = RLock()
        self._connect = connect
        self._on_fork = on_fork
        self._connection: psycopg.Connection | None = None
        self._lost_one = False
        self._away_since: float | None = None
        self._parents: psycopg.Connection | None = None
        _links.add(self)

    def run(self, work: Callable[[psycopg.Connection, bool], Result]) -> Result:
        """`work(connection, again)`. `again`: it was begun on a connection that was lost, and may have been done there.

        Raises:
            ServiceError: the database was away for too long.
        """
        with self.lock:
            again, pause, before = False, PAUSE_S[0], sys.exception()
            while True:
                try:
                    result = work(self._connected(), again)
                except (errors.DeadlockDetected, errors.SerializationFailure):
                    continue  # it was rolled back
                except (psycopg.OperationalError, ServiceError) as err:
                    interruption = _interruption(err, before)
                    if interruption or not self._is_lost():
                        self._drop_unless_idle()
                        raise (interruption or err) from None
                    self._check_away(err)
                except BaseException:  # a signal's, in the middle of a statement
                    self._drop_unless_idle()
                    raise
                else:
                    self._away_since = None
                    return result
                again = True
                time.sleep(pause)
                pause = min(2 * pause, PAUSE_S[1])

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None

    def open(self) -> None:
        """Connect now, so that what is wrong with the address is told now."""
        self.run(lambda *_: None)

    def close(self) -> None:
        """Let go of the connection; the next work opens another."""
        with self.lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _connected(self) -> psycopg.Connection:
        if self._connection is None:
            try:
                self._connection = self._connect()
            except psycopg.OperationalError:  # it answered, and went away; a wrong address is a ServiceError
                self._lost_one = True
                raise
        return self._connection

    def _check_away(self, err: Exception) -> None:
        """Whoever waits for a server, waits from when it was first missed."""
        now = time.monotonic()
        self._away_since = self._away_since or now
        if now - self._away_since > AWAY_S:
            raise ServiceError(
                f"the database must be reachable, but has been away for {AWAY_S:g} s ({_cause(err)}); what has "
                "finished is kept: run the flow again when `evertune services status` shows it running"
            ) from None
        logger.warning("connection lost", extra={"cause": _cause(err)})

    def _drop_unless_idle(self) -> None:
        """A connection that is in the middle of something answers the next question with that."""
        connection = self._connection
        if connection is None or connection.closed:
            return
        idle = connection.info.transaction_status == TransactionStatus.IDLE
        if not idle or connection.info.pipeline_status != PipelineStatus.OFF:
            connection.close()
            self._connection, self._lost_one = None, True

    def _is_lost(self) -> bool:
        """Whether there was a connection, and there is none any more."""
        if self._connection is None:
            return self._lost_one
        if not (self._connection.closed or self._connection.broken):
            return False
        self._connection.close()
        self._connection, self._lost_one = None, True
        return True

    def _forked(self) -> None:
        """In a child of `fork`: the connection is the parent's, and no other thread came along."""
        self.lock = RLock()
        self._parents = self._connection  # kept, so that it isn't closed
        self._connection, self._lost_one = None, False
        self._on_fork()


def _interruption(err: Exception, before: BaseException | None) -> BaseException | None:
    """What a signal raised in the middle of a statement, where psycopg only complains about that middle.

    before: what the caller is handling, and is the context of all that is raised meanwhile.
    """
    found = err.__context__ if isinstance(err, psycopg.Error) else None
    return None if isinstance(found, psycopg.Error) or found is before else found


def _cause(err: Exception) -> str:
    return " ".join(str(err).split())


def _after_fork() -> None:
    for link in list(_links):
        link._forked()


os.register_at_fork(after_in_child=_after_fork)
