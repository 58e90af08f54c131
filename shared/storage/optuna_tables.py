"""Optuna's own tables: made by Optuna, and at a schema that the SQL of this package is written for."""

from __future__ import annotations

import psycopg
from psycopg import errors

from shared.errors import ServiceError
from shared.storage import database, schema, statements

# The schema of Optuna 5's tables.
OPTUNA_SCHEMA = "v3.2.0.a"
REVISION = "SELECT version_num, to_regclass('public.evertune_trials_unfinished') FROM public.alembic_version"

THERE = "SELECT to_regclass('public.study_user_attributes') IS NOT NULL"

_checked: set[str] = set()


def are_there(connection: psycopg.Connection) -> bool:
    """Whether Optuna has made its tables, as it does with the first study. Also inside a transaction."""
    row = connection.execute(THERE).fetchone()
    return bool(row and row[0])


def connect(url: str | None = None) -> psycopg.Connection:
    """A connection (autocommit) to a database with Optuna's tables, made where they are missing. None: Evertune's own.

    Raises:
        ServiceError: the database can't be reached, or has tables of an Optuna that Evertune doesn't know.
    """
    connection = database.connect(url)
    connection.execute(statements.SESSION)
    address = connection.info.dsn
    if address not in _checked:
        prepare(connection, url)
        _checked.add(address)
    return connection


def prepare(connection: psycopg.Connection, url: str | None) -> None:
    """Make the tables, and Evertune's indexes on them, where they are missing.

    Raises:
        ServiceError: they are of an older or newer Optuna.
    """
    revision, indexed = _state(connection)
    if revision is None or not indexed:
        with schema.exclusive(connection):
            if _state(connection)[0] is None:
                _create(url)
            check_revision(_state(connection)[0])
            connection.execute(statements.INDEXES)
    else:
        check_revision(revision)


def check_revision(found: str | None) -> None:
    """Refuse tables that the SQL of this package isn't written for.

    Raises:
        ServiceError: they are of an older or newer Optuna.
    """
    if found != OPTUNA_SCHEMA:
        raise ServiceError(
            f"Optuna's tables must be at its schema {OPTUNA_SCHEMA}, but this database has {found!r}; an older one is "
            "brought there by `optuna storage upgrade --storage <url>`, for a newer one update Evertune, or name "
            "another database in EVERTUNE_DATABASE_URL"
        )


def _state(connection: psycopg.Connection) -> tuple[str | None, str | None]:
    """Optuna's schema, and Evertune's last index on it."""
    try:
        row = connection.execute(REVISION).fetchone()
    except errors.UndefinedTable:
        return None, None
    return (row[0], row[1]) if row else (None, None)


def _create(url: str | None) -> None:
    from optuna.storages import RDBStorage

    # The connection comes from `database`, so the URL has neither host nor password.
    RDBStorage("postgresql+psycopg://", {"creator": lambda: database.connect_dbapi(url)}).engine.dispose()
