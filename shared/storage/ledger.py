"""The ledger: which dataset versions there are, which study is due, claimed or done by which run, what was promoted.

Every transition is one SQL statement and may be repeated: a run that is started twice, or an event that is delivered
twice, changes nothing the second time. A study that is done stays done until it is reopened.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg.rows import class_row, tuple_row
from psycopg.types.json import Jsonb

from shared.domain import DatasetRef, PromotionDecision, Variant, source_hash
from shared.errors import DataError
from shared.storage.database import connect
from shared.storage.refusal import explained

logger = logging.getLogger(__name__)

State = Literal["due", "claimed", "done", "failed"]


@dataclass(frozen=True)
class LedgerEntry:
    """A study as the ledger knows it. `run` claimed it last, or finished it; `note` says why it failed."""

    study: str
    use_case: str
    variant: Variant
    fingerprint: str
    state: State
    run: str | None
    outcome: Mapping[str, Any]
    note: str
    updated_at: datetime


@dataclass(frozen=True)
class Promotion:
    """A decision of the gate. `previous` is the version that was champion before."""

    use_case: str
    version: int
    previous: int | None
    promoted: bool
    reason: str
    figures: Mapping[str, Any]
    actor: str
    decided_at: datetime


# A dataset version that comes back, since its rows do, is the newest again.
RECORD_DATASET = """
INSERT INTO evertune.dataset_versions (use_case, fingerprint, ref, run)
VALUES (%(use_case)s, %(fingerprint)s, %(ref)s, %(run)s)
ON CONFLICT (use_case, fingerprint) DO UPDATE
SET ref = excluded.ref, run = excluded.run, recorded_at = clock_timestamp()
"""

DATASET_RUN = """
SELECT run FROM evertune.dataset_versions WHERE use_case = %(use_case)s AND fingerprint = %(fingerprint)s
"""

DATASETS = """
SELECT ref FROM evertune.dataset_versions
WHERE use_case = %(use_case)s AND starts_with(fingerprint, %(prefix)s)
ORDER BY recorded_at DESC
"""

# The newest version for which no variant lacks a study that is done.
NEWEST_COMPLETE = """
SELECT ref FROM evertune.dataset_versions d
WHERE use_case = %(use_case)s AND NOT EXISTS (
    SELECT FROM unnest(%(variants)s::text[]) AS wanted(variant)
    WHERE NOT EXISTS (
        SELECT FROM evertune.studies s
        WHERE s.state = 'done'
          AND (s.use_case, s.fingerprint, s.variant) = (d.use_case, d.fingerprint, wanted.variant)))
ORDER BY recorded_at DESC LIMIT 1
"""

SAVE_SOURCE = (
    "INSERT INTO evertune.objective_sources (hash, source) VALUES (%(hash)s, %(source)s) ON CONFLICT DO NOTHING"
)

SOURCE = "SELECT source FROM evertune.objective_sources WHERE hash = %(hash)s"

ENTRY_COLUMNS = "name AS study, use_case, variant, fingerprint, state, run, outcome, note, updated_at"

OPEN_STUDY = """
INSERT INTO evertune.studies (name, use_case, variant, fingerprint)
VALUES (%(name)s, %(use_case)s, %(variant)s, %(fingerprint)s) ON CONFLICT DO NOTHING
"""

# The last run that claims a study owns it: the one before has died, or its event came twice.
CLAIM = """
UPDATE evertune.studies SET state = 'claimed', run = %(run)s, note = '', updated_at = clock_timestamp()
WHERE name = %(name)s AND state <> 'done'
"""

# Only the run that finished a study may say more of its outcome.
FINISH = """
UPDATE evertune.studies
SET state = 'done', run = %(run)s, outcome = %(outcome)s, note = '', updated_at = clock_timestamp()
WHERE name = %(name)s AND (state <> 'done' OR run = %(run)s)
"""

# The failure of a run that has lost its claim is no news.
FAIL = """
UPDATE evertune.studies SET state = 'failed', note = %(note)s, updated_at = clock_timestamp()
WHERE name = %(name)s AND state <> 'done' AND coalesce(run, %(run)s) = %(run)s
"""

# The outcome stays readable until the next one replaces it.
REOPEN = "UPDATE evertune.studies SET state = 'due', updated_at = clock_timestamp() WHERE name = %(name)s"

CONFIRM = "UPDATE evertune.studies SET updated_at = clock_timestamp() WHERE name = %(name)s AND state = 'done'"

FORGET = "DELETE FROM evertune.studies WHERE name = %(name)s"

ENTRY = f"SELECT {ENTRY_COLUMNS} FROM evertune.studies WHERE name = %(name)s"

ENTRIES = f"""
SELECT {ENTRY_COLUMNS} FROM evertune.studies
WHERE use_case = %(use_case)s AND fingerprint = coalesce(%(fingerprint)s, fingerprint)
ORDER BY opened_at
"""

LOG_PROMOTION = """
INSERT INTO evertune.promotion_log (use_case, version, previous, promoted, reason, figures, actor)
VALUES (%(use_case)s, %(version)s, %(previous)s, %(promoted)s, %(reason)s, %(figures)s, %(actor)s)
"""

PROMOTIONS = """
SELECT use_case, version, previous, promoted, reason, figures, actor, decided_at FROM evertune.promotion_log
WHERE use_case = %(use_case)s ORDER BY id
"""


class Ledger:
    """Reads and writes the ledger. Holds nothing open, so it may be used from any thread.

    Every method raises ServiceError where the database can't be reached, or refuses.
    """

    def record_dataset(self, ref: DatasetRef, run: str) -> None:
        """Put a dataset version on record as the newest of its use case."""
        self._execute(
            RECORD_DATASET,
            use_case=ref.use_case,
            fingerprint=ref.fingerprint,
            ref=Jsonb(ref.model_dump(mode="json")),
            run=run,
        )
        logger.info("dataset recorded", extra={"use_case": ref.use_case, "fingerprint": ref.fingerprint, "run": run})

    def datasets(self, use_case: str) -> list[DatasetRef]:
        """All dataset versions of a use case, newest first."""
        return self._refs(DATASETS, use_case=use_case, prefix="")

    def dataset_run(self, ref: DatasetRef) -> str:
        """Pathspec of the run that recorded a dataset version."""
        rows = self._rows(DATASET_RUN, use_case=ref.use_case, fingerprint=ref.fingerprint)
        return str(rows[0][0]) if rows else ""

    def newest_dataset(self, use_case: str) -> DatasetRef | None:
        return next(iter(self.datasets(use_case)), None)

    def newest_complete(self, use_case: str, variants: Sequence[Variant]) -> DatasetRef | None:
        """The newest dataset version on which a study of each variant is done."""
        return next(iter(self._refs(NEWEST_COMPLETE, use_case=use_case, variants=list(variants))), None)

    def dataset(self, use_case: str, fingerprint_prefix: str) -> DatasetRef:
        """The one dataset version whose fingerprint begins so.

        Raises:
            DataError: none does, or several do.
        """
        found = self._refs(DATASETS, use_case=use_case, prefix=fingerprint_prefix)
        if len(found) == 1:
            return found[0]
        known = [ref.fingerprint[:12] for ref in found or self.datasets(use_case)]
        rule = (
            "must be the beginning of one fingerprint" if not found else "must be long enough to mean one fingerprint"
        )
        raise DataError(
            f"--dataset {rule} of {use_case!r}, but is {fingerprint_prefix!r}; on record, newest first: "
            f"{', '.join(known[:10]) or 'none'}. `latest` is the newest; DataPrepFlow makes another: "
            f"`python flows/data_prep/flow.py --config use_case configs/{use_case}.toml run`"
        )

    def save_source(self, source: str) -> str:
        """Keep an objective's source; returns the SHA-256 of its text, in hex."""
        digest = source_hash(source)
        self._execute(SAVE_SOURCE, hash=digest, source=source)
        return digest

    def source(self, digest: str) -> str:
        """The objective's source with this hash.

        Raises:
            DataError: no such source was kept in this database, or it was changed there.
        """
        rows = self._rows(SOURCE, hash=digest)
        if not rows:
            raise DataError(
                f"an objective's source must be on record to be loaded, but {digest[:12]} isn't; "
                "run the flow that tunes it against this database first"
            )
        source = str(rows[0][0])
        if source_hash(source) != digest:
            raise DataError(
                f"an objective's source must be the text that was kept, but {digest[:12]} has been changed in "
                "evertune.objective_sources; delete that row, and run the flow that tunes it with --force"
            )
        return source

    def open_study(self, name: str, use_case: str, variant: Variant, fingerprint: str) -> LedgerEntry:
        """Put a study on record as due, if it isn't there yet."""
        self._execute(OPEN_STUDY, name=name, use_case=use_case, variant=variant, fingerprint=fingerprint)
        return self._known(name)

    def claim(self, name: str, run: str) -> LedgerEntry:
        """Claim a study for a run, unless it is done: the entry's state says so.

        Raises:
            DataError: there is no such study.
        """
        return self._transition(CLAIM, name, run=run)

    def finish(self, name: str, outcome: Mapping[str, Any], run: str) -> LedgerEntry:
        """Record a study as done. If another run has done it before, its outcome stays.

        outcome: JSON-able; numbers that aren't finite come back as the strings `nan`, `inf`, `-inf`.

        Raises:
            DataError: there is no such study.
        """
        return self._transition(FINISH, name, outcome=Jsonb(_finite(outcome)), run=run)

    def fail(self, name: str, note: str, run: str) -> LedgerEntry:
        """Record that a run failed at a study, unless it is done or another run has claimed it since.

        Raises:
            DataError: there is no such study.
        """
        return self._transition(FAIL, name, note=note, run=run)

    def reopen(self, name: str) -> LedgerEntry:
        """Make a study due again, with a larger budget.

        Raises:
            DataError: there is no such study.
        """
        return self._transition(REOPEN, name)

    def confirm(self, name: str) -> None:
        """A study that is done is what the config asks for now: it counts as the newest of its variant."""
        self._execute(CONFIRM, name=name)

    def forget(self, name: str) -> None:
        """Start anew: the ledger knows nothing of the study."""
        self._execute(FORGET, name=name)

    def entry(self, name: str) -> LedgerEntry | None:
        return next(iter(self._entries(ENTRY, name=name)), None)

    def entries(self, use_case: str, fingerprint: str | None = None) -> list[LedgerEntry]:
        """Studies of a use case, of one dataset version or all, in the order they were opened."""
        return self._entries(ENTRIES, use_case=use_case, fingerprint=fingerprint)

    def log_promotion(
        self, use_case: str, version: int, previous: int | None, decision: PromotionDecision, actor: str
    ) -> None:
        """Append a decision of the gate. What is written can be neither changed nor deleted."""
        self._execute(
            LOG_PROMOTION,
            use_case=use_case,
            version=version,
            previous=previous,
            promoted=decision.promote,
            reason=decision.reason,
            figures=Jsonb(_finite(decision.figures)),
            actor=actor,
        )

    def promotions(self, use_case: str) -> list[Promotion]:
        """Decisions of the gate, oldest first."""
        return self._rows(PROMOTIONS, class_row(Promotion), use_case=use_case)

    def _transition(self, statement: str, name: str, **values: Any) -> LedgerEntry:
        self._execute(statement, name=name, **values)
        entry = self._known(name)
        logger.info("study recorded", extra={"study": name, "state": entry.state, "run": entry.run})
        return entry

    def _known(self, name: str) -> LedgerEntry:
        entry = self.entry(name)
        if entry is None:
            raise DataError(
                f"a study must be on record to be claimed, finished or reopened, but {name!r} isn't; "
                "`evertune status` lists those that are"
            )
        return entry

    def _execute(self, statement: str, **values: Any) -> None:
        with connect() as connection, explained(connection):
            connection.execute(statement, values)

    def _rows(self, statement: str, row_factory: Any = tuple_row, **values: Any) -> list[Any]:
        with connect() as connection, explained(connection), connection.cursor(row_factory=row_factory) as cursor:
            return cursor.execute(statement, values).fetchall()

    def _refs(self, statement: str, **values: Any) -> list[DatasetRef]:
        return [DatasetRef.model_validate(ref) for (ref,) in self._rows(statement, **values)]

    def _entries(self, statement: str, **values: Any) -> list[LedgerEntry]:
        return self._rows(statement, class_row(LedgerEntry), **values)


def _finite(value: Any) -> Any:
    """The value with numbers that JSON doesn't have as strings."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(float(value)) if isinstance(value, float) and not math.isfinite(value) else value
