"""What the steps of `SystemTuneFlow` do: plan, tune, select, retrain, gate."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.config import SystemConfig, UseCase
from shared.domain import DatasetRef, ModelVersion, PromotionDecision, StudySpec, TuningResult
from shared.errors import FlowError, StudyFailed
from shared.flow.hpo import Plan, forget_study, nothing_due, top_trials
from shared.storage.ledger import Ledger, LedgerEntry

if TYPE_CHECKING:
    from shared.training.system import SystemSearch
    from shared.tuning.worker import WorkerStats

logger = logging.getLogger(__name__)

DIRECTIONS = ("maximize", "minimize")


@dataclass(frozen=True)
class SystemPlan(Plan):
    """A plan, with the upstream study of each member: name → ledger entry."""

    upstream: Mapping[str, LedgerEntry] = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Gated:
    """The registered system, the champion that it met, and the decision."""

    version: ModelVersion
    champion: ModelVersion | None
    decision: PromotionDecision


def plan(use_case: UseCase, *, dataset: str = "latest", force: bool = False, run: str = "") -> SystemPlan:
    """The system study that is due on the newest dataset version whose variants are all done, or why none is.

    Raises:
        FlowError: no dataset version has all configured variants done.
    """
    config = use_case.system
    if config is None:
        return SystemPlan(use_case, "system", idle=f"configs/{use_case.name}.toml has no table [system]", upstream={})
    from shared.training import threads

    ledger = Ledger()
    ref = complete_dataset(ledger, use_case, dataset)
    upstream = upstream_studies(ledger.entries(use_case.name, ref.fingerprint), use_case.members)
    spec = study_spec(use_case, config, ref, upstream)
    entry = ledger.entry(spec.name)
    if force and entry:
        forget_study(spec.name)
        ledger.reopen(spec.name)
        entry = None
    if reason := nothing_due(spec, entry):
        return SystemPlan(use_case, "system", idle=reason, dataset=ref, spec=spec, upstream=upstream)
    ledger.open_study(spec.name, use_case.name, "system", ref.fingerprint)
    if entry and entry.state == "done":
        ledger.reopen(spec.name)
    ledger.claim(spec.name, run)
    workers = min(threads.workers(config.workers), spec.n_trials)
    return SystemPlan(
        use_case, "system", "", ref, spec, workers=workers, threads=threads.share(workers), upstream=upstream
    )


def complete_dataset(ledger: Ledger, use_case: UseCase, dataset: str) -> DatasetRef:
    """The newest (or the named) dataset version for which all configured variants are done."""
    ref = (
        ledger.newest_complete(use_case.name, use_case.members)
        if dataset == "latest"
        else ledger.dataset(use_case.name, dataset)
    )
    done = {e.variant for e in ledger.entries(use_case.name, ref.fingerprint) if e.state == "done"} if ref else set()
    missing = [variant for variant in use_case.members if variant not in done]
    if ref is None or missing:
        raise FlowError(
            f"the system is tuned on a dataset version whose variants are all done, but {use_case.name!r} lacks "
            f"{', '.join(missing)}{f' on {ref.fingerprint[:12]}' if ref else ''}; run `evertune run {use_case.name}`"
        )
    return ref


def upstream_studies(entries: Sequence[LedgerEntry], members: Sequence[str]) -> dict[str, LedgerEntry]:
    """The newest finished study of each member."""
    done = sorted((e for e in entries if e.state == "done"), key=lambda e: e.updated_at)
    return {member: [e for e in done if e.variant == member][-1] for member in members}


def study_spec(
    use_case: UseCase, config: SystemConfig, ref: DatasetRef, upstream: Mapping[str, LedgerEntry]
) -> StudySpec:
    """The system's study: its identity changes with an upstream study or its best trial, the metric and the budgets."""
    identity = [
        use_case.tuning.metric,
        config.latency_budget_ms,
        *((member, e.study, e.outcome["trial"]) for member, e in upstream.items()),
    ]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    return StudySpec(
        name=f"{use_case.name}/system/{ref.fingerprint[:12]}/{digest[:8]}",
        use_case=use_case.name,
        variant="system",
        fingerprint=ref.fingerprint,
        objective_hash=digest,
        directions=DIRECTIONS,
        n_trials=config.n_trials,
        seed=use_case.tuning.seed,
        timeout_s=config.timeout_s,
        max_failures=config.max_failures,
    )


@dataclass(frozen=True)
class BlobCache:
    """Out-of-fold predictions, kept beside the dataset version and shared by all workers."""

    ref: DatasetRef

    def get(self, key: str) -> bytes | None:
        from shared.data.store import read_blob

        return read_blob(self.ref, key)

    def put(self, key: str, content: bytes) -> None:
        from shared.data.store import write_blob

        write_blob(self.ref, key, content)


def search(plan: SystemPlan) -> SystemSearch:
    """The system's search space and score, over the upstream studies' best trials."""
    from shared.data.store import load_dataset
    from shared.training.system import SystemSearch, UpstreamMember
    from shared.tuning.objective import Objective

    ledger = Ledger()
    members = {}
    for name, entry in plan.upstream.items():
        objective = Objective.from_source(ledger.source(entry.outcome["objective_hash"]), entry.outcome["objective"])
        top = top_trials(entry)
        members[name] = UpstreamMember(objective, top[0], top)
    assert plan.use_case.system is not None
    return SystemSearch(
        members=members,
        data=load_dataset(plan.data),
        metric=plan.use_case.tuning.metric,
        latency_budget_ms=plan.use_case.system.latency_budget_ms,
        seed=plan.study.seed,
        cache=BlobCache(plan.data),
    )


def tune(plan: SystemPlan, worker: int) -> WorkerStats:
    """Run trials in this process until the study's budget is full."""
    from shared.training import threads

    threads.limit(plan.threads)
    from shared.tuning.worker import run_worker

    system = search(plan)
    spec = plan.study.model_copy(update={"warm_starts": tuple(system.initial_trials())})
    return run_worker(spec, system.evaluate, worker=worker)


def select(plan: SystemPlan, stats: Sequence[WorkerStats]) -> TuningResult:
    """The Pareto front and the pick from it: the best metric among the feasible.

    Raises:
        StudyFailed: no trial finished.
    """
    from shared.training.system import pick
    from shared.tuning.select import select as select_best

    assert plan.use_case.system is not None
    budget_ms = plan.use_case.system.latency_budget_ms
    try:
        return select_best(plan.study, stats=stats, pick=lambda trials: pick(trials, budget_ms))
    except StudyFailed as err:
        Ledger().fail(plan.study.name, note=str(err), run="")
        raise


def retrain(plan: SystemPlan, result: TuningResult) -> dict[str, bytes]:
    """The picked system, trained on all development rows, as native files."""
    from shared import model
    from shared.training import threads

    threads.limit(threads.cores())
    return model.save(search(plan).retrain(result.best))


def gate(plan: SystemPlan, result: TuningResult, files: dict[str, bytes], run: str) -> Gated:
    """Score the system and the present champion on the same holdout rows; promote the better one."""
    from shared.data.store import load_dataset
    from shared.registry import client, promotion
    from shared.registry.gate import decide

    assert plan.use_case.system is not None
    name = plan.use_case.name
    holdout = load_dataset(plan.data, "holdout")
    version = _register(plan, result, files, run)
    champion = client.champion(name)
    challenger_score = holdout_score(plan, version, holdout)
    champion_score = holdout_score(plan, champion, holdout) if champion else None
    decision = decide(challenger_score, champion_score, min_gain=plan.use_case.promotion.min_gain)
    promotion.promote(name, version, decision, champion=champion, actor=run)
    gated = Gated(version, champion, decision)
    Ledger().finish(plan.study.name, outcome=outcome(plan, result, gated), run=run)
    return gated
