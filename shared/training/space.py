"""What a system trial chooses: which members, how they are preprocessed, set, blended and calibrated.

Most of it is a short list, so that trials meet again what is cached: a member's parameters are its upstream study's
best, second or third, or, fitted anew each time, searched around the best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from shared.domain import Frozen, TrialSummary
from shared.training import blend
from shared.training.blend import Calibration
from shared.training.neighborhood import Neighborhood
from shared.training.oof import Preprocessing, explained

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

    from shared.tuning.objective import Objective

T = TypeVar("T", bound=str)
Origin = Literal["best", "second", "third", "around"]
KNOWN: tuple[Origin, ...] = ("best", "second", "third")
RADIUS = 0.15  # of a parameter's range, on both sides of the upstream best
SHARES = (0.05, 0.95)  # a smaller weight isn't worth a member's latency
ATTRIBUTE = "system"


@dataclass(frozen=True)
class UpstreamMember:
    """What an HPO study hands on: its objective, and its best trials of distinct parameters (`top`), best first."""

    objective: Objective
    top: Sequence[TrialSummary]

    @property
    def best(self) -> TrialSummary:
        return self.top[0]

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Where the parameters can be from. Only `build(trial)` can be asked to suggest without training."""
        return (*KNOWN, "around") if self.objective.kind == "build" else KNOWN

    def ranked(self, origin: Origin) -> TrialSummary:
        """The upstream trial of a rank, or the last one there is; for "around" it is the best."""
        rank = 0 if origin == "around" else KNOWN.index(origin)
        return self.top[min(rank, len(self.top) - 1)]


class MemberChoice(Frozen):
    """A member of a system trial: its weight in the blend, its full parameters, and where they are from."""

    weight: float
    origin: Origin
    params: Mapping[str, Any]
    best_epoch: int | None = None


class SystemChoice(Frozen):
    """All that a system trial chose: kept on the trial, enough to retrain it whatever becomes of the upstream study.

    preprocessing: of the members that it suits; the others take raw rows.
    """

    members: Mapping[str, MemberChoice]
    preprocessing: Preprocessing
    calibration: Calibration

    @classmethod
    def of(cls, trial: TrialSummary) -> SystemChoice:
        return cls.model_validate(trial.user_attrs[ATTRIBUTE])

    @property
    def weights(self) -> tuple[float, ...]:
        return tuple(member.weight for member in self.members.values())


@dataclass(frozen=True)
class SystemSpace:
    """The search space of a system. An option with one choice is no parameter of the study.

    preprocessings: those that suit each member, "none" first; a member has the whole list or none of it.
    """

    members: Mapping[str, UpstreamMember]
    preprocessings: Mapping[str, Sequence[Preprocessing]]
    calibrations: Sequence[Calibration] = ("none",)

    @property
    def combinations(self) -> tuple[str, ...]:
        """Every member alone, and all together."""
        return (*self.members, *(["+".join(self.members)] if len(self.members) > 1 else []))

    def initial_trials(self) -> list[dict[str, Any]]:
        """Parameters to try first, all at the upstream best: each member alone, then the equal blend; and calibrated.

        The last member comes first, since it is the deep one: its folds take longest, and all later trials need them.
        """
        names, calibrated = tuple(self.members), self.calibrations[1:2]
        alone = [self._start((name,), "none") for name in reversed(names)]
        together = [self._start(names, c) for c in ("none", *calibrated)] if len(names) > 1 else []
        return [*alone, *(self._start(names[:1], c) for c in calibrated), *together]

    def suggest(self, trial: BaseTrial) -> SystemChoice:
        """What the trial chooses, all of it before anything is fitted.

        Raises:
            ObjectiveError: a member's `build(trial)` or `fit_plan(trial)` raised.
        """
        names = _choose(trial, "members", self.combinations).split("+")
        preprocessing = _choose(trial, "preprocessing", self._suiting(names))
        calibration = _choose(trial, "calibration", self.calibrations)
        weights = blend.weights([trial.suggest_float(f"share.{name}", *SHARES) for name in names[:-1]])
        members = {name: self._member(trial, name, weight) for name, weight in zip(names, weights, strict=True)}
        return SystemChoice(members=members, preprocessing=preprocessing, calibration=calibration)

    def _suiting(self, names: Sequence[str]) -> Sequence[Preprocessing]:
        return max((self.preprocessings[name] for name in names), key=len)

    def _member(self, trial: BaseTrial, name: str, weight: float) -> MemberChoice:
        member = self.members[name]
        origin = _choose(trial, f"hyperparameters.{name}", member.origins)
        upstream = member.ranked(origin)
        return MemberChoice(
            weight=weight,
            origin=origin,
            params=_around(trial, name, member) if origin == "around" else upstream.params,
            best_epoch=upstream.user_attrs.get("best_epoch"),
        )

    def _start(self, names: Sequence[str], calibration: Calibration) -> dict[str, Any]:
        options: dict[str, tuple[str, Sequence[str]]] = {
            "members": ("+".join(names), self.combinations),
            "preprocessing": ("none", self._suiting(names)),
            "calibration": (calibration, self.calibrations),
        }
        return {
            **{option: choice for option, (choice, choices) in options.items() if len(choices) > 1},
            **{f"share.{name}": 1 / (len(names) - i) for i, name in enumerate(names[:-1])},
            **{f"hyperparameters.{name}": "best" for name in names},
        }


def _around(trial: BaseTrial, name: str, member: UpstreamMember) -> dict[str, Any]:
    near = Neighborhood(trial, f"{name}.", member.best.params, RADIUS)
    with explained(member.objective, name, member.best.params):
        member.objective.build(near)
        if member.objective.deep:
            member.objective.fit_plan(near)
    return near.params


def _choose(trial: BaseTrial, name: str, choices: Sequence[T]) -> T:
    return choices[0] if len(choices) == 1 else cast(T, trial.suggest_categorical(name, choices))
