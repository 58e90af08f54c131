"""Puts dataset versions and studies on record by the ledger's own transitions, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from shared.config import UseCase
from shared.data.prepare import prepare
from shared.domain import DatasetRef, Table, Variant
from shared.storage import claims
from shared.storage.ledger import Ledger, LedgerEntry
from shared.storage.services import mlflow_tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient


def arrive(use_case: str, fingerprint: str, run: str = "DataPrepFlow/1") -> None:
    """Rows with this fingerprint are the newest dataset version."""
    ref = DatasetRef(
        use_case=use_case,
        fingerprint=fingerprint,
        uri="",
        table=Table(features=("a",), dtypes=("float64",), target="target", task="classification", shape=(1,)),
        rows={"development": 3},
        folds=5,
        source="rows",
        created_at=datetime(2030, 1, 1, tzinfo=UTC),
    )
    Ledger().record_dataset(ref, run=run)


def register_versions(name: str, n: int) -> MlflowClient:
    """A registered model with versions from 1 on, which have no files, and the client that somebody else would use."""
    from mlflow import MlflowClient

    mlflow = MlflowClient(mlflow_tracking_uri(), mlflow_tracking_uri())
    mlflow.create_registered_model(name)
    for _ in range(n):
        mlflow.create_model_version(name, "/nowhere")
    return mlflow


def prepare_rows(use_case: UseCase) -> None:
    """The rows of its source are the first dataset version, as DataPrepFlow would have it."""
    Ledger().record_dataset(prepare(use_case, None, datetime.now(UTC)).ref, run="DataPrepFlow/1")


def finish(
    name: str,
    outcome: Mapping[str, Any],
    run: str = "r",
    *,
    use_case: str = "digits",
    variant: Variant = "classical",
    fingerprint: str = "aaaa",
) -> LedgerEntry:
    """A study that a run has begun and done."""
    budget = int(outcome.get("budget", 1))
    Ledger().begin(name, use_case, variant, fingerprint, budget=budget, run=run)
    claims.conclude(name, budget, run, make=lambda: outcome, publish=lambda _: None)
    entry = Ledger().entry(name)
    assert entry is not None
    return entry
