"""Records of model versions: the digests of their files, and their lineage.

Written once, before a version can be used, and never changed: who can write to the registry's files can't make them
pass. The record of a deleted version stays, as its promotions do, and its number is never given again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from shared.storage.database import connect
from shared.storage.ledger import finite
from shared.storage.refusal import explained

RECORD = """
INSERT INTO evertune.model_records (model, version, digests, lineage)
VALUES (%(model)s, %(version)s, %(digests)s, %(lineage)s)
ON CONFLICT DO NOTHING
"""

COLUMNS = "model, version, digests, lineage, recorded_at"

FIND = f"SELECT {COLUMNS} FROM evertune.model_records WHERE model = %(model)s AND version = %(version)s"

OF_DATASET = f"""
SELECT {COLUMNS} FROM evertune.model_records
WHERE starts_with(lineage #>> '{{dataset,fingerprint}}', %(prefix)s) ORDER BY recorded_at
"""


@dataclass(frozen=True)
class ModelRecord:
    """What is on record of a model version.

    digests: SHA-256, in hex, by path in the version's folder. lineage: see `shared.registry.lineage`; empty where the
    version was registered before there were records.
    """

    model: str
    version: int
    digests: Mapping[str, str]
    lineage: Mapping[str, Any]
    recorded_at: datetime


def record(model: str, version: int, digests: Mapping[str, str], lineage: Mapping[str, Any]) -> bool:
    """Put a model version on record; False, and nothing is changed, where it is already.

    Raises:
        ServiceError: the database can't be reached.
    """
    values = {"model": model, "version": version, "digests": Jsonb(digests), "lineage": Jsonb(finite(lineage))}
    with connect() as connection, explained(connection):
        return connection.execute(RECORD, values).rowcount > 0


def find(model: str, version: int) -> ModelRecord | None:
    """What is on record of a model version.

    Raises:
        ServiceError: the database can't be reached.
    """
    return next(iter(_rows(FIND, model=model, version=version)), None)


def of_dataset(prefix: str) -> list[ModelRecord]:
    """Versions made of the dataset versions whose fingerprints begin so, oldest first; those deleted since included.

    Raises:
        ServiceError: the database can't be reached.
    """
    return _rows(OF_DATASET, prefix=prefix)


def _rows(statement: str, **values: Any) -> list[ModelRecord]:
    with connect() as connection, explained(connection), connection.cursor(row_factory=class_row(ModelRecord)) as found:
        return found.execute(statement, values).fetchall()
