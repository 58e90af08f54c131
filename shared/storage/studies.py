"""Studies as a whole, without Optuna."""

from __future__ import annotations

from psycopg import errors

from shared.storage import database, statements
from shared.storage.refusal import explained

STUDY_ID = "SELECT study_id FROM studies WHERE study_name = %s"


def delete_study(name: str) -> None:
    """Delete a study, its trials and their leases; nothing happens where there is no such study.

    Raises:
        ServiceError: the database can't be reached.
    """
    with database.connect() as connection, explained(connection), connection.transaction():
        try:
            found = connection.execute(STUDY_ID, [name]).fetchone()
        except errors.UndefinedTable:  # Optuna makes its tables with the first study
            return
        if found:
            for statement in statements.DELETE_STUDY:
                connection.execute(statement, {"study_id": found[0]})
