"""Find what a use case has gathered, and delete what of it nobody needs."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from shared.domain import model_names
from shared.events.chain import Chain, chains, delete_chain
from shared.flow import run_files
from shared.flow.plan import use_case_tag
from shared.flow.retention import ChainFiles, Holdings, surplus
from shared.storage import sources, studies
from shared.storage.ledger import Ledger

if TYPE_CHECKING:
    from shared.config import UseCase
    from shared.domain import DatasetRef
    from shared.storage.sources import Source

logger = logging.getLogger(__name__)


def find_surplus(use_case: UseCase, now: datetime) -> Holdings:
    """What `prune` would delete."""
    from shared.registry import history

    there = holdings(use_case, now)
    once = set(history.champions(Ledger().promotions(use_case.name)))
    champions = {v.uri for v in there.versions if v.name == use_case.name and v.version in once}
    return surplus(there, use_case.retention, now, champions)


def holdings(use_case: UseCase, now: datetime) -> Holdings:
    """All that there is of a use case.

    Raises:
        RegistryError, ServiceError: the registry or the database can't be reached.
    """
    from shared.registry import client

    ledger, name = Ledger(), use_case.name
    models = model_names(name)
    versions = [version for model in models for version in client.versions(model)]
    there = {version.uri for version in versions}
    return Holdings(
        datasets=ledger.datasets(name),
        studies=ledger.entries(name),
        versions=versions,
        sources=[_of_now(source, models, there) for source in sources.sources()],
        runs=run_files.find(_runs(), use_case_tag(use_case), now),
        chains=[ChainFiles(chain.id, _ended(chain)) for chain in chains(name)],
    )


def prune(use_case: UseCase, now: datetime) -> Holdings:
    """Delete the surplus, and return what was: not what has come into use meanwhile.

    What was deleted before an error stays deleted; running it again goes on.

    Raises:
        RegistryError, ServiceError, DataError: something can't be deleted.
    """
    from shared.registry import promotion

    doomed = find_surplus(use_case, now)
    versions = [version for version in doomed.versions if promotion.retire(version)]
    gone = {version.uri for version in versions}
    deleted = Holdings(
        versions=versions,
        studies=[entry for entry in doomed.studies if studies.retire(entry)],
        datasets=[ref for ref in doomed.datasets if _delete_dataset(ref)],
        sources=[s for s in doomed.sources if gone >= set(s.versions) and sources.forget_source(s)],
        runs=doomed.runs,
        chains=doomed.chains,
    )
    run_files.delete(_runs(), doomed.runs, now)
    for chain in doomed.chains:
        delete_chain(chain.id)
    logger.info("pruned", extra={"use_case": use_case.name, **counts(deleted)})
    return deleted


def counts(found: Holdings) -> dict[str, int]:
    """How many of each."""
    return {name: len(items) for name, items in vars(found).items()}


def _delete_dataset(ref: DatasetRef) -> bool:
    """Whether it was deleted."""
    from shared.data import store

    forgotten = Ledger().forget_dataset(ref)  # first: what is on record can be loaded
    if forgotten:
        store.delete(ref)
    return forgotten


def _of_now(source: Source, models: Sequence[str], there: Collection[str]) -> Source:
    """A source without the versions of these models that were deleted."""
    own = tuple(f"models:/{model}/" for model in models)
    return replace(source, versions=[uri for uri in source.versions if uri in there or not uri.startswith(own)])


def _ended(chain: Chain) -> datetime | None:
    """When a chain ended; one that died, when it began; None while it is running."""
    return chain.finished_at or (chain.started_at if chain.died else None)


def _runs() -> Path:
    """Where Metaflow keeps runs on this machine."""
    return Path(os.environ.get("METAFLOW_DATASTORE_SYSROOT_LOCAL", "."), ".metaflow").absolute()
