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

SOURCES = f"""
{NAMED}
SELECT hash, saved_at, array_remove(array_agg(study), NULL) AS studies
FROM evertune.objective_sources LEFT JOIN named USING (hash) GROUP BY hash ORDER BY saved_at
"""

FORGET = f"""
{NAMED}
DELETE FROM evertune.objective_sources o
WHERE hash = %(hash)s AND saved_at = %(saved_at)s AND NOT EXISTS (SELECT FROM named WHERE named.hash = o.hash)
RETURNING hash
"""


@dataclass(frozen=True)
class Source:
    """The source of an objective: its hash, when a run last saved it, and the studies that name it."""

    hash: str
    saved_at: datetime
    studies: Sequence[str] = ()


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
