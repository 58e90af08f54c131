"""Where Evertune's services are on this machine or elsewhere; starting, stopping and looking at them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import psycopg

from shared.settings import settings
from shared.storage import database, embedded, schema


@dataclass(frozen=True)
class ServiceStatus:
    """A service, what state it is in, and where it is, without secrets. `external` is not looked at."""

    name: Literal["postgres", "mlflow"]
    state: Literal["running", "stopped", "unreachable", "external"]
    where: str


def database_url() -> str:
    """libpq URL `postgresql://…` of Evertune's database, reachable, its schema at the newest revision.

    It may hold a password: not for messages, logs, tags or artifacts.

    Raises:
        ServiceError: the database can't be reached, or the embedded server can't start.
    """
    database.connect().close()
    return database.url()


def mlflow_tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or the database `mlflow` of the embedded server, as MLflow takes it.

    Raises:
        ServiceError: the embedded server can't start.
    """
    external = settings().mlflow_tracking_uri
    if external is not None:
        return external.get_secret_value()
    embedded.connect(settings().home, "mlflow").close()
    return database.sqlalchemy_url(embedded.url(settings().home, "mlflow"))


def prepare_mlflow(create_tables: Callable[[str], object]) -> str:
    """The tracking URI, once MLflow's tables are there: `create_tables(uri)` is called by one process, one time.

    MLflow creates them at its first use, in seconds, and two processes that do so at a time fail.
    """
    uri = mlflow_tracking_uri()
    if settings().mlflow_tracking_uri is None:
        with embedded.connect(settings().home, "mlflow") as connection:
            if not _has_tables(connection):
                with schema.exclusive(connection):
                    if not _has_tables(connection):
                        create_tables(uri)
    return uri


def start() -> list[ServiceStatus]:
    """Start what is embedded, and migrate the database."""
    database_url()
    mlflow_tracking_uri()
    return status()


def start_once() -> None:
    """Start what is embedded now, and not again in this process: whoever stops it later wants that."""
    if settings().database_url is None or settings().mlflow_tracking_uri is None:
        embedded.connect(settings().home, "postgres").close()
    embedded.start_no_more()


def stop() -> list[ServiceStatus]:
    """Stop the embedded server, if it runs; what is external stays as it is."""
    embedded.stop(settings().home)
    return status()


def status() -> list[ServiceStatus]:
    """State of the services, without starting any."""
    return [_postgres(), _mlflow()]


def _postgres() -> ServiceStatus:
    if settings().database_url is None:
        return _embedded("postgres", "evertune")
    where = database.describe(database.url())
    return ServiceStatus("postgres", "running" if database.answers() else "unreachable", where)


def _mlflow() -> ServiceStatus:
    external = settings().mlflow_tracking_uri
    if external is None:
        found = _embedded("mlflow", "mlflow")
        if settings().database_url is None:
            return found
        return replace(found, where=f"{found.where} (on this machine, since MLFLOW_TRACKING_URI isn't set)")
    uri = external.get_secret_value()
    where = database.describe(database.libpq_url(uri)) if uri.startswith("postgres") else _without_credentials(uri)
    return ServiceStatus("mlflow", "external", where)


def _embedded(name: Literal["postgres", "mlflow"], database_name: str) -> ServiceStatus:
    home = settings().home
    return ServiceStatus(name, "running" if embedded.answers(home) else "stopped", f"{home}/postgres/{database_name}")


def _without_credentials(uri: str) -> str:
    scheme, found, rest = uri.partition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2]}"


def _has_tables(connection: psycopg.Connection) -> bool:
    row = connection.execute("SELECT to_regclass('public.alembic_version') IS NOT NULL").fetchone()
    return bool(row and row[0])
