"""What the steps of `SystemTuneFlow` do: plan, tune, select, promote."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from shared.config import SystemConfig, UseCase
from shared.domain import DatasetRef, StudySpec, TrialSummary, TuningResult, model_name
from shared.errors import FlowError, RegistryError, ServiceError
from shared.flow import hpo
from shared.flow.gate import Gated, gated
from shared.flow.plan import (
    OWN_VALUE,
    Plan,
    Retrained,
    begun,
    continues,
    extended,
    idle_reason,
    newest_asked,
    top_trials,
    why_due,
)
from shared.storage.ledger import Ledger, LedgerEntry

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from shared.training.system import SystemSearch, UpstreamMember
    from shared.tuning.worker import Evaluate, WorkerStats

logger = logging.getLogger(__name__)

TOP = 3
LATENCY = "latency_ms"


def plan(use_case: UseCase, dataset: str = "latest", *, force: bool = False, run: str) -> Plan:
    """What `due` says, and what is due is begun by this run. force: what the study has is forgotten.

    Raises:
        FlowError: no dataset version has all configured variants done.
        ServiceError: the system couldn't be registered, since MLflow can't be reached.
    """
    _notice_champion(use_case.name)
    found = due(use_case, dataset, force=force)
    if found.idle:
        return hpo.confirmed(found)
    hpo.check_registry()
    if force:
        hpo.start_anew(found.study.name)
    return begun(found, Ledger(), run)


def _notice_champion(name: str) -> None:
    """Also where nothing is due, log what somebody has moved in the registry since the last night."""
    from shared.registry import promotion

    try:
        promotion.log_champion(name)
    except (RegistryError, ServiceError) as err:  # whoever needs the registry says so
        logger.warning("the champion can't be looked up", extra={"model": name, "reason": str(err)})


def due(use_case: UseCase, dataset: str = "latest", *, force: bool = False) -> Plan:
    """The system study that is due on the newest dataset version whose variants are all done, or why none is.

    Raises:
        DataError: the gate needs columns that the rows don't have.
        FlowError: no dataset version has all configured variants done.
    """
    from shared.data.validate import check_promotion

    config = use_case.system
    if config is None:
        return Plan(use_case, "system", idle=f"configs/{use_case.name}.toml has no table [system]")
    ledger, name = Ledger(), use_case.name
    refs, entries = ledger.datasets(name), ledger.entries(name)
    ref = newest_complete(refs, entries, use_case) if dataset == "latest" else ledger.dataset(name, dataset)
    upstream = upstream_studies(on(ref, entries), use_case) if ref else {}
    if ref is None or not upstream.keys() >= set(use_case.members):
        if refs and dataset == "latest" and any(e.variant == "system" and e.state == "done" for e in entries):
            return Plan(use_case, "system", idle=incomplete(refs[0], entries, use_case))
        lacking = incomplete(ref, entries, use_case)
        raise FlowError(f"{lacking}; run `evertune run {name}`, or the flows of these variants")
    check_promotion(use_case, ref.table.features)
    spec = study_spec(use_case, config, ref, upstream)
    entry = None if force else ledger.entry(spec.name)
    spec = extended(spec, entry, continues=continues(use_case, entry, ledger.seen_at(ref)))
    idle, why = idle_reason(spec, entry), why_due(spec, entry)
    return Plan(use_case, "system", idle, ref, spec, upstream=upstream, wanted=config.workers, why=why)


def newest_complete(refs: Sequence[DatasetRef], entries: Sequence[LedgerEntry], use_case: UseCase) -> DatasetRef | None:
    """The newest dataset version on which all configured variants are done; none that is older than a tuned system's.

    refs: newest first.
    """
    for ref in refs:
        here = on(ref, entries)
        if upstream_studies(here, use_case).keys() >= set(use_case.members):
            return ref
        if any(entry.variant == "system" and entry.state == "done" for entry in here):
            return None
    return None


def on(ref: DatasetRef, entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """The studies on a dataset version."""
    return [entry for entry in entries if entry.fingerprint == ref.fingerprint]


def incomplete(ref: DatasetRef | None, entries: Sequence[LedgerEntry], use_case: UseCase) -> str:
    """What a dataset version lacks, for its system to be tuned."""
    lacks = "there is none yet"
    if ref:
        lacking = set(use_case.members) - upstream_studies(on(ref, entries), use_case).keys()
        lacks = f"{ref.fingerprint[:12]} lacks {', '.join(sorted(lacking))}"
    members = ", ".join(use_case.members)
    return f"a system is tuned on a dataset version whose variants ({members}) are all done, but {lacks}"


def upstream_studies(entries: Sequence[LedgerEntry], use_case: UseCase) -> dict[str, LedgerEntry]:
    """The study of each member that was asked for last, where it is done; some may have none.

    One that is done by another metric than that of now answers another question, and doesn't count.
    """
    comparable = (use_case.tuning.metric, OWN_VALUE)
    newest = newest_asked(
        [
            e
            for e in entries
            if e.state != "done" or e.outcome.get("scores_itself") or e.outcome.get("metric") in comparable
        ]
    )
    return {name: newest[name] for name in use_case.members if name in newest and newest[name].state == "done"}


def study_spec(
    use_case: UseCase, config: SystemConfig, ref: DatasetRef, upstream: Mapping[str, LedgerEntry]
) -> StudySpec:
    """The system's study: another upstream study, upstream best, metric or latency budget makes it another one."""
    upstreams = [(member, entry.study, best_params(entry)) for member, entry in upstream.items()]
    identity = [use_case.tuning.metric, config.latency_budget_ms, *upstreams]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
    return StudySpec(
        name=f"{use_case.name}/system/{ref.fingerprint[:12]}/{digest[:8]}",
        use_case=use_case.name,
        variant="system",
        fingerprint=ref.fingerprint,
        objective_hash=digest,
        directions=("maximize", "minimize"),
        n_trials=config.n_trials,
        seed=use_case.tuning.seed,
        timeout_s=config.timeout_s,
        trial_timeout_s=config.trial_timeout_s,
        max_failures=config.max_failures,
        since=datetime.now(UTC),
    )


def best_params(entry: LedgerEntry) -> list[dict[str, Any]]:
    """Parameters of the trials that a system may take a member's from."""
    return [dict(trial.params) for trial in top_trials(entry)[:TOP]]


@dataclass(frozen=True)
class BlobCache:
    """Out-of-fold scores, kept beside the dataset version and shared by all workers."""

    ref: DatasetRef

    def get(self, key: str) -> bytes | None:
        from shared.data.store import read_blob

        return read_blob(self.ref, key)

    def put(self, key: str, blob: bytes) -> None:
        from shared.data.store import write_blob

        write_blob(self.ref, key, blob)


def search(plan: Plan, *, cached: bool = True) -> SystemSearch:
    """The system's search space and score, over the upstream studies' best trials.

    cached: known fits are read from beside the dataset version, and new ones kept there.
    """
    from shared.training.system import UpstreamMember
    from shared.tuning.objective import Objective

    ledger, members = Ledger(), {}
    for name, entry in plan.upstream.items():
        objective = Objective.from_source(ledger.source(entry.outcome["objective_hash"]), entry.outcome["objective"])
        members[name] = UpstreamMember(objective, top_trials(entry))
    return search_over(members, plan, plan.threads_per_fold, BlobCache(plan.data) if cached else None)


def search_over(
    members: Mapping[str, UpstreamMember], plan: Plan, threads_per_fold: int, cache: BlobCache | None = None
) -> SystemSearch:
    """The search of a plan over members, whether they are those of now or of then."""
    from shared.data.store import load_dataset
    from shared.training.system import SystemSearch

    metric, budget_ms = plan.use_case.tuning.metric, latency_budget_ms(plan)
    return SystemSearch(
        members, load_dataset(plan.data), metric, budget_ms, plan.study.seed, cache, threads_per_fold=threads_per_fold
    )


def latency_budget_ms(plan: Plan) -> float:
    assert plan.use_case.system is not None
    return plan.use_case.system.latency_budget_ms


def tune(plan: Plan, worker: int, workers: int, task: str) -> WorkerStats:
    """Run trials until the study's budget is full, as one of `workers` on the cores.

    task: pathspec, by which another attempt at it knows what an earlier one left running.
    """
    from shared.training import threads

    threads.limit(threads.share(workers))
    system = search(plan)
    spec = plan.study.model_copy(update={"warm_starts": tuple(system.initial_trials())})
    if spec.trial_timeout_s is not None:
        from shared.tuning.child import run_worker_in_child

        return run_worker_in_child(spec, partial(evaluation, plan), worker=worker, owner=task)
    from shared.tuning.worker import run_worker

    return run_worker(spec, system.evaluate, worker=worker, owner=task)


def evaluation(plan: Plan) -> Evaluate:
    """The function that the study optimizes."""
    return search(plan).evaluate


def select(plan: Plan, stats: Sequence[WorkerStats], run: str) -> tuple[TuningResult, list[FrozenTrial]]:
    """The Pareto front and the best metric within the latency budget, and all trials for the card.

    Raises:
        StudyFailed: no trial is complete.
    """
    from shared.training.pick import pick

    return hpo.select(plan, stats, run, pick=lambda trials: pick(trials, latency_budget_ms(plan)))


def retrain(plan: Plan, best: TrialSummary) -> Retrained:
    """The picked system, trained on all development rows."""
    return fitted(search(plan), best, plan.threads)


def fitted(search: SystemSearch, best: TrialSummary, n_threads: int) -> Retrained:
    """A trial's system, trained on all development rows."""
    return hpo.retrained(search.data, lambda: search.retrain(best, n_threads))


def promote(plan: Plan, result: TuningResult, run: str) -> Gated:
    """Retrain the picked system and register it; promote it if it beats the champion on the holdout.

    Raises:
        ResultTaken: another run does, or has done so.
    """
    name = model_name(plan.use_case.name, plan.variant)
    return hpo.conclude(plan, result, run, name, lambda: retrain(plan, result.best), partial(gated, plan, run=run))


def card(plan: Plan, result: TuningResult, trials: Sequence[FrozenTrial], gated: Gated) -> list[Any]:
    """The components of the flow's card."""
    from shared.flow import ancestry
    from shared.flow.cards import system_card

    return system_card(
        trials,
        plan.study,
        result,
        gated.version,
        gated.decision,
        metric=plan.use_case.tuning.metric,
        latency_budget_ms=latency_budget_ms(plan),
        champion=gated.champion,
        lineage=ancestry.of_registered(gated.version),
    )
