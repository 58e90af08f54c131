"""The lineage of what is registered, looked up and drawn as trees."""

from __future__ import annotations

from shared.errors import RegistryError
from shared.registry import tree
from shared.registry.tree import Branch
from shared.storage import records
from shared.storage.records import ModelRecord


def of_version(record: ModelRecord) -> Branch:
    """What a version was made of, with what its members were made of."""
    made = {name: facts for name, facts in record.lineage.get("upstream", {}).items() if facts["version"]}
    members = {name: records.find(facts["model"], facts["version"]) for name, facts in made.items()}
    return tree.of_version(record, members)


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
