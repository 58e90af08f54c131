"""The lineage of what is registered, looked up and drawn as trees."""

from __future__ import annotations

from shared.domain import ModelVersion
from shared.errors import RegistryError
from shared.registry import tree
from shared.registry.tree import Branch
from shared.storage import records
from shared.storage.records import ModelRecord


def record_of(model: str, version: int) -> ModelRecord:
    """What is on record of a version.

    Raises:
        RegistryError: nothing is.
    """
    found = records.find(model, version)
    if found is None:
        raise RegistryError(
            f"a version must be on record to tell its lineage, but {model} version {version} isn't: it was registered "
            f"before there were records, or elsewhere; `evertune models show {model} {version}` has its tags, and "
            f"`evertune models trust {model} {version}` records its files"
        )
    return found


def of_version(record: ModelRecord) -> Branch:
    """What a version was made of, with what its members were made of."""
    made = {name: facts for name, facts in record.lineage.get("upstream", {}).items() if facts["version"]}
    members = {name: records.find(facts["model"], facts["version"]) for name, facts in made.items()}
    return tree.of_version(record, members)


def of_registered(version: ModelVersion | None) -> Branch | None:
    """What a run's version was made of; None where it registered none, or nothing is on record."""
    record = records.find(version.name, version.version) if version else None
    return of_version(record) if record else None


def of_dataset(prefix: str) -> list[Branch]:
    """What was made of the dataset versions whose fingerprints begin so.

    Raises:
        RegistryError: nothing was.
    """
    made = records.of_dataset(prefix)
    if not made:
        raise RegistryError(
            f"--dataset must be the beginning of the fingerprint of a dataset version that a model was made of, but no "
            f"model was made of {prefix!r}; `evertune models lineage <model>` shows the one of a model"
        )
    return tree.of_dataset(made)
