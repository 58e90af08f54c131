"""Optuna's storage on Evertune's database. Everything that reads or writes trials comes through here."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors

from shared.errors import ServiceError
from shared.storage import database, schema

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

logger = logging.getLogger(__name__)

# The schema of Optuna 5's tables, which the SQL of this package reads too.
OPTUNA_SCHEMA = "v3.2.0.a"
REVISION = "SELECT version_num FROM public.alembic_version"
# A study's places in its budget go with its trials.
FORGET_SLOTS = "DELETE FROM evertune.slots WHERE study = %s"

# The connections come from `database`, so the URL has neither host nor password.
URL = "postgresql+psycopg://"
ENGINE: dict[str, Any] = {"pool_size": 2, "pool_pre_ping": True, "creator": database.connect_dbapi}


def open_storage() -> RDBStorage:
    """Optuna's storage. It may be shared by threads, and finds an embedded server again that was killed.

    Raises:
        ServiceError: the database can't be reached, or has tables of an Optuna that Evertune doesn't know.
    """
    with database.connect() as connection:
        if _revision(connection) is None:
            with schema.exclusive(connection):
                _create_tables()
        check_revision(_revision(connection))
    return _open()


def delete_study(name: str) -> None:
    """Delete a study's trials and what holds its budget; nothing happens where there is no such study."""
    import optuna

    try:
        optuna.delete_study(study_name=name, storage=open_storage())
    except KeyError:
        logger.info("no study to delete", extra={"study": name})
    with database.connect() as connection:
        connection.execute(FORGET_SLOTS, [name])


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


def _revision(connection: psycopg.Connection) -> str | None:
    try:
        row = connection.execute(REVISION).fetchone()
    except errors.UndefinedTable:
        return None
    return row[0] if row else None


def _create_tables() -> None:
    from optuna.storages import RDBStorage

    RDBStorage(URL, engine_kwargs=dict(ENGINE)).engine.dispose()


def _open() -> RDBStorage:
    """RDBStorage on tables that were checked: its own checks, even if skipped, import alembic, for 0.25 CPU-s."""
    import sqlalchemy
    from optuna.storages import RDBStorage
    from sqlalchemy import orm

    class Storage(RDBStorage):
        def __init__(self) -> None:
            self.url, self.engine_kwargs = URL, dict(ENGINE)
            self.skip_compatibility_check = True
            self.heartbeat_interval = self.grace_period = None
            self.heartbeat_stale_trial_callback = self.failed_trial_callback = None
            self.engine = sqlalchemy.create_engine(URL, **ENGINE)
            self.scoped_session = orm.scoped_session(orm.sessionmaker(bind=self.engine))

    return Storage()
