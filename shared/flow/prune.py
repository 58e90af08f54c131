"""Find what a use case has gathered, and delete what of it nobody needs."""

from __future__ import annotations

import logging
import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from shared.flow import run_files
from shared.flow.plan import use_case_tag
from shared.flow.retention import Holdings, surplus
from shared.storage.ledger import Ledger

if TYPE_CHECKING:
    from shared.config import UseCase

logger = logging.getLogger(__name__)

FLOWS = ("DataPrepFlow", "ClassicalHPOFlow", "DeepHPOFlow", "SystemTuneFlow")


def find_surplus(use_case: UseCase, now: datetime) -> Holdings:
    """What `prune` would delete."""
    return surplus(holdings(use_case, now), use_case.retention, now)


def holdings(use_case: UseCase, now: datetime) -> Holdings:
    """All that there is of a use case.

    Raises:
        RegistryError, ServiceError: the registry or the database can't be reached.
    """
    from shared.registry import client

    ledger, name = Ledger(), use_case.name
    return Holdings(
        datasets=ledger.datasets(name),
        studies=ledger.entries(name),
        versions=[v for model in (name, f"{name}-classical", f"{name}-deep") for v in client.versions(model)],
        runs=run_files.find(_runs(), FLOWS, use_case_tag(use_case), now),
    )


def prune(use_case: UseCase, now: datetime) -> Holdings:
    """Delete the surplus, and return it. What was deleted before an error stays deleted; running it again goes on.

    Raises:
        RegistryError, ServiceError, DataError: something can't be deleted.
    """
    from shared.data import store
    from shared.registry import promotion
    from shared.storage.studies import delete_study

    doomed, ledger = find_surplus(use_case, now), Ledger()
    for version in doomed.versions:
        promotion.retire(version)
    for entry in doomed.studies:
        delete_study(entry.study)
        ledger.forget(entry.study)
    for ref in doomed.datasets:
        ledger.forget_dataset(ref)  # first: what is on record can be loaded
        store.delete(ref)
    run_files.delete(_runs(), doomed.runs, now)
    logger.info("pruned", extra={"use_case": use_case.name, **counts(doomed)})
    return doomed


def counts(found: Holdings) -> dict[str, int]:
    """How many of each."""
    return {name: len(items) for name, items in vars(found).items()}


def _runs() -> Path:
    """Where Metaflow keeps runs on this machine."""
    return Path(os.environ.get("METAFLOW_DATASTORE_SYSROOT_LOCAL", "."), ".metaflow").absolute()
