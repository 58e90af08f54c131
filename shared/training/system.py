"""Tuning the system end to end, and fitting the trial that was picked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.domain import Direction, TrialSummary
from shared.errors import ConfigError, ObjectiveError
from shared.model import System
from shared.training import blend, threads
from shared.training.classical import signature
from shared.training.latency import median_ms
from shared.training.oof import Cache, Configuration, FoldScores, OutOfFold, preprocessings
from shared.training.scoring import check_metric, score
from shared.training.space import ATTRIBUTE, SystemChoice, SystemSpace, UpstreamMember

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

    from shared.domain import Dataset

__all__ = ["DIRECTIONS", "SystemSearch", "UpstreamMember"]

DIRECTIONS: tuple[Direction, ...] = ("maximize", "minimize")


class SystemSearch:
    """The objective of a system study: the metric out of fold, and the milliseconds that one raw row takes.

    The metric is the mean over the folds, so that a member alone has the value of its upstream study. Calibration is
    learned on the other folds. The latency is the sum of the members' and of blending and calibrating one row. Each is
    the median of repeated calls, and a member's is that of its fastest fold, since a busy machine only adds.

    A trial costs milliseconds while its members' configurations are known. A new one that falls behind the member's
    upstream best on the same folds is given up there, so that searching around a deep member costs a fold or two.

    Raises:
        ConfigError: there is no member, or the metric can't score this target.
        ObjectiveError: a member's objective can't be retrained.
    """

    def __init__(
        self,
        members: Mapping[str, UpstreamMember],
        data: Dataset,
        metric: str,
        latency_budget_ms: float,
        seed: int = 0,
        cache: Cache | None = None,
        threads_per_fold: int = 1,
    ) -> None:
        _check(members)
        check_metric(metric, data.ref.table)
        self.data = data
        self.metric = metric
        self.latency_budget_ms = latency_budget_ms
        self.seed = seed
        self.oof = OutOfFold(data, metric, seed, cache, threads_per_fold)
        table, n_rows = data.ref.table, sum(map(len, self.oof.y))
        before = {name: preprocessings(member.objective, data.X, table) for name, member in members.items()}
        self.space = SystemSpace(members, before, blend.calibrations(table, n_rows))

    def initial_trials(self) -> list[dict[str, Any]]:
        """Parameters to enqueue before the first trial."""
        return self.space.initial_trials()

    def evaluate(self, trial: BaseTrial) -> tuple[float, float]:
        """Metric (greater is better) and latency in ms per row; the latency above the budget is the trial's constraint.

        Raises:
            optuna.TrialPruned: a member's configuration falls behind its upstream best.
            ObjectiveError: a member's objective raised.
        """
        choice = self.space.suggest(trial)
        trial.set_user_attr(ATTRIBUTE, choice.model_dump(mode="json"))
        backwards = trial.number % 2 == 1  # workers that are after the same scores fit different folds first
        members = [self.oof.all(c, self._rival(c), backwards) for c in self._configurations(choice)]
        latency_ms = self._latency_ms(choice, members)
        trial.set_constraint("latency_ms", latency_ms - self.latency_budget_ms)
        return self._metric(choice, members), latency_ms

    def retrain(self, trial: TrialSummary, n_threads: int = 1) -> System:
        """The system of a finished trial: its members fitted on all rows, its calibrator on their out-of-fold blend.

        n_threads: that the members are fitted with; folds have as many as in the search, or others' last digits.
        """
        choice = SystemChoice.of(trial)
        configurations = self._configurations(choice)
        learns = choice.calibration != "none"
        calibrator = self._calibrator(choice, [self.oof.all(c) for c in configurations]) if learns else None
        threads.limit(n_threads)
        members = tuple(c.fit(self.data, seed=self.seed) for c in configurations)
        return System(signature(self.data.ref.table), members, choice.weights, calibrator)

    def _configurations(self, choice: SystemChoice) -> list[Configuration]:
        return [self._configuration(choice, name) for name in choice.members]

    def _configuration(self, choice: SystemChoice, name: str) -> Configuration:
        member, objective = choice.members[name], self.space.members[name].objective
        suits = choice.preprocessing in self.space.preprocessings[name]
        before = choice.preprocessing if suits else "none"
        return Configuration(name, objective, member.params, before, member.best_epoch)

    def _rival(self, configuration: Configuration) -> Configuration:
        """The member as its upstream study left it."""
        best = self.space.members[configuration.name].best
        epochs = best.user_attrs.get("best_epoch")
        return replace(configuration, params=best.params, preprocessing="none", best_epoch=epochs)

    def _metric(self, choice: SystemChoice, members: Sequence[Sequence[FoldScores]]) -> float:
        y, blended = self.oof.y, _blended(choice, members)
        calibrated = blend.cross_calibrate(choice.calibration, blended, y)
        return fmean(score(self.metric, self.data.ref.table, *pair) for pair in zip(y, calibrated, strict=True))

    def _latency_ms(self, choice: SystemChoice, members: Sequence[Sequence[FoldScores]]) -> float:
        calibrator = self._calibrator(choice, members)

        def finish(row: list[np.ndarray]) -> np.ndarray:
            return blend.calibrate(calibrator, blend.blend(choice.weights, row))

        members_ms = sum(min(fold.latency_ms for fold in folds) for folds in members)
        return members_ms + median_ms(finish, [[folds[0].scores[:1] for folds in members]] * 20)

    def _calibrator(self, choice: SystemChoice, members: Sequence[Sequence[FoldScores]]) -> Any:
        rows = np.concatenate(_blended(choice, members))
        return blend.fit_calibrator(choice.calibration, rows, np.concatenate(self.oof.y))


def _blended(choice: SystemChoice, members: Sequence[Sequence[FoldScores]]) -> list[np.ndarray]:
    """The blended scores of each fold."""
    return [blend.blend(choice.weights, [f.scores for f in folds]) for folds in zip(*members, strict=True)]


def _check(members: Mapping[str, UpstreamMember]) -> None:
    if not members:
        raise ConfigError("a system needs at least one member, but has none; add a table [classical] or [deep]")
    for name, member in members.items():
        if not member.objective.trains:
            raise ObjectiveError(
                f"{member.objective.label}: a member of a system must be trainable, but {name!r} defines only "
                "`objective`; add `train(trial, data)`, or leave [system] out of the config"
            )
