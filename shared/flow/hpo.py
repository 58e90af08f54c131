"""What the steps of an HPO flow do: plan, tune, select, register. The flows only say in which order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from shared.config import UseCase, VariantConfig
from shared.domain import Dataset, DatasetRef, ModelVersion, TrialSummary, TuningResult, Variant, model_name
from shared.errors import DataError, EvertuneError, RegistryError
from shared.flow.plan import (
    Plan,
    Retrained,
    begun,
    continues,
    earlier_studies,
    extended,
    idle_reason,
    metric_of,
    outcome,
    warm_started,
    why_due,
)
from shared.storage import claims
from shared.storage.ledger import Ledger
from shared.tuning.objective import Objective

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from shared.model import System
    from shared.tuning.select import Choose
    from shared.tuning.worker import Evaluate, WorkerStats

logger = logging.getLogger(__name__)
T = TypeVar("T")

EXAMPLE_ROWS = 3


def plan(
    use_case: UseCase, variant: Variant, folder: Path, dataset: str = "latest", *, force: bool = False, run: str
) -> Plan:
    """What `due` says, and what is due is begun by this run. force: what the study has is forgotten.

    Raises:
        DataError: there is no such dataset version.
        ObjectiveError: the objective file breaks the contract.
        ServiceError: the model couldn't be registered, since MLflow can't be reached.
    """
    found = due(use_case, variant, folder, dataset, force=force)
    if found.idle:
        return confirmed(found)
    if found.code.trains:
        check_registry()
    if force:
        start_anew(found.study.name)
    ledger = Ledger()
    ledger.save_source(found.code.source)
    return begun(found, ledger, run)


def due(use_case: UseCase, variant: Variant, folder: Path, dataset: str = "latest", *, force: bool = False) -> Plan:
    """The study that is due on a dataset version, or why none is. Reads only.

    folder: the flow's, where the objective's path starts. dataset: `latest`, or the beginning of a fingerprint.

    Raises:
        DataError: there is no such dataset version.
        ObjectiveError: the objective file breaks the contract.
    """
    config: VariantConfig | None = getattr(use_case, variant)
    if config is None:
        return Plan(use_case, variant, idle=f"configs/{use_case.name}.toml has no table [{variant}]")
    from shared.tuning.study import study_spec

    ledger = Ledger()
    ref = find_dataset(ledger, use_case.name, dataset)
    objective = Objective.find(config.objective, folder)
    spec = study_spec(use_case, variant, ref, objective)
    entry = None if force else ledger.entry(spec.name)
    earlier = earlier_studies(ledger.entries(use_case.name), spec, metric_of(use_case, objective, spec.metrics))
    spec = warm_started(spec, use_case, earlier, entry)
    spec = extended(spec, entry, continues=continues(use_case, entry, ledger.seen_at(ref)))
    idle, why = idle_reason(spec, entry), why_due(spec, entry)
    return Plan(use_case, variant, idle, ref, spec, objective, wanted=config.workers, why=why)


def confirmed(plan: Plan) -> Plan:
    """The plan, after the ledger knows that its study is the one that the config asks for now."""
    if plan.spec:
        Ledger().confirm(plan.spec.name)
    return plan


def find_dataset(ledger: Ledger, use_case: str, dataset: str) -> DatasetRef:
    """The newest dataset version, or that of a fingerprint.

    Raises:
        DataError: there is none.
    """
    if dataset != "latest":
        return ledger.dataset(use_case, dataset)
    ref = ledger.newest_dataset(use_case)
    if ref is None:
        raise DataError(
            f"a study needs a dataset version, but {use_case!r} has none on record; run DataPrepFlow first: "
            f"`python flows/data_prep/flow.py --config use_case configs/{use_case}.toml run`"
        )
    return ref


def check_registry() -> None:
    """A study whose model can't be registered isn't worth its trials.

    Raises:
        ServiceError: MLflow can't be reached.
    """
    from shared.registry import reachable
    from shared.storage.services import mlflow_tracking_uri

    reachable.check(mlflow_tracking_uri())


def start_anew(study: str) -> None:
    """Forget a study: its trials, and that it is done."""
    from shared.storage.studies import delete_study

    delete_study(study)
    Ledger().forget(study)


def tune(plan: Plan, worker: int, workers: int, task: str) -> WorkerStats:
    """Run trials until the study's budget is full, as one of `workers` on the cores.

    task: pathspec, by which another attempt at it knows what an earlier one left running.
    """
    from shared.training import threads

    threads.limit(threads.share(workers))
    with recorded_failure(plan, run_of(task)):
        if plan.study.trial_timeout_s is not None:
            from shared.tuning.child import run_worker_in_child

            return run_worker_in_child(plan.study, partial(evaluation, plan), worker=worker, owner=task)
        from shared.tuning.worker import run_worker

        return run_worker(plan.study, evaluation(plan), worker=worker, owner=task)


@contextmanager
def recorded_failure(plan: Plan, run: str) -> Iterator[None]:
    """Work on a study: where it fails for a reason that Evertune knows, the ledger says so."""
    try:
        yield
    except EvertuneError as err:
        Ledger().fail(plan.study.name, note=str(err), run=run)
        raise


def run_of(task: str) -> str:
    """Pathspec of the run that a task belongs to: `Flow/12` of `Flow/12/tune/3`."""
    return "/".join(task.split("/")[:2])


def evaluation(plan: Plan) -> Evaluate:
    """The function that the study optimizes. An `objective(trial)` brings its own data."""
    if plan.code.kind == "trial":
        return plan.code.objective
    from shared.data.store import load_dataset
    from shared.training.evaluate import evaluator

    return evaluator(plan.code, load_dataset(plan.data), plan.use_case.tuning.metric, plan.study.seed)


def select(
    plan: Plan, stats: Sequence[WorkerStats], run: str, pick: Choose | None = None
) -> tuple[TuningResult, list[FrozenTrial]]:
    """The best finished trial, and all trials for the card. A study without a complete one is recorded as failed.

    Raises:
        StudyFailed: no trial is complete.
    """
    from shared.storage import PostgresStorage
    from shared.tuning.select import select as select_best
    from shared.tuning.worker import give_back_abandoned

    storage = PostgresStorage()
    give_back_abandoned(plan.study, storage)
    with recorded_failure(plan, run):
        result = select_best(plan.study, storage, stats, pick)
    return result, storage.get_all_trials(storage.get_study_id_from_name(plan.study.name), deepcopy=False)


def retrain(plan: Plan, best: TrialSummary, n_threads: int | None = None) -> Retrained | None:
    """The best trial's model, trained on all development rows; None where the objective has no `train`.

    n_threads: by default all cores. Another number of them may give another model, by its last digits.
    """
    objective = plan.code
    if not objective.trains:
        return None
    from shared.training import threads

    threads.limit(n_threads or plan.threads)
    from shared.data.store import load_dataset
    from shared.training.evaluate import retrain as retrain_best

    data, seed = load_dataset(plan.data), plan.study.seed + best.number
    return retrained(data, lambda: retrain_best(objective, best.params, data, best.user_attrs, seed))


def retrained(data: Dataset, fit: Callable[[], System]) -> Retrained:
    """A system as it travels to the next step, and when it was fitted.

    Raises:
        RegistryError: it can't be saved without pickle.
    """
    from shared import model

    began = datetime.now(UTC)
    system = fit()
    ended = datetime.now(UTC)
    example = data.X.head(EXAMPLE_ROWS)
    try:
        files = model.save(system)
    except model.ModelError as err:
        raise RegistryError(str(err)) from err
    return Retrained(files, example, system.predict(example), began, ended)


def register(plan: Plan, result: TuningResult, run: str) -> ModelVersion | None:
    """Retrain and register the best trial as challenger of `<use_case>-<variant>`, and record the study as done.

    Returns None where the objective has no `train`.

    Raises:
        ResultTaken: another run does, or has done so.
    """
    name = model_name(plan.use_case.name, plan.variant)
    return conclude(plan, result, run, name, lambda: retrain(plan, result.best), publish)


def conclude(
    plan: Plan,
    result: TuningResult,
    run: str,
    name: str,
    retrain: Callable[[], Retrained | None],
    publish: Callable[[Mapping[str, Any]], T],
) -> T:
    """Make the study's result, once: a version of the registered model `name`; then what follows from it.

    publish: gets the outcome on record, which may be that of a run which died.

    Raises:
        ResultTaken: another run does, or has done so.
    """

    def make() -> Mapping[str, Any]:
        retrained = retrain()
        version = register_model(name, plan, result, retrained, run) if retrained else None
        model = {"model": version.name, "version": version.version} if version else {"model": None, "version": None}
        return outcome(plan, result, retrained) | model

    return claims.conclude(plan.study.name, plan.study.n_trials, run, make=make, publish=publish, refuse=refuse)


def publish(outcome: Mapping[str, Any]) -> ModelVersion | None:
    """Let the registry follow an outcome: its version is a result, and may be the challenger."""
    if outcome["version"] is None:
        return None
    from shared.registry import client, promotion
    from shared.registry.lineage import RESULT

    client.note(outcome["model"], outcome["version"], RESULT, "true")
    promotion.point_challenger(outcome["model"])
    return client.version(outcome["model"], outcome["version"])


def refuse(outcome: Mapping[str, Any], why: str) -> None:
    """Note on a version that it came too late. No alias stands at it."""
    if outcome["version"] is not None:
        from shared.registry import client

        client.note(outcome["model"], outcome["version"], "refused", why)


def register_model(name: str, plan: Plan, result: TuningResult, retrained: Retrained, run: str) -> ModelVersion:
    """A new version of a registered model, with its lineage. No alias stands at it until it is on record."""
    from shared.flow.origin import origin
    from shared.registry import client
    from shared.registry.lineage import lineage

    best, ledger = result.best, Ledger()
    upstream = [ledger.dataset_run(plan.data), *(entry.run for entry in plan.upstream.values())]
    return client.register(
        name,
        retrained.files,
        use_case=plan.use_case.name,
        example=retrained.example,
        predictions=retrained.predictions,
        metrics={f"development_{plan.metric}": best.values[0]},
        params=best.user_attrs.get("system", best.params),
        lineage=lineage(
            dataset=plan.data.fingerprint,
            run=run,
            study=plan.study.name,
            trial=best.number,
            upstream=[run for run in upstream if run],
        ),
        origin=origin(plan, best, run),
    )


def card(plan: Plan, result: TuningResult, trials: Sequence[FrozenTrial], version: ModelVersion | None) -> list[Any]:
    """The components of the flow's card."""
    from shared.flow import ancestry
    from shared.flow.cards import study_card

    metrics, lineage = plan.study.metrics or [plan.metric], ancestry.of_registered(version)
    return study_card(trials, plan.study, result, version, metrics=metrics, lineage=lineage)
