"""URLs of databases: their spellings, and what may be said of them in messages."""

from __future__ import annotations

import pytest

from shared.errors import ServiceError
from shared.storage.database import INVALID, _redact, describe, libpq_url, sqlalchemy_url, without_password


@pytest.mark.parametrize(
    ("url", "expected", "reason"),
    [
        ("postgresql://u:p@h/d", "postgresql://u:p@h/d", "libpq's own"),
        ("postgres://u:p@h/d", "postgresql://u:p@h/d", "as hosting services write it"),
        ("postgresql+psycopg://u:p@h/d", "postgresql://u:p@h/d", "as SQLAlchemy and Optuna want it"),
        ("postgresql+psycopg2://u:p@h/d", "postgresql://u:p@h/d", "the driver is ours to choose"),
    ],
)
def test_postgres_urls_of_any_spelling_are_taken(url: str, expected: str, reason: str) -> None:
    assert libpq_url(url) == expected, reason


@pytest.mark.parametrize("url", ["mysql://root:hunter2@h/d", "sqlite:///x.db", "hunter2"])
def test_another_database_is_refused_with_the_right_form_and_without_the_password(url: str) -> None:
    with pytest.raises(ServiceError, match=r"must be a PostgreSQL URL.*postgresql://user:password@host") as caught:
        libpq_url(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:hunter2@db.example.com:6432/tuning", "db.example.com:6432/tuning"),
        ("postgresql://u:hunter2@db.example.com/tuning?sslmode=require", "db.example.com/tuning"),
        ("postgresql://postgres@/evertune?host=/tmp/x/postgres", "/tmp/x/postgres/evertune"),
        ("postgresql://u:hunt@er2@db.example.com/tuning", INVALID),
        ("postgresql://u:hunt/er2@db.example.com/tuning", INVALID),
    ],
)
def test_a_description_has_host_and_database_only(url: str, expected: str) -> None:
    assert describe(url) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:hunter2@h:6432/d", "postgresql://u@h:6432/d"),
        ("postgresql://u@h/d?sslmode=require&password=hunter2", "postgresql://u@h/d?sslmode=require"),
        ("postgresql://u@h/d?sslpassword=hunter2", "postgresql://u@h/d"),
        ("postgresql://postgres@/evertune?host=/tmp/x", "postgresql://postgres@/evertune?host=/tmp/x"),
    ],
)
def test_an_address_that_may_be_kept_has_no_password(url: str, expected: str) -> None:
    assert without_password(url) == expected


def test_an_unreadable_url_is_described_without_quoting_it() -> None:
    assert "hunter2" not in describe("postgresql://u:hunter2@h:port/d d?=x")


@pytest.mark.parametrize("password", ["hunter2", "hunt%40er2", "hunt:er2"])
def test_a_password_is_taken_out_of_a_drivers_message(password: str) -> None:
    text = f'connection to "{password}" failed'
    assert _redact(text, f"postgresql://u:{password}@h/d") == 'connection to "***" failed'


def test_sqlalchemy_is_told_the_driver() -> None:
    assert sqlalchemy_url("postgresql://u@h/d") == "postgresql+psycopg://u@h/d"
