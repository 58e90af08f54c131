"""Studies of several directions whose trials report one of their values, the guard, and are pruned by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.study import Study, StudyDirection
from optuna.trial import Trial

from shared.errors import ObjectiveError


def guarded(study: Study, metrics: Sequence[str], guard: str | None) -> Study:
    """The study, as a `GuardedStudy` if it has several directions; `metrics` name them, and `guard` is one of them."""
    if len(study.directions) == 1:
        return study
    return GuardedStudy(study, None if guard is None else metrics.index(guard))


def no_guard(n_directions: int) -> ObjectiveError:
    """What is told of a trial that reports, where no guard says which of its values."""
    return ObjectiveError(
        f"`trial.report` takes one value, but the trial has {n_directions}; say in the config which one it reports: "
        'metrics = ["accuracy", "size_mb"], guard = "accuracy"'
    )


class GuardedStudy(Study):
    """A study of several directions, whose `direction` is the guard's.

    The pruner sees it, and so does the sampler where it ranks pruned trials. guard: which of a trial's values it
    reports; None: it can't report, and isn't pruned.
    """

    def __init__(self, study: Study, guard: int | None) -> None:
        super().__init__(study.study_name, study._storage, study.sampler, study.pruner)
        self.guard = guard

    @property
    def direction(self) -> StudyDirection:
        return super().direction if self.guard is None else self.directions[self.guard]

    def ask(self, fixed_distributions: dict[str, Any] | None = None) -> optuna.Trial:
        trial = super().ask(fixed_distributions)
        trial.__class__ = GuardedTrial  # a new one would draw its parameters once more
        return trial


class GuardedTrial(Trial):
    """A trial of a `GuardedStudy`. Optuna's own refuses to report where there are several directions."""

    study: GuardedStudy

    def report(self, value: float, step: int) -> None:
        """Report the guard's value at a step; the first report of a step counts.

        Raises:
            ObjectiveError: the study has no guard.
            ValueError: the step is negative.
        """
        if self.study.guard is None:
            raise no_guard(len(self.study.directions))
        step = int(step)
        if step < 0:
            raise ValueError(f"a step is 0 or more, but is {step}")
        reported = self._cached_frozen_trial.intermediate_values
        if step not in reported:
            reported[step] = float(value)
            self.storage.set_trial_intermediate_value(self._trial_id, step, reported[step])

    def should_prune(self) -> bool:
        """Whether the study's pruner gives the trial up, by what it has reported; never without a guard."""
        return self.study.guard is not None and self.study.pruner.prune(self.study, self._get_latest_trial())
