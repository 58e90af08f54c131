"""Connections to Evertune's database: `EVERTUNE_DATABASE_URL`, or `evertune` on the embedded server."""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from shared.errors import ServiceError
from shared.settings import settings
from shared.storage import embedded, schema

CONNECT_TIMEOUT_S = 10
INVALID = "an address that isn't a valid URL (is a special character in the password not percent-encoded?)"

# A server that has vanished is noticed within a minute, where the connection is remote.
KEEPALIVE: dict[str, Any] = {
    "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000
}  # fmt: skip

_migrated: set[str] = set()


def connect(url: str | None = None) -> psycopg.Connection:
    """A connection (autocommit; the caller closes it) to Evertune's database or another, Evertune's schema at HEAD.

    Raises:
        ServiceError: the database can't be reached or started. The message has no password in it.
    """
    connection = _open(url)
    address = connection.info.dsn
    if address not in _migrated:
        schema.ensure(connection, lambda: _open(url))
        _migrated.add(address)
    return connection


def connect_dbapi(url: str | None = None) -> psycopg.Connection:
    """The same without autocommit, as SQLAlchemy's pools want it: `creator=connect_dbapi`, and no URL to leak."""
    connection = connect(url)
    connection.autocommit = False
    return connection


def url() -> str:
    """libpq URL of Evertune's database, with its password: not for messages, logs, tags or artifacts."""
    external = settings().database_url
    if external is None:
        return embedded.url(settings().home, "evertune")
    return libpq_url(external.get_secret_value())


def answers() -> bool:
    """Whether the database can be reached now, found out without starting or migrating anything."""
    if settings().database_url is None:
        return embedded.answers(settings().home)
    try:
        _open().close()
    except ServiceError:
        return False
    return True


def libpq_url(url: str) -> str:
    """`postgresql://…` for a PostgreSQL URL in any spelling, SQLAlchemy's included.

    Raises:
        ServiceError: it is another kind of URL.
    """
    scheme, found, rest = url.partition("://")
    if not found or scheme.partition("+")[0] not in ("postgresql", "postgres"):
        raise ServiceError(
            f"EVERTUNE_DATABASE_URL must be a PostgreSQL URL, but {f'is one of {scheme}' if found else 'is no URL'}; "
            "write postgresql://user:password@host:5432/database"
        )
    return f"postgresql://{rest}"


def sqlalchemy_url(url: str) -> str:
    """The same database for SQLAlchemy, by the driver psycopg 3."""
    return re.sub(r"^postgresql://", "postgresql+psycopg://", url)


def describe(url: str) -> str:
    """Host and database of a libpq URL, fit for messages."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return INVALID
    host, name = str(parts.get("host") or "localhost"), str(parts.get("dbname") or parts.get("user") or "")
    if "@" in host + name:  # what is before it belongs to the password
        return INVALID
    port = f":{parts['port']}" if parts.get("port") else ""
    return f"{host}{port}/{name}"


def without_password(url: str) -> str:
    """A libpq URL that may be kept: whoever opens it takes the password from the environment."""
    address, mark, options = re.sub(r"^([^/]*//[^:@/]*):.*@", r"\1@", url).partition("?")
    kept = [option for option in options.split("&") if not re.match(r"(ssl)?password=", option)]
    return address + (mark + "&".join(kept) if any(kept) else "")


def _open(url: str | None = None) -> psycopg.Connection:
    external = settings().database_url
    if url is None and external is None:
        return embedded.connect(settings().home, "evertune")
    own = libpq_url(external.get_secret_value()) if external else ""
    address = own if url is None else libpq_url(url)
    if address == without_password(own):
        address = own
    try:
        connection = psycopg.connect(address, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, **KEEPALIVE)
    except psycopg.Error as err:
        raise _unreachable(address, err) from None  # the original may quote the URL
    # Optuna's tables stay in `public` also where the user is called evertune, as our schema is.
    connection.execute("SET search_path TO public")
    return connection


def _unreachable(url: str, err: psycopg.Error) -> ServiceError:
    """What is told of a database that can't be reached: host, database, cause, remedy; never the password."""
    where = describe(url)
    told = isinstance(err, psycopg.OperationalError) and where != INVALID
    cause = _redact(" ".join(str(err).split()), url) if told else "the URL can't be read"
    return ServiceError(
        f"Evertune's database must be reachable, but {where} isn't ({cause}); "
        "check EVERTUNE_DATABASE_URL, or unset it to use the embedded PostgreSQL"
    )


def _redact(text: str, url: str) -> str:
    """`text` without the credentials of a URL, however they are quoted in it."""
    credentials = url.partition("://")[2].rpartition("@")[0]
    secret = credentials.partition(":")[2]
    return text.replace(secret, "***") if secret else text
