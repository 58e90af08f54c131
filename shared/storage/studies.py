"""Studies as a whole, without Optuna."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from shared.storage import database, statements
from shared.storage.optuna_tables import are_there
from shared.storage.refusal import explained

if TYPE_CHECKING:
    from shared.storage.ledger import LedgerEntry

STUDY_ID = "SELECT study_id FROM studies WHERE study_name = %s"

# A run that begins the study meanwhile waits for the end of the transaction, and then begins it anew.
RETIRE = """
DELETE FROM evertune.studies
WHERE name = %(name)s AND state NOT IN ('due', 'claimed') AND asked_at = %(asked_at)s
RETURNING name
"""


def delete_study(name: str) -> None:
    """Delete a study, its trials and their leases; nothing happens where there is no such study.

    Raises:
        ServiceError: the database can't be reached.
    """
    with database.connect() as connection, explained(connection), connection.transaction():
        _delete(connection, name)


def retire(entry: LedgerEntry) -> bool:
    """Delete a study and take it off the record, unless a run has asked for it since `entry` was read; whether it was.

    Raises:
        ServiceError: the database can't be reached.
    """
    with database.connect() as connection, explained(connection), connection.transaction():
        retired = connection.execute(RETIRE, {"name": entry.study, "asked_at": entry.asked_at}).rowcount > 0
        if retired:
            _delete(connection, entry.study)
    return retired


def _delete(connection: psycopg.Connection, name: str) -> None:
    found = connection.execute(STUDY_ID, [name]).fetchone() if are_there(connection) else None
    if found:
        for statement in statements.DELETE_STUDY:
            connection.execute(statement, {"study_id": found[0]})
