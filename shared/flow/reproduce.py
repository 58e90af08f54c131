"""A registered model, trained once more from what is on record of it alone, beside the one that was registered."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.config import UseCase
from shared.domain import DatasetRef, ModelVersion, StudySpec, TrialSummary
from shared.errors import RegistryError
from shared.flow import hpo, origin, system
from shared.flow.plan import Plan, Retrained
from shared.storage import records
from shared.storage.ledger import Ledger

if TYPE_CHECKING:
    import numpy as np

    from shared.model import System
    from shared.storage.records import ModelRecord
    from shared.training.system import UpstreamMember
    from shared.tuning.objective import Objective

TORCH_TOLERANCE = 1e-6


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
        DataError: its dataset version or its objective's source is gone, or was changed.
        RegistryError: what it was made of isn't on record.
        UnloadableModelError: its files aren't those that were registered.
    """
    from shared.data.store import load_dataset
    from shared.registry import client

    recorded = lineage_of(version.name, version.version).lineage
    registered = client.load_version(version)
    plan = plan_of(recorded)
    again = loaded(retrained(plan, recorded))
    rows = load_dataset(plan.data, "holdout").X
    tolerance = TORCH_TOLERANCE if has_torch(registered) else 0.0
    differing, largest = difference(registered.scores(rows), again.scores(rows), tolerance)
    changes = origin.changes(recorded["environment"], origin.environment())
    return Reproduction(version.name, version.version, len(rows), differing, largest, tolerance, changes)


def lineage_of(model: str, version: int) -> ModelRecord:
    """The record of a version that says what it was made of.

    Raises:
        RegistryError: there is none.
    """
    found = records.find(model, version)
    if found is None or not found.lineage:
        raise RegistryError(
            f"what a version was made of must be on record, but that of {model} version {version} isn't: it was "
            f"registered before there were records, or elsewhere; `evertune models show {model} {version}` has its tags"
        )
    return found


def plan_of(recorded: Mapping[str, Any]) -> Plan:
    """The plan of the study that a version came from; the dataset version is that of its fingerprint.

    Raises:
        DataError: the dataset version or the objective's source isn't on record any more.
    """
    use_case, study = UseCase.model_validate(recorded["config"]), StudySpec.model_validate(recorded["study"])
    ref = DatasetRef.model_validate(recorded["dataset"])
    return Plan(
        use_case,
        study.variant,
        dataset=Ledger().dataset(use_case.name, ref.fingerprint),
        spec=study,
        objective=_objective(recorded["objective"]) if recorded["objective"] else None,
    )


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

    with tempfile.TemporaryDirectory() as folder:
        for name, content in retrained.files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return model.load(folder)


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
