"""A database that was reached, and then refuses what it is asked or goes away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from shared.errors import ServiceError


@contextmanager
def explained(connection: psycopg.Connection) -> Iterator[None]:
    """Use a connection to Evertune's database; where a statement fails, the error is one that says what to do.

    Raises:
        ServiceError: the database refuses a statement, or the connection was lost. No password is in the message.
    """
    where = f"{connection.info.host}/{connection.info.dbname}"
    try:
        yield
    except psycopg.Error as err:
        cause = " ".join((err.diag.message_primary or str(err)).split())
        if connection.broken:
            raise ServiceError(
                f"Evertune's database must stay reachable, but the connection to {where} was lost ({cause}); check "
                "that it runs, and run the same again: what was recorded is kept"
            ) from err
        raise ServiceError(
            f"Evertune's database must do what it is asked, but {where} refuses ({cause}); name one in "
            "EVERTUNE_DATABASE_URL that can be written, and a user that may create the schema `evertune` there"
        ) from err
