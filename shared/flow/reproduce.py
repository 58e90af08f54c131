"""A registered model, trained once more from what is on record of it alone, beside the one that was registered."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from shared.config import UseCase
from shared.domain import DatasetRef, ModelVersion, StudySpec, TrialSummary
from shared.errors import RegistryError
from shared.flow import hpo, origin, system
from shared.flow.ancestry import record_of
from shared.flow.plan import Plan, Retrained
from shared.registry.lineage import is_known
from shared.storage.ledger import Ledger

if TYPE_CHECKING:
    import numpy as np

    from shared.model import System
    from shared.storage.records import ModelRecord
    from shared.training.system import UpstreamMember
    from shared.tuning.objective import Objective

TORCH_TOLERANCE = 1e-6
PARTS = ("config", "dataset", "study", "trial", "objective", "upstream", "threads", "environment")  # of a record

Part = TypeVar("Part", bound=BaseModel)


@dataclass(frozen=True)
class Reproduction:
    """A version beside its retrained twin: predictions for the holdout, and what has changed around them.

    rows: of the holdout; differing: of them, by more than the tolerance; largest: difference of two predictions.
    """

    model: str
    version: int
    rows: int
    differing: int
    largest: float
    tolerance: float
    changes: Sequence[str]

    @property
    def is_same(self) -> bool:
        return self.differing == 0


def reproduce(version: ModelVersion) -> Reproduction:
    """Train a version once more, and compare. Nothing is registered.

    Raises:
        DataError: its rows or its objective's source are gone, or were changed.
        RegistryError: what it was made of isn't on record, or can't be used any more.
        UnloadableModelError: its files aren't those that were registered.
    """
    from shared.data.store import load_dataset
    from shared.registry import client

    recorded = lineage_of(version.name, version.version).lineage
    registered = client.load_version(version)
    plan = plan_of(recorded)
    rows = load_dataset(plan.data, "holdout").X
    if not len(rows):
        raise RegistryError(
            f"predictions are compared on the holdout, but that of dataset version "
            f"{plan.data.fingerprint[:12]} is empty; let the config hold rows out (`[data] holdout`), and tune on the "
            "dataset version that this makes"
        )
    again = loaded(retrained(plan, recorded))
    tolerance = TORCH_TOLERANCE if has_torch(registered) else 0.0
    differing, largest = difference(registered.scores(rows), again.scores(rows), tolerance)
    changes = origin.changes(recorded["environment"], origin.environment())
    return Reproduction(version.name, version.version, len(rows), differing, largest, tolerance, changes)


def lineage_of(model: str, version: int) -> ModelRecord:
    """The record of a version that says what it was made of.

    Raises:
        RegistryError: there is none.
    """
    found = record_of(model, version)
    if not is_known(found.lineage):
        raise RegistryError(
            f"what a version was made of must be on record, but that of {model} version {version} isn't: its files "
            f"were only trusted; `evertune models show {model} {version}` has its tags"
        )
    return found


def plan_of(recorded: Mapping[str, Any]) -> Plan:
    """The plan of the study that a version came from; the dataset version is that of its fingerprint.

    Raises:
        DataError: the objective's source isn't on record any more.
        RegistryError: the dataset version isn't, or a part of the record is of another version of Evertune.
    """
    if missing := [part for part in PARTS if part not in recorded]:
        raise RegistryError(_unusable(missing[0], "isn't there"))
    use_case, study = _part(UseCase, recorded, "config"), _part(StudySpec, recorded, "study")
    ref = _part(DatasetRef, recorded, "dataset")
    _part(TrialSummary, recorded, "trial")
    return Plan(
        use_case,
        study.variant,
        dataset=_on_record(ref),
        spec=study,
        objective=_objective(recorded["objective"]) if recorded["objective"] else None,
    )


def _part(kind: type[Part], recorded: Mapping[str, Any], name: str) -> Part:
    try:
        return kind.model_validate(recorded[name])
    except ValidationError as err:
        first = err.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RegistryError(_unusable(name, f"can't be read ({where}: {first['msg']})")) from err


def _unusable(part: str, why: str) -> str:
    return (
        f"a version is reproduced from all parts of its record, but its {part!r} {why}: another version of Evertune "
        "has made it; reproduce it with that one (`evertune models lineage` shows the commit)"
    )


def _on_record(ref: DatasetRef) -> DatasetRef:
    """The dataset version as it is now; its files may have been moved since."""
    known = [found for found in Ledger().datasets(ref.use_case) if found.fingerprint == ref.fingerprint]
    if not known:
        raise RegistryError(
            f"a version is reproduced from its dataset version, but {ref.fingerprint[:12]} of {ref.use_case} isn't on "
            "record any more; DataPrepFlow makes it again of the same rows: `python flows/data_prep/flow.py "
            f"--config use_case configs/{ref.use_case}.toml run`"
        )
    return known[0]


def retrained(plan: Plan, recorded: Mapping[str, Any]) -> Retrained:
    """The model, by the functions of the flow that made it, with as many threads as then."""
    best, threads = TrialSummary.model_validate(recorded["trial"]), recorded["threads"]
    if plan.variant == "system":
        return system.fitted(system.search_over(_members(recorded), plan, threads["folds"]), best, threads["model"])
    found = hpo.retrain(plan, best, threads["model"])
    assert found is not None, "what was registered has been trained"
    return found


def loaded(retrained: Retrained) -> System:
    """A retrained model as the registry would give it back."""
    from shared import model
    from shared.registry import graphs, pyfunc

    with tempfile.TemporaryDirectory() as folder:
        pyfunc.write_files(retrained.files, Path(folder))
        return model.load(folder, graphs.network)


def has_torch(system: System) -> bool:
    return any(hasattr(member.estimator, "state_dict") for member in system.members)


def difference(one: np.ndarray, other: np.ndarray, tolerance: float) -> tuple[int, float]:
    """How many rows of two predictions differ by more than a tolerance, and the largest difference.

    one, other: `(n_rows,)` or `(n_rows, n_classes)`.
    """
    import numpy as np

    apart = np.abs(one - other).reshape(len(one), -1).max(axis=1)
    return int((~(apart <= tolerance)).sum()), float(apart.max())


def _members(recorded: Mapping[str, Any]) -> dict[str, UpstreamMember]:
    """The members of a system, whose parameters are in the system's own trial."""
    from shared.training.system import UpstreamMember

    return {name: UpstreamMember(_objective(facts["objective"]), ()) for name, facts in recorded["upstream"].items()}


def _objective(source: Mapping[str, str]) -> Objective:
    from shared.tuning.objective import Objective

    return Objective.from_source(Ledger().source(source["hash"]), source["label"])
