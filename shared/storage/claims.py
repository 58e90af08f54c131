"""The claim on a study's result: of all runs that are at a study, one retrains, registers and promotes.

A claim is dated. Its holder renews it from a thread; one that has stopped to loses it to the next run that comes. And
it has a token, a number that grows with each claim: a result that comes with an old one is refused, however long its
run stood still. What was recorded is the result; what follows from it, aliases and the promotion, may be done twice, so
that of a holder who dies in between the next run takes over the rest, and nothing is trained again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from threading import Event, Thread
from types import TracebackType
from typing import Any, TypeVar

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from shared.errors import ResultTaken
from shared.storage.database import connect
from shared.storage.ledger import SATISFIED, finite
from shared.storage.refusal import explained

logger = logging.getLogger(__name__)
T = TypeVar("T")
Outcome = Mapping[str, Any]

LEASE_S = 30.0
RENEWALS = 10  # in the time of a lease
LOOKS = 3  # at another run's claim, from one renewal to the next

# A retried step takes up its own run's claim again, and fences off the attempt before.
TAKE = f"""
UPDATE evertune.studies
SET state = 'claimed', run = %(run)s, note = '', holder = %(run)s, token = nextval('evertune.claim_tokens'),
    expires = clock_timestamp() + make_interval(secs => %(lease_s)s), recorded = recorded AND {SATISFIED}
WHERE name = %(study)s AND NOT (state = 'done' AND {SATISFIED})
  AND (coalesce(holder, %(run)s) = %(run)s OR expires < clock_timestamp())
RETURNING token, CASE WHEN recorded THEN outcome END
"""

LOOK = "SELECT state, run, holder, token, expires FROM evertune.studies WHERE name = %(study)s"

RENEW = """
UPDATE evertune.studies SET expires = clock_timestamp() + make_interval(secs => %(lease_s)s)
WHERE name = %(study)s AND token = %(token)s AND holder IS NOT NULL
"""

RECORD = """
UPDATE evertune.studies SET outcome = %(outcome)s, recorded = true, finished_at = clock_timestamp()
WHERE name = %(study)s AND token = %(token)s AND holder IS NOT NULL AND NOT recorded
RETURNING name
"""

CLOSE = """
UPDATE evertune.studies SET state = %(state)s, note = %(note)s, holder = NULL, expires = NULL
WHERE name = %(study)s AND token = %(token)s AND holder IS NOT NULL
RETURNING name
"""


@dataclass(frozen=True)
class Seen:
    """Another run's claim, as it was at one moment."""

    state: str
    run: str | None
    holder: str | None
    token: int
    expires: datetime | None

    def renewed_since(self, before: Seen) -> bool:
        """Whether its holder, or a later one, was alive in between."""
        return self.holder is not None and (self.token, self.expires) != (before.token, before.expires)


def conclude(
    study: str,
    budget: int,
    run: str,
    *,
    make: Callable[[], Outcome],
    publish: Callable[[Outcome], T],
    refuse: Callable[[Outcome, str], None] = lambda *_: None,
    wait: Callable[[float], None] = time.sleep,
) -> T:
    """Make a study's result, unless it was made before, and let the registry follow it; returns what `publish` does.

    budget: trials that the result is to be of. make: its outcome, which is recorded if the claim still holds.
    publish: what follows from the outcome. Another run may have begun it, or even be at it: to be done any number of
    times. refuse: told of the outcome that came too late, and why.

    Raises:
        ResultTaken: another run has made, or makes, the result, or the study is gone.
        ServiceError: the database can't be reached.
    """
    with take(study, budget, run, wait=wait) as claim:
        if claim.outcome is None:
            outcome = make()
            try:
                claim.record(outcome)
            except ResultTaken as taken:
                refuse(outcome, str(taken))
                raise
        assert claim.outcome is not None
        published = publish(claim.outcome)
        claim.close("done")
    return published


def take(
    study: str, budget: int, run: str, *, lease_s: float | None = None, wait: Callable[[float], None] = time.sleep
) -> Claim:
    """Claim the result of a study, of a dead holder too. Whether another one lives, its next renewal tells.

    lease_s: how long a claim holds that isn't renewed (None: 30 s); a dead holder is waited for as long.

    Raises:
        ResultTaken: the study is done, or a living run holds the claim.
        ServiceError: the database can't be reached.
    """
    lease_s = lease_s or LEASE_S
    values = {"study": study, "budget": budget, "run": run, "lease_s": lease_s}
    first: Seen | None = None
    while True:
        with connect() as connection, explained(connection):
            if row := connection.execute(TAKE, values).fetchone():
                logger.info("result claimed", extra={"study": study, "run": run, "token": row[0]})
                return Claim(study, run, row[0], row[1], lease_s)
        seen = look(study)
        if seen.state == "done":
            raise ResultTaken(f"another run was faster: {study} is done ({seen.run})", seen.run)
        if first and seen.renewed_since(first):
            raise ResultTaken(f"another run is faster: {seen.holder} makes the result of {study}", seen.holder)
        first = first or seen
        wait(lease_s / RENEWALS / LOOKS)


def look(study: str) -> Seen:
    """Who has claimed the result of a study.

    Raises:
        ResultTaken: the study is gone.
        ServiceError: the database can't be reached.
    """
    with connect() as connection, explained(connection), connection.cursor(row_factory=class_row(Seen)) as cursor:
        seen = cursor.execute(LOOK, {"study": study}).fetchone()
    if seen is None:
        raise ResultTaken(f"{study} isn't on record any more: a run with --force has begun it anew", None)
    return seen


class Claim:
    """A run's claim on the result of a study; entered, it is renewed.

    outcome: the result, once it is recorded; a run before may have done so and died. An error that leaves the `with`
    makes the study failed, and an interrupt makes it due: the next run need not wait for the lease.
    """

    def __init__(self, study: str, run: str, token: int, outcome: Outcome | None, lease_s: float) -> None:
        self.study = study
        self.run = run
        self.outcome = outcome
        self._lease_s = lease_s
        self._values = {"study": study, "token": token, "lease_s": lease_s}
        self._over = Event()
        self._renewals = Thread(target=self._renew, name="evertune-claim", daemon=True)

    def record(self, outcome: Outcome) -> None:
        """Record the result. Whether the claim still holds is checked in the same statement.

        outcome: JSON-able; numbers that aren't finite come back as the strings `nan`, `inf`, `-inf`.

        Raises:
            ResultTaken: another run has taken the claim; nothing is recorded.
        """
        outcome = finite(outcome)
        if not self._execute(RECORD, outcome=Jsonb(outcome)):
            by = look(self.study).run
            raise ResultTaken(f"this run stood still for too long: {by} has taken over the result of {self.study}", by)
        self.outcome = outcome
        logger.info("result recorded", extra={"study": self.study, "run": self.run})

    def close(self, state: str, note: str = "") -> None:
        """Give the claim back, and say in which state the study is left, unless another run has taken it over."""
        if self._execute(CLOSE, state=state, note=note):
            logger.info("study closed", extra={"study": self.study, "run": self.run, "state": state})

    def __enter__(self) -> Claim:
        self._renewals.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._renewals.join()
        with suppress(Exception):  # what is on its way says more
            if isinstance(err, KeyboardInterrupt | SystemExit):
                self.close("due", f"{self.run} was interrupted")
            elif isinstance(err, Exception) and not isinstance(err, ResultTaken):
                self.close("failed", str(err))

    def _renew(self) -> None:
        while not self._over.wait(self._lease_s / RENEWALS):
            try:
                self._execute(RENEW)
            except Exception:  # if it lasts, recording the result says it aloud
                logger.warning("claim not renewed", exc_info=True)

    def _execute(self, statement: str, **values: Any) -> bool:
        """Whether the claim was still there to do so."""
        with connect() as connection, explained(connection):
            return connection.execute(statement, {**self._values, **values}).rowcount > 0
