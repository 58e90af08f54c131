"""The ledger: which dataset versions there are, which study is due, claimed or done by which run, what was promoted.

Every transition is one SQL statement and may be repeated: a run that is started twice, or an event that is delivered
twice, changes nothing the second time. A study that is done stays done until a larger budget is asked for. Which of
the runs at a study makes its result is settled in `claims`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
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
Kind = Literal["gate", "hand", "rollback", "found"]
Outcome = Literal["moved", "overtaken"]


@dataclass(frozen=True)
class LedgerEntry:
    """A study as the ledger knows it. `run` was at it last; `note` says why it failed, or is due again.

    asked_at: when a run last asked for it. finished_at: when its last outcome was found. recorded: the outcome is that
    of the budget asked for, also where the state isn't done yet.
    """

    study: str
    use_case: str
    variant: Variant
    fingerprint: str
    state: State
    run: str | None
    outcome: Mapping[str, Any]
    note: str
    asked_at: datetime
    finished_at: datetime | None = None
    recorded: bool = False


@dataclass(frozen=True)
class Promotion:
    """A decision of the gate, or a promotion that was made otherwise.

    previous: the version that was champion before. kind: by the gate, by hand, a rollback, or found in the registry.
    outcome: of one that was to be promoted: the alias was moved, or somebody else had moved it meanwhile; None: the
    process was interrupted, and whoever moves the aliases next carries it out.
    """

    use_case: str
    version: int
    previous: int | None
    promoted: bool
    reason: str
    figures: Mapping[str, Any]
    actor: str
    decided_at: datetime
    kind: Kind = "gate"
    outcome: Outcome | None = None
    id: int = 0

    @property
    def took_place(self) -> bool:
        """Whether the version became champion."""
        return self.promoted and self.outcome == "moved"


# A dataset version that comes back, since its rows do, is the newest again.
RECORD_DATASET = """
INSERT INTO evertune.dataset_versions (use_case, fingerprint, ref, run)
VALUES (%(use_case)s, %(fingerprint)s, %(ref)s, %(run)s)
ON CONFLICT (use_case, fingerprint) DO UPDATE
SET ref = excluded.ref, run = excluded.run, recorded_at = clock_timestamp(), seen_at = clock_timestamp()
"""

SEE_DATASET = """
UPDATE evertune.dataset_versions SET seen_at = clock_timestamp()
WHERE use_case = %(use_case)s AND fingerprint = %(fingerprint)s
"""

SEEN_AT = """
SELECT seen_at FROM evertune.dataset_versions WHERE use_case = %(use_case)s AND fingerprint = %(fingerprint)s
"""

# A reference that an earlier version has recorded has fewer fields.
FORGET_DATASET = """
DELETE FROM evertune.dataset_versions d
WHERE use_case = %(use_case)s AND fingerprint = %(fingerprint)s AND ref <@ %(ref)s AND NOT EXISTS (
    SELECT FROM evertune.studies s
    WHERE s.use_case = d.use_case AND s.fingerprint = d.fingerprint AND s.state IN ('due', 'claimed')
)
RETURNING fingerprint
"""

DATASET_RUN = """
SELECT run FROM evertune.dataset_versions WHERE use_case = %(use_case)s AND fingerprint = %(fingerprint)s
"""

DATASETS = """
SELECT ref FROM evertune.dataset_versions
WHERE use_case = %(use_case)s AND starts_with(fingerprint, %(prefix)s)
ORDER BY recorded_at DESC
"""

# One that is saved again is young again: no study names it yet, but a run is about to begin one.
SAVE_SOURCE = """
INSERT INTO evertune.objective_sources (hash, source) VALUES (%(hash)s, %(source)s)
ON CONFLICT (hash) DO UPDATE SET saved_at = clock_timestamp()
"""

SOURCE = "SELECT source FROM evertune.objective_sources WHERE hash = %(hash)s"

ENTRY_COLUMNS = (
    "name AS study, use_case, variant, fingerprint, state, run, outcome, note, asked_at, finished_at, recorded"
)

# Whether the outcome is of a budget that is large enough.
SATISFIED = "coalesce((studies.outcome ->> 'budget')::int >= %(budget)s, true)"

# A run that begins shares the study with those that are at it already, and leaves one alone that is done.
BEGIN = f"""
INSERT INTO evertune.studies (name, use_case, variant, fingerprint, state, run)
VALUES (%(name)s, %(use_case)s, %(variant)s, %(fingerprint)s, 'claimed', %(run)s)
ON CONFLICT (name) DO UPDATE
SET state = 'claimed', run = %(run)s, note = '', asked_at = clock_timestamp(),
    recorded = studies.recorded AND {SATISFIED}
WHERE NOT (studies.state = 'done' AND {SATISFIED})
"""

# The failure of a run is no news where another one is at the study, or has claimed its result.
FAIL = """
UPDATE evertune.studies SET state = 'failed', note = %(note)s
WHERE name = %(name)s AND state <> 'done' AND run = %(run)s
  AND (coalesce(holder, run) = run OR expires < clock_timestamp())
"""

CONFIRM = "UPDATE evertune.studies SET asked_at = clock_timestamp() WHERE name = %(name)s AND state = 'done'"

FORGET = "DELETE FROM evertune.studies WHERE name = %(name)s"

ENTRY = f"SELECT {ENTRY_COLUMNS} FROM evertune.studies WHERE name = %(name)s"

ENTRIES = f"""
SELECT {ENTRY_COLUMNS} FROM evertune.studies
WHERE use_case = %(use_case)s AND fingerprint = coalesce(%(fingerprint)s, fingerprint)
ORDER BY opened_at
"""

# Of the studies that led to a version of a registered model, the one on the newest dataset version.
NEWEST_VERSION = """
SELECT (s.outcome ->> 'version')::int
FROM evertune.studies s JOIN evertune.dataset_versions d USING (use_case, fingerprint)
WHERE s.outcome ->> 'model' = %(model)s AND s.outcome ->> 'version' IS NOT NULL
ORDER BY d.recorded_at DESC, s.finished_at DESC LIMIT 1
"""

LOG_PROMOTION = """
INSERT INTO evertune.promotion_log (use_case, version, previous, promoted, reason, figures, actor, kind)
VALUES (%(use_case)s, %(version)s, %(previous)s, %(promoted)s, %(reason)s, %(figures)s, %(actor)s, %(kind)s)
RETURNING id
"""

# Whoever has carried it out meanwhile has written the same.
SETTLE_PROMOTION = """
INSERT INTO evertune.promotion_outcomes (promotion, outcome) VALUES (%(id)s, %(outcome)s)
ON CONFLICT (promotion) DO NOTHING
"""

PROMOTIONS = """
SELECT id, use_case, version, previous, promoted, reason, figures, actor, decided_at, kind, outcome
FROM evertune.promotion_log l LEFT JOIN evertune.promotion_outcomes o ON o.promotion = l.id
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

    def forget_dataset(self, ref: DatasetRef) -> bool:
        """Take a dataset version off the record, unless it was recorded anew, or a study is at it; whether it was."""
        values = {"use_case": ref.use_case, "fingerprint": ref.fingerprint, "ref": Jsonb(ref.model_dump(mode="json"))}
        return bool(self._rows(FORGET_DATASET, **values))

    def see_dataset(self, ref: DatasetRef) -> None:
        """The source still holds the rows of a dataset version."""
        self._execute(SEE_DATASET, use_case=ref.use_case, fingerprint=ref.fingerprint)

    def seen_at(self, ref: DatasetRef) -> datetime | None:
        """When the source was last found to hold the rows of a dataset version."""
        rows = self._rows(SEEN_AT, use_case=ref.use_case, fingerprint=ref.fingerprint)
        return rows[0][0] if rows else None

    def datasets(self, use_case: str) -> list[DatasetRef]:
        """All dataset versions of a use case, newest first."""
        return self._refs(DATASETS, use_case=use_case, prefix="")

    def dataset_run(self, ref: DatasetRef) -> str:
        """Pathspec of the run that recorded a dataset version."""
        rows = self._rows(DATASET_RUN, use_case=ref.use_case, fingerprint=ref.fingerprint)
        return str(rows[0][0]) if rows else ""

    def newest_dataset(self, use_case: str) -> DatasetRef | None:
        return next(iter(self.datasets(use_case)), None)

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

    def begin(
        self, name: str, use_case: str, variant: Variant, fingerprint: str, *, budget: int, run: str
    ) -> LedgerEntry:
        """A run is at a study, alone or beside others, unless that is done with this budget: the state says so."""
        about = {"use_case": use_case, "variant": variant, "fingerprint": fingerprint}
        return self._transition(BEGIN, name, **about, budget=budget, run=run)

    def fail(self, name: str, note: str, run: str) -> LedgerEntry:
        """Record that a run failed at a study, unless it is done or another run is at it.

        Raises:
            DataError: there is no such study.
        """
        return self._transition(FAIL, name, note=note, run=run)

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

    def newest_version(self, model: str) -> int | None:
        """The version of a registered model that a study on the newest dataset version led to."""
        rows = self._rows(NEWEST_VERSION, model=model)
        return rows[0][0] if rows else None

    def log_promotion(
        self,
        use_case: str,
        version: int,
        previous: int | None,
        decision: PromotionDecision,
        actor: str,
        kind: Kind = "gate",
    ) -> int:
        """Append a decision; its id. What is written can be neither changed nor deleted."""
        rows = self._rows(
            LOG_PROMOTION,
            use_case=use_case,
            version=version,
            previous=previous,
            promoted=decision.promote,
            reason=decision.reason,
            figures=Jsonb(finite(decision.figures)),
            actor=actor,
            kind=kind,
        )
        return int(rows[0][0])

    def settle_promotion(self, promotion: int, outcome: Outcome) -> None:
        """Say what became of a promotion, by its id."""
        self._execute(SETTLE_PROMOTION, id=promotion, outcome=outcome)

    def promotions(self, use_case: str) -> list[Promotion]:
        """Decisions of the gate and promotions of all kinds, oldest first."""
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
                f"a study must be on record to be failed, but {name!r} isn't; `evertune status` lists those that are"
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


def finite(value: Any) -> Any:
    """The value with numbers that JSON doesn't have as strings."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return str(float(value)) if isinstance(value, float) and not math.isfinite(value) else value
