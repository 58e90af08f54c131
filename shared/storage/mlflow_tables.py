"""Versions and aliases in MLflow's own tables, read and written as MLflow does, without the seconds of importing it.

Every function raises ServiceError where MLflow's registry isn't a PostgreSQL whose tables are known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from shared.errors import RegistryError, ServiceError
from shared.settings import settings
from shared.storage import database, embedded

# Revisions of MLflow's schema whose store was read: it knows no more of a version or an alias than what stands here.
KNOWN = ("dc11669786a5",)  # MLflow 3.17

# Tables are named without their schema, so that it is MLflow's: `public`, or what the options of its address say.
REVISION = "SELECT version_num FROM alembic_version"

ALIASES = "SELECT alias, version FROM registered_model_aliases WHERE workspace = 'default' AND name = %(name)s"

VERSION = """
SELECT name, version, creation_time, coalesce(storage_location, source) AS location, run_id FROM model_versions
WHERE workspace = 'default' AND name = %(name)s AND version = %(version)s AND current_stage <> 'Deleted_Internal'
"""

TAGS = """
SELECT key, value FROM model_version_tags
WHERE workspace = 'default' AND name = %(name)s AND version = %(version)s
"""

METRICS = "SELECT key, CASE WHEN is_nan THEN 'NaN' ELSE value END FROM latest_metrics WHERE run_uuid = %(run)s"

SET_ALIAS = f"""
INSERT INTO registered_model_aliases (workspace, name, alias, version)
SELECT 'default', name, %(alias)s, version FROM ({VERSION}) AS found
ON CONFLICT (workspace, name, alias) DO UPDATE SET version = excluded.version
"""

DELETE_ALIAS = """
DELETE FROM registered_model_aliases
WHERE workspace = 'default' AND name = %(name)s AND alias = %(alias)s
"""


@dataclass(frozen=True)
class Registered:
    """A version as MLflow knows it. created_ms: since 1970; location: of its files; metrics: of its run."""

    created_ms: int
    location: str
    tags: Mapping[str, str]
    aliases: Sequence[str]
    metrics: Mapping[str, float]


def aliases(name: str) -> dict[str, int]:
    """Version by alias; empty where there is no such model."""
    with _connected() as connection:
        return dict(connection.execute(ALIASES, {"name": name}).fetchall()) if connection else {}


def registered(name: str, version: int) -> Registered | None:
    """A version; None: there is none, or none any more."""
    values = {"name": name, "version": version}
    with _connected() as connection:
        if not connection or not (found := connection.execute(VERSION, values).fetchone()):
            return None
        _, _, created_ms, location, run = found
        at = connection.execute(ALIASES, values).fetchall()
        tags: dict[str, str] = dict(connection.execute(TAGS, values).fetchall())
        metrics: dict[str, float] = dict(connection.execute(METRICS, {"run": run}).fetchall())
    return Registered(created_ms, location, tags, [alias for alias, number in at if number == version], metrics)


def set_alias(name: str, alias: str, version: int) -> None:
    """Let an alias stand at a version.

    Raises:
        RegistryError: there is no such version.
    """
    with _connected() as connection:
        values = {"name": name, "alias": alias, "version": version}
        if not connection or not connection.execute(SET_ALIAS, values).rowcount:
            raise RegistryError(f"can't set {name}@{alias}: the registry has no version {version} of {name}")


def delete_alias(name: str, alias: str) -> None:
    """Take an alias away; nothing happens where it stands at no version."""
    with _connected() as connection:
        if connection:
            connection.execute(DELETE_ALIAS, {"name": name, "alias": alias})


@contextmanager
def _connected() -> Iterator[psycopg.Connection | None]:
    """A connection to MLflow's database; None where the embedded one has no tables yet: nothing has been registered."""
    try:
        with _open() as connection:
            yield connection if _is_known(connection) else None
    except psycopg.Error:
        raise ServiceError("MLflow's registry can't be had by SQL; ask MLflow itself") from None


def _open() -> psycopg.Connection:
    external = settings().mlflow_tracking_uri
    if external is None:
        return embedded.connect(settings().home, "mlflow")
    address = database.libpq_url(external.get_secret_value())
    return psycopg.connect(address, connect_timeout=database.CONNECT_TIMEOUT_S, autocommit=True, **database.KEEPALIVE)


def _is_known(connection: psycopg.Connection) -> bool:
    """False: the embedded registry has no tables yet. Those of another may be where we don't see them."""
    try:
        found = connection.execute(REVISION).fetchone()
    except psycopg.errors.UndefinedTable:
        if settings().mlflow_tracking_uri is None:
            return False
        raise ServiceError("the database in MLFLOW_TRACKING_URI has no tables of MLflow; ask MLflow itself") from None
    if found is None or found[0] not in KNOWN:
        raise ServiceError(f"MLflow's tables must be at a revision of {KNOWN}, but are at {found}; ask MLflow itself")
    return True
