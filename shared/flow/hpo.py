"""What the steps of an HPO flow do: plan, tune, select, retrain, register. The flows only say in which order."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.config import UseCase, VariantConfig
from shared.domain import DatasetRef, ModelVersion, StudySpec, TrialSummary, TuningResult, Variant
from shared.errors import DataError, StudyFailed
from shared.storage.ledger import Ledger, LedgerEntry
from shared.tuning.objective import Objective

if TYPE_CHECKING:
    from shared.tuning.worker import WorkerStats

logger = logging.getLogger(__name__)

WARM_STARTS = 5


@dataclass(frozen=True)
class Plan:
    """What a run has to do: a study to tune, or the reason why there is nothing to do."""

    use_case: UseCase
    variant: Variant
    idle: str = ""
    dataset: DatasetRef | None = None
    spec: StudySpec | None = None
    objective_label: str = ""
    workers: int = 1
    threads: int = 1
    tags: tuple[str, ...] = field(default=())

    @property
    def due(self) -> bool:
        return not self.idle

    @property
    def study(self) -> StudySpec:
        assert self.spec is not None, self.idle
        return self.spec

    @property
    def data(self) -> DatasetRef:
        assert self.dataset is not None, self.idle
        return self.dataset


def plan(
    use_case: UseCase, variant: Variant, *, folder: Path, dataset: str = "latest", force: bool = False, run: str = ""
) -> Plan:
    """The study that is due on a dataset version, or why none is.

    folder: the flow's, where the objective's path starts. dataset: `latest`, or the beginning of a fingerprint.

    Raises:
        DataError: there is no such dataset version.
        ObjectiveError: the objective file breaks the contract.
    """
    config: VariantConfig | None = getattr(use_case, variant)
    if config is None:
        return Plan(use_case, variant, idle=f"configs/{use_case.name}.toml has no table [{variant}]")
    from shared.training import threads
    from shared.tuning.study import study_spec

    ledger = Ledger()
    ref = find_dataset(ledger, use_case.name, dataset)
    objective = Objective.load(folder / config.objective)
    spec = study_spec(use_case, variant, ref, objective)
    entry = ledger.entry(spec.name)
    if force and entry:
        forget_study(spec.name)
        ledger.reopen(spec.name)
        entry = ledger.entry(spec.name)
    spec = retuned(spec, use_case, earlier_studies(ledger, spec), entry)
    if reason := nothing_due(spec, entry):
        return Plan(use_case, variant, idle=reason, dataset=ref, spec=spec)
    ledger.save_source(objective.source)
    ledger.open_study(spec.name, use_case.name, variant, ref.fingerprint)
    if entry and entry.state == "done":
        ledger.reopen(spec.name)
    ledger.claim(spec.name, run)
    workers = min(threads.workers(config.workers), spec.n_trials)
    return Plan(use_case, variant, "", ref, spec, objective.label, workers, threads.share(workers))


def find_dataset(ledger: Ledger, use_case: str, dataset: str) -> DatasetRef:
    """The newest dataset version, or that of a fingerprint."""
    if dataset != "latest":
        return ledger.dataset(use_case, dataset)
    ref = ledger.newest_dataset(use_case)
    if ref is None:
        raise DataError(
            f"a study needs a dataset version, but {use_case!r} has none on record; run `evertune run {use_case}`, or "
            f"`python flows/data_prep/flow.py --config use_case configs/{use_case}.toml run` first"
        )
    return ref


def nothing_due(spec: StudySpec, entry: LedgerEntry | None) -> str:
    """Why a study isn't due: it is done with this budget or a larger one. Empty where it is due."""
    if entry is None or entry.state != "done" or spec.n_trials > int(entry.outcome.get("budget", 0)):
        return ""
    return (
        f"unchanged: study {spec.name} is done by {entry.run} "
        f"(trial {entry.outcome.get('trial')}, value {entry.outcome.get('value'):.6g})"
    )


def retuned(
    spec: StudySpec, use_case: UseCase, earlier: Sequence[LedgerEntry], entry: LedgerEntry | None
) -> StudySpec:
    """The study's budget and first trials, given what was tuned before.

    A study that is done gets more trials if the schedule says `continue`. A new one of a variant that was tuned on an
    earlier dataset version starts from that study's best trials, with the smaller budget `retune.warm_trials`.
    """
    if entry and entry.state == "done":
        done = int(entry.outcome.get("budget", 0))
        more = use_case.schedule.when_unchanged == "continue"
        return spec.model_copy(update={"n_trials": done + spec.n_trials}) if more else spec
    if not earlier:
        return spec
    update = {
        "warm_starts": tuple(trial.params for trial in top_trials(earlier[0])[:WARM_STARTS]),
        "n_trials": min(spec.n_trials, use_case.retune.warm_trials),
        "patience": use_case.retune.patience,
    }
    return spec.model_copy(update=update)


def earlier_studies(ledger: Ledger, spec: StudySpec) -> list[LedgerEntry]:
    """Finished studies of the same objective on other dataset versions, newest first."""
    entries = [
        e
        for e in ledger.entries(spec.use_case)
        if e.variant == spec.variant
        and e.state == "done"
        and e.study != spec.name
        and e.outcome.get("objective_hash") == spec.objective_hash
    ]
    return sorted(entries, key=lambda e: e.updated_at, reverse=True)


def top_trials(entry: LedgerEntry) -> tuple[TrialSummary, ...]:
    """The best trials of distinct parameters of a finished study, best first."""
    return tuple(TrialSummary.model_validate(trial) for trial in entry.outcome.get("top", ()))


def forget_study(name: str) -> None:
    """Delete a study's trials and slots: `--force` starts anew."""
    from shared.storage.studies import delete_study

    delete_study(name)


def load_objective(plan: Plan) -> Objective:
    """The objective of a plan, from the source that the ledger keeps."""
    return Objective.from_source(Ledger().source(plan.study.objective_hash), plan.objective_label)


def tune(plan: Plan, worker: int) -> WorkerStats:
    """Run trials in this process until the study's budget is full."""
    from shared.training import threads

    threads.limit(plan.threads)
    from shared.data.store import load_dataset
    from shared.training.evaluate import evaluator
    from shared.tuning.worker import run_worker

    evaluate = evaluator(load_objective(plan), load_dataset(plan.data), plan.use_case.tuning.metric, plan.study.seed)
    return run_worker(plan.study, evaluate, worker=worker)


def select(plan: Plan, stats: Sequence[WorkerStats]) -> TuningResult:
    """The best finished trial. A study with none is recorded as failed.

    Raises:
        StudyFailed: no trial finished.
    """
    from shared.tuning.select import select as select_best

    try:
        return select_best(plan.study, stats=stats)
    except StudyFailed as err:
        Ledger().fail(plan.study.name, note=str(err), run="")
        raise


def retrain(plan: Plan, result: TuningResult) -> dict[str, bytes] | None:
    """The best trial, trained on all development rows, as native files; None where the objective has no `train`."""
    objective = load_objective(plan)
    if not objective.trains:
        return None
    from shared.training import threads

    threads.limit(threads.cores())
    from shared import model
    from shared.data.store import load_dataset
    from shared.training.evaluate import retrain as retrain_best

    best = result.best
    system = retrain_best(objective, best.params, load_dataset(plan.data), best.user_attrs, plan.study.seed + best.number)
    return model.save(system)


def register(plan: Plan, result: TuningResult, files: dict[str, bytes] | None, run: str) -> ModelVersion | None:
    """Register the retrained model as challenger of `<use_case>-<variant>`, and record the study as done."""
    version = _register(plan, result, files, run) if files else None
    Ledger().finish(plan.study.name, outcome=outcome(plan, result, version), run=run)
    logger.info("study finished", extra={"study": plan.study.name, "trial": result.best.number})
    return version


def _register(plan: Plan, result: TuningResult, files: dict[str, bytes], run: str) -> ModelVersion:
    from shared.data.store import load_dataset
    from shared.registry import client
    from shared.registry.lineage import lineage

    best = result.best
    return client.register(
        f"{plan.use_case.name}-{plan.variant}",
        files,
        use_case=plan.use_case.name,
        example=load_dataset(plan.data).X.head(3),
        metrics={plan.use_case.tuning.metric: best.values[0], "trials": float(sum(result.counts.values()))},
        params=best.params,
        lineage=lineage(dataset=plan.data, runs={plan.variant: run}, study=plan.study.name, trial=best.number),
        alias="challenger",
    )


def outcome(plan: Plan, result: TuningResult, version: ModelVersion | None) -> dict[str, Any]:
    """What the ledger remembers of a finished study; later studies and the system start from its `top` trials."""
    return {
        "trial": result.best.number,
        "value": result.best.values[0],
        "params": dict(result.best.params),
        "metric": plan.use_case.tuning.metric,
        "budget": plan.study.n_trials,
        "counts": dict(result.counts),
        "top": [trial.model_dump(mode="json") for trial in result.top],
        "objective_hash": plan.study.objective_hash,
        "objective": plan.objective_label,
        "model": version.name if version else None,
        "version": version.version if version else None,
        "note": result.note,
    }


def describe(best: TrialSummary, metric: str) -> str:
    """One line for the log: `trial 17: neg_log_loss -0.0412`."""
    return f"trial {best.number}: {metric} {best.values[0]:.6g}"
