"""What a database role of the model server's own may do: look, and log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from shared.registry import promotion
from shared.settings import settings
from shared.storage import records
from shared.storage.database import connect, url
from shared.storage.ledger import Ledger
from tests import on_record

PAGE = Path(__file__).parents[2] / "docs" / "production.md"


@pytest.fixture
def as_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The database is reached as the role that the page makes; `iris` has a champion that was moved by hand."""
    del home
    on_record.register_versions("iris", 1).set_registered_model_alias("iris", "champion", "1")
    records.record("iris", 1, {"MLmodel": "a" * 64}, {})
    role = re.search(r"```sql\n(CREATE ROLE .*?)```", PAGE.read_text(), re.DOTALL)
    assert role is not None
    owner = url()
    with connect() as connection:
        connection.execute(role[1])
    monkeypatch.setenv("EVERTUNE_DATABASE_URL", owner.replace("postgres@", "evertune_server@"))
    settings.cache_clear()
    yield
    settings.cache_clear()
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute("DROP OWNED BY evertune_server")
        connection.execute("DROP ROLE evertune_server")


@pytest.mark.usefixtures("as_server")
def test_the_role_of_the_page_follows_the_champion_and_can_forge_nothing() -> None:
    found = records.find("iris", 1)
    assert found is not None
    promotion.log_champion("iris")
    (entry,) = Ledger().promotions("iris")
    assert (entry.version, entry.kind, entry.took_place) == (1, "found", True)
    for forged in (
        "INSERT INTO evertune.model_records (model, version, digests, lineage) VALUES ('iris', 2, '{}', '{}')",
        "UPDATE evertune.model_records SET digests = '{}'",
        "DELETE FROM evertune.promotion_log",
        "CREATE TABLE evertune.mine (x int)",
    ):
        with connect() as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(forged)
