"""What a run of a flow that tunes has to do: a study, or the reason why there is nothing to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from shared.config import UseCase
from shared.domain import DatasetRef, EarlierStudy, StudySpec, TrialSummary, TuningResult, Variant

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from shared.storage.ledger import Ledger, LedgerEntry
    from shared.tuning.objective import Objective

EARLIER_STUDIES = 3
OWN_VALUE = "value"


@dataclass(frozen=True)
class Plan:
    """The study that is due, or in `idle` why none is.

    why: it is due. objective: that of an HPO study. upstream: the study of each member of a system. wanted: workers, as
    the config says.
    """

    use_case: UseCase
    variant: Variant
    idle: str = ""
    dataset: DatasetRef | None = None
    spec: StudySpec | None = None
    objective: Objective | None = None
    upstream: Mapping[str, LedgerEntry] = field(default_factory=dict)
    wanted: Literal["auto"] | int = 1
    why: str = ""

    @property
    def workers(self) -> int:
        """How many tasks run trials; one that passes through where nothing is due."""
        from shared.training import threads

        return 1 if self.idle else threads.workers(self.wanted, self.study.n_trials)

    @property
    def threads(self) -> int:
        """That the final model is fitted with: all cores."""
        from shared.training import threads

        return threads.cores()

    @property
    def threads_per_fold(self) -> int:
        """That a fold is fitted with: as many as a worker has, wherever it is fitted."""
        from shared.training import threads

        return threads.share(self.workers)

    @property
    def headline(self) -> str:
        """One line for the log."""
        return self.idle or f"study {self.study.name}: {self.study.n_trials} trials, {self.workers} workers"

    @property
    def tags(self) -> list[str]:
        """Tags of the run: what it is about, and whether it had something to do."""
        study = [f"study:{self.spec.name}"] if self.spec else []
        return [use_case_tag(self.use_case), *study, *(["idle"] if self.idle else [])]

    @property
    def metric(self) -> str:
        """What a trial's first value is called: the config's metric, unless the objective scores itself."""
        return metric_of(self.use_case, self.objective, self.study.metrics)

    @property
    def study(self) -> StudySpec:
        assert self.spec is not None, self.idle
        return self.spec

    @property
    def code(self) -> Objective:
        assert self.objective is not None, self.variant
        return self.objective

    @property
    def data(self) -> DatasetRef:
        assert self.dataset is not None, self.idle
        return self.dataset


@dataclass(frozen=True)
class Retrained:
    """A model trained on all development rows, as native files, and when it was trained.

    example: a few raw rows `(n_rows, n_features)`; predictions: the model's for them, `(n_rows,)`.
    """

    files: Mapping[str, bytes]
    example: pd.DataFrame
    predictions: np.ndarray
    began: datetime
    ended: datetime


def metric_of(use_case: UseCase, objective: Objective | None, own: Sequence[str] = ()) -> str:
    """What a trial's first value is called. own: names of the values of an objective that scores itself."""
    return (*own, OWN_VALUE)[0] if scores_itself(objective) else use_case.tuning.metric


def scores_itself(objective: Objective | None) -> bool:
    """Whether the values are the objective's own, not the config's metric."""
    return objective is not None and objective.kind != "build"


def use_case_tag(use_case: UseCase) -> str:
    """Tag of all runs of a use case: run by hand, they may share a Metaflow project with those of others."""
    return f"use_case:{use_case.name}"


def idle_reason(spec: StudySpec, entry: LedgerEntry | None) -> str:
    """Why a study isn't due: it is done with this budget. Empty where it is due."""
    if entry is None or entry.state != "done" or spec.n_trials > int(entry.outcome["budget"]):
        return ""
    trial, metric, value = (entry.outcome[key] for key in ("trial", "metric", "value"))
    shown = f"{value:.6g}" if isinstance(value, float) else value
    return f"nothing changed: {spec.name} is done, trial {trial} has {metric} {shown} ({entry.run})"


def why_due(spec: StudySpec, entry: LedgerEntry | None) -> str:
    """Why a study is due, for one who wonders."""
    if entry is None:
        return "no run has asked for it yet"
    if entry.state == "done":
        return f"{spec.n_trials} trials are asked for, and it is done with {entry.outcome['budget']}"
    if entry.state == "failed":
        return f"{entry.run} failed: {entry.note}"
    rest = "its result is recorded, and has to be published" if entry.recorded else "it isn't done"
    return entry.note or f"{entry.run} is at it, or has died: {rest}"


def extended(spec: StudySpec, entry: LedgerEntry | None, *, continues: bool) -> StudySpec:
    """The budget of a study that was done before: what it had, unless more was asked for since.

    spec: as the config asks for it. continues: it is to have `n_trials` more, since its data was found unchanged.
    """
    if entry is None or not entry.outcome:
        return spec
    budget = int(entry.outcome["budget"])
    if continues:
        budget += spec.n_trials
    elif spec.n_trials > int(entry.outcome.get("asked", budget)):
        budget = max(budget, spec.n_trials)
    return spec.model_copy(update={"n_trials": budget})


def continues(use_case: UseCase, entry: LedgerEntry | None, seen_at: datetime | None) -> bool:
    """Whether the config wants trials added now: its data was seen, unchanged, since the study was finished.

    So each look at the data adds its budget once, however often the event of it is delivered.
    """
    if use_case.schedule.when_unchanged != "continue" or entry is None or entry.finished_at is None:
        return False
    return seen_at is not None and entry.finished_at < seen_at


def warm_started(
    spec: StudySpec, use_case: UseCase, earlier: Sequence[EarlierStudy], entry: LedgerEntry | None
) -> StudySpec:
    """A study with earlier ones to learn from. By the same objective it is smaller, and may stop early.

    entry: the study's own, which goes on with the budget that it had if it was done before.
    """
    update: dict[str, object] = {"earlier": tuple(earlier)}
    if any(study.same_objective for study in earlier) and not (entry and entry.outcome):
        update |= {
            "n_trials": min(spec.n_trials, use_case.retune.warm_trials),
            "patience": use_case.retune.patience,
            "terminator": use_case.retune.terminator,
        }
    return spec.model_copy(update=update)


def newest_done(entries: Sequence[LedgerEntry]) -> dict[Variant, LedgerEntry]:
    """The finished study of each variant that was asked for last, in the order of the chain."""
    return newest_asked([entry for entry in entries if entry.state == "done"])


def newest_asked(entries: Sequence[LedgerEntry]) -> dict[Variant, LedgerEntry]:
    """The study of each variant that was asked for last, in the order of the chain.

    A run that finds its study done says so in the ledger, so that going back to an earlier objective counts.
    """
    last = {entry.variant: entry for entry in sorted(entries, key=lambda entry: entry.asked_at)}
    return dict(sorted(last.items()))  # classical, deep, system


def earlier_studies(entries: Sequence[LedgerEntry], spec: StudySpec, metric: str) -> list[EarlierStudy]:
    """The finished studies of the variant that a study may learn from, by the same metric and directions.

    Those of the same objective first, which differ by their data alone; then those from before it was edited. Of each
    the newest first.
    """
    asked = {"metric": metric, "directions": list(spec.directions)}
    found = [
        entry
        for entry in sorted(entries, key=lambda entry: entry.asked_at, reverse=True)
        if entry.outcome  # also of one that goes on
        and entry.variant == spec.variant
        and entry.study != spec.name
        and (_question(entry.study) == _question(spec.name) or asked.items() <= entry.outcome.items())
    ]
    studies = [
        EarlierStudy(
            study=entry.study,
            fingerprint=entry.fingerprint,
            same_objective=_question(entry.study) == _question(spec.name),
            top=top_trials(entry),
        )
        for entry in found
    ]
    return sorted(studies, key=lambda study: not study.same_objective)[:EARLIER_STUDIES]


def _question(study: str) -> str:
    """The part of a study's name that says objective, metric, directions and folds."""
    return study.rpartition("/")[2]


def top_trials(entry: LedgerEntry) -> tuple[TrialSummary, ...]:
    """The best trials of distinct parameters of a finished study, best first."""
    return tuple(TrialSummary.model_validate(trial) for trial in entry.outcome["top"])


def outcome(plan: Plan, result: TuningResult, retrained: Retrained | None) -> dict[str, object]:
    """What the ledger remembers of a finished study; later studies and the system start from its `top` trials."""
    return {
        "trial": result.best.number,
        "value": result.best.values[0],
        "metric": plan.metric,
        "directions": list(plan.study.directions),
        "scores_itself": scores_itself(plan.objective),
        "budget": plan.study.n_trials,
        "asked": getattr(plan.use_case, plan.variant).n_trials,
        "counts": dict(result.counts),
        "top": [trial.model_dump(mode="json") for trial in result.top],
        "objective": plan.objective.label if plan.objective else None,
        "objective_hash": plan.study.objective_hash,
        "note": result.note,
        "retrained": [t.isoformat() for t in (retrained.began, retrained.ended)] if retrained else None,
    }


def begun(plan: Plan, ledger: Ledger, run: str) -> Plan:
    """The plan, after the ledger knows that this run is at its study; idle where another one has done it by now."""
    study = plan.study
    entry = ledger.begin(study.name, study.use_case, study.variant, study.fingerprint, budget=study.n_trials, run=run)
    return replace(plan, idle=idle_reason(study, entry))
