"""The records of model versions on a real database."""

from __future__ import annotations

import psycopg
import pytest

from shared.storage import PostgresStorage, records, sources
from shared.storage.database import connect
from shared.storage.ledger import Ledger

DIGESTS = {"MLmodel": "aa", "artifacts/system/manifest.json": "bb"}


def lineage(fingerprint: str = "abc1") -> dict[str, object]:
    return {"dataset": {"fingerprint": fingerprint}, "params": {"depth": 3, "limit": float("inf")}}


@pytest.mark.usefixtures("database")
def test_a_record_comes_back_as_it_was_written() -> None:
    assert records.record("digits", 2, DIGESTS, lineage())
    found = records.find("digits", 2)
    assert found is not None
    assert (found.model, found.version, found.digests) == ("digits", 2, DIGESTS)
    assert found.lineage == lineage() | {"params": {"depth": 3, "limit": "inf"}}  # JSON has no infinity


@pytest.mark.usefixtures("database")
def test_a_version_without_a_record_has_none() -> None:
    records.record("digits", 2, DIGESTS, lineage())
    assert records.find("digits", 1) is None
    assert records.find("other", 2) is None


@pytest.mark.usefixtures("database")
def test_a_second_record_of_a_version_changes_nothing() -> None:
    records.record("digits", 2, DIGESTS, lineage())
    assert not records.record("digits", 2, {"MLmodel": "changed"}, {})
    found = records.find("digits", 2)
    assert found is not None
    assert found.digests == DIGESTS


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("statement", ["UPDATE {} SET digests = '{{}}'", "DELETE FROM {}", "TRUNCATE {}"])
def test_records_are_append_only(statement: str) -> None:
    records.record("digits", 2, DIGESTS, lineage())
    with connect() as connection, pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        connection.execute(statement.format("evertune.model_records"))


@pytest.mark.usefixtures("database")
def test_a_dataset_version_leads_to_all_models_made_of_it() -> None:
    for version, fingerprint in enumerate(("abc1", "abd2", "abc1"), 1):
        records.record("digits", version, DIGESTS, lineage(fingerprint))
    records.record("digits-deep", 1, DIGESTS, lineage())
    records.record("digits-deep", 2, DIGESTS, {})
    made = [(record.model, record.version) for record in records.of_dataset("abc")]
    assert made == [("digits", 1), ("digits", 3), ("digits-deep", 1)]


@pytest.mark.usefixtures("database")
def test_a_source_knows_the_versions_that_were_made_by_it_alone_or_as_a_member() -> None:
    PostgresStorage().close()
    used, member, unused = (Ledger().save_source(source) for source in ("used", "member", "unused"))
    upstream = {"classical": {"objective": {"hash": used}}, "deep": {"objective": {"hash": member}}}
    records.record("digits-classical", 1, DIGESTS, {"objective": {"hash": used}, "upstream": {}})
    records.record("digits", 4, DIGESTS, {"objective": {}, "upstream": upstream})
    records.record("digits", 5, DIGESTS, {})
    assert {source.hash: sorted(source.versions) for source in sources.sources()} == {
        used: ["models:/digits-classical/1", "models:/digits/4"],
        member: ["models:/digits/4"],
        unused: [],
    }
