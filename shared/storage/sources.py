"""Objectives' sources that nobody needs. `Ledger` keeps and loads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from shared.storage.database import connect
from shared.storage.optuna_tables import are_there
from shared.storage.refusal import explained

# A study names its source in its outcome, and before it has one, in what it is about, as Optuna keeps that.
NAMED = """
WITH named (hash, study) AS (
    SELECT outcome ->> 'objective_hash', name FROM evertune.studies
    UNION
    SELECT a.value_json::jsonb ->> 'objective_hash', s.study_name
    FROM studies s JOIN study_user_attributes a USING (study_id) WHERE a.key = 'evertune'
)
"""

# A version's record names the source that it was trained by, or those of its members.
MADE = """
made (hash, uri) AS (
    SELECT lineage #>> '{objective,hash}', 'models:/' || model || '/' || version FROM evertune.model_records
    UNION
    SELECT facts #>> '{objective,hash}', 'models:/' || model || '/' || version
    FROM evertune.model_records, jsonb_each(lineage -> 'upstream') AS upstream (member, facts)
)
"""

SOURCES = f"""
{NAMED}, {MADE}
SELECT hash, saved_at,
       ARRAY(SELECT study FROM named WHERE named.hash = source.hash) AS studies,
       ARRAY(SELECT uri FROM made WHERE made.hash = source.hash) AS versions
FROM evertune.objective_sources AS source ORDER BY saved_at
"""

FORGET = f"""
{NAMED}
DELETE FROM evertune.objective_sources o
WHERE hash = %(hash)s AND saved_at = %(saved_at)s AND NOT EXISTS (SELECT FROM named WHERE named.hash = o.hash)
RETURNING hash
"""


@dataclass(frozen=True)
class Source:
    """The source of an objective: its hash, when a run last saved it, the studies that name it, and the model versions
    that were made by it (their URIs; of those that were deleted too).
    """

    hash: str
    saved_at: datetime
    studies: Sequence[str] = ()
    versions: Sequence[str] = ()


def sources() -> list[Source]:
    """Of all use cases, those first that were saved longest ago; none before Optuna has tables.

    Raises:
        ServiceError: the database can't be reached.
    """
    with connect() as connection, explained(connection), connection.cursor(row_factory=class_row(Source)) as cursor:
        return cursor.execute(SOURCES).fetchall() if are_there(connection) else []


def forget_source(source: Source) -> bool:
    """Delete a source, unless a study names it or a run has saved it again by now; whether it was deleted.

    Raises:
        ServiceError: the database can't be reached.
    """
    with connect() as connection, explained(connection):
        return connection.execute(FORGET, {"hash": source.hash, "saved_at": source.saved_at}).rowcount > 0
