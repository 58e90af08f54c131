"""A database that was reached and then refuses, or goes away, is an error with a remedy and without the password."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

from shared.errors import ServiceError
from shared.settings import settings
from shared.storage import database, embedded, services
from shared.storage.ledger import Ledger
from shared.storage.progress import progress
from shared.storage.refusal import explained
from tests.conftest import Server


@pytest.fixture
def role(server: Server) -> Iterator[str]:
    """A user of the server who may only connect."""
    name = f"reader_{uuid4().hex[:8]}"
    with embedded.connect(server.home, "postgres") as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    settings.cache_clear()
    with embedded.connect(server.home, "postgres") as connection:
        connection.execute(f"DROP ROLE {name}")


@pytest.fixture
def url(server: Server, evertune_template: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database of the test's own, which EVERTUNE_DATABASE_URL names with a password."""
    with server.fresh(evertune_template) as url:
        use(monkeypatch, url)
        yield url
    settings.cache_clear()


def use(monkeypatch: pytest.MonkeyPatch, url: str, user: str = "postgres") -> None:
    monkeypatch.setenv("EVERTUNE_DATABASE_URL", url.replace("postgres@", f"{user}:hunter2@"))
    settings.cache_clear()


def name(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]


def test_a_database_that_can_only_be_read_says_so(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name(url)} SET default_transaction_read_only = on")
    assert Ledger().datasets("digits") == []
    with pytest.raises(
        ServiceError,
        match=rf"{name(url)} refuses \(cannot execute INSERT in a read-only.*EVERTUNE_DATABASE_URL that can",
    ) as refused:
        Ledger().save_source("x = 1")
    assert "hunter2" not in str(refused.value)


def test_a_user_who_may_not_create_the_schema_is_told(
    server: Server, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.fresh("template0") as url:
        use(monkeypatch, url, user=role)
        with pytest.raises(
            ServiceError,
            match=r"refuses \(permission denied for database .*a user that may create the schema `evertune`",
        ) as refused:
            services.database_url()
    assert "hunter2" not in str(refused.value)


def test_tables_that_are_kept_from_the_user_are_told(role: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"GRANT USAGE ON SCHEMA evertune TO {role}")
        connection.execute(f"GRANT SELECT ON evertune.alembic_version TO {role}")
    use(monkeypatch, url, user=role)
    with pytest.raises(ServiceError, match=r"refuses \(permission denied for table studies\)"):
        progress(["s"])
    with pytest.raises(ServiceError, match=r"refuses \(permission denied for table promotion_log\)"):
        Ledger().promotions("digits")


def test_a_connection_that_is_lost_says_what_to_do(url: str) -> None:
    with (
        pytest.raises(ServiceError, match=rf"connection to .*{name(url)} was lost \(terminating .*run the same again"),
        database.connect() as connection,
        explained(connection),
    ):
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
