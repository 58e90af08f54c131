"""The schema `evertune` of the database, kept at the newest revision by the migrations beside this file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import errors

from shared.errors import ServiceError
from shared.storage.refusal import explained

logger = logging.getLogger(__name__)

HEAD = "0006"
MIGRATIONS = Path(__file__).parent / "migrations"

# The revision that the database is at.
REVISION = "SELECT version_num FROM evertune.alembic_version"
# One process at a time migrates, and creates Optuna's tables.
LOCK = "SELECT pg_advisory_lock(hashtextextended('evertune.schema', 0))"
UNLOCK = "SELECT pg_advisory_unlock(hashtextextended('evertune.schema', 0))"


def ensure(connection: psycopg.Connection, connect: Callable[[], psycopg.Connection]) -> None:
    """Bring the schema `evertune` to HEAD: one SELECT where it is there already, else the migrations, once.

    connect: opens another connection to the same database, for the migrations.

    Raises:
        ServiceError: a newer Evertune has migrated this database, or its user may not.
    """
    with explained(connection):
        if revision(connection) == HEAD:
            return
        with exclusive(connection):
            if (found := revision(connection)) != HEAD:
                _upgrade(connect, found)
                logger.info("schema migrated", extra={"from": found, "to": HEAD})


def revision(connection: psycopg.Connection) -> str | None:
    """The revision that the database is at; None before the first migration."""
    try:
        row = connection.execute(REVISION).fetchone()
    except errors.UndefinedTable:
        return None
    return row[0] if row else None


@contextmanager
def exclusive(connection: psycopg.Connection) -> Iterator[None]:
    """Let one process at a time of all that use this database change its tables."""
    connection.execute(LOCK)
    try:
        yield
    finally:
        connection.execute(UNLOCK)


def _upgrade(connect: Callable[[], psycopg.Connection], found: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError
    from sqlalchemy.exc import DBAPIError

    config = Config(attributes={"connect": connect})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    try:
        command.upgrade(config, "head")
    except DBAPIError as err:
        raise err.orig or err from None
    except CommandError as err:
        raise ServiceError(
            f"Evertune's tables must be at a revision up to {HEAD}, but are at {found!r}, which a newer Evertune "
            "has made; update Evertune, or name another database in EVERTUNE_DATABASE_URL"
        ) from err
