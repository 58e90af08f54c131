"""A pruner that spares the database."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

from optuna.pruners import BasePruner

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, TrialState


class OncePerTrial(BasePruner):
    """Judges a trial by the other trials as they were at its first report, so that they are read once.

    Optuna's pruners read them again at each report, which for trials of a few milliseconds is most of their time.
    With one worker the judgment is the same; with several, it misses what finishes while the trial runs. Use it for
    short trials. `pruner` may only ask the study for its trials and direction.
    """

    def __init__(self, pruner: BasePruner) -> None:
        self.pruner = pruner
        self._trial_id = -1
        self._snapshot: Any = None

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        if trial._trial_id != self._trial_id:
            self._trial_id, self._snapshot = trial._trial_id, _Snapshot(study)
        return self.pruner.prune(self._snapshot, trial)


class _Snapshot:
    def __init__(self, study: optuna.Study) -> None:
        self.direction = study.direction
        self._trials = study.get_trials(deepcopy=False)

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> Sequence[FrozenTrial]:
        del deepcopy  # the pruner doesn't change them
        return [trial for trial in self._trials if states is None or trial.state in states]
