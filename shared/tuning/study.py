"""The identity of a study, the checks at its start, and the study itself in the storage."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from shared.config import UseCase, VariantConfig
from shared.domain import DatasetRef, Steps, StudySpec, Variant
from shared.errors import ConfigError, ObjectiveError
from shared.tuning import strategies
from shared.tuning.objective import Objective

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage


def study_spec(
    use_case: UseCase, variant: Variant, ref: DatasetRef, objective: Objective, now: datetime | None = None
) -> StudySpec:
    """The study of a variant on a dataset version. Another source, metric, direction or fold count is another study.

    now: when the run starts that asks for it; failures from before don't count against `max_failures`.

    Raises:
        ConfigError: the config has no such variant, or names a sampler or pruner that can't be built.
        ObjectiveError: the config asks of the objective what it can't do.
    """
    config: VariantConfig | None = getattr(use_case, variant)
    if config is None:
        raise ConfigError(f"configs/{use_case.name}.toml has no table [{variant}]; add it with an `objective`")
    check_objective(use_case, variant, config, objective)
    check_strategies(use_case, variant, config)
    identity = [objective.hash, use_case.tuning.metric, config.directions, ref.folds]
    if config.guard is not None:  # what the trials have reported can't be compared with another value
        identity.append(config.metrics.index(config.guard))
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    return StudySpec(
        name=f"{use_case.name}/{variant}/{ref.fingerprint[:12]}/{digest[:8]}",
        use_case=use_case.name,
        variant=variant,
        fingerprint=ref.fingerprint,
        objective_hash=objective.hash,
        directions=config.directions,
        n_trials=config.n_trials,
        seed=use_case.tuning.seed,
        sampler=config.sampler,
        pruner=config.pruner,
        timeout_s=config.timeout_s,
        trial_timeout_s=config.trial_timeout_s,
        max_failures=config.max_failures,
        since=now or datetime.now(UTC),
        steps=steps(objective),
        metrics=config.metrics,
        guard=config.guard,
    )


def steps(objective: Objective) -> Steps:
    """What Evertune reports after while it scores what the objective builds; one that scores itself reports at will."""
    if objective.kind != "build":
        return ""
    return "epoch" if objective.deep else "fold"


def check_objective(use_case: UseCase, variant: Variant, config: VariantConfig, objective: Objective) -> None:
    """Refuse, before any trial runs, what would fail after the last one.

    Raises:
        ObjectiveError: the config asks for promotion, directions or a variant that the objective isn't made for.
    """
    label, file = objective.label, f"configs/{use_case.name}.toml"
    if use_case.system and not objective.trains:
        raise ObjectiveError(
            f"{file}: [system] needs objectives whose best trial can be retrained, but {label} defines neither "
            "`build(trial)` nor `train(trial, data)`; add `train(trial, data)` that returns the fitted model, or leave "
            "[system] and [promotion] out"
        )
    if objective.kind == "build" and config.directions != ("maximize",):
        raise ObjectiveError(
            f"{file}: `{variant}.directions` are for an `objective` of one's own, but {label} defines `build`, "
            f"which is scored by {use_case.tuning.metric} (greater is better), and they are {list(config.directions)}; "
            "leave `directions` out"
        )
    if objective.kind == "build" and config.metrics:
        raise ObjectiveError(
            f"{file}: `{variant}.metrics` name the values of an `objective` of one's own, but {label} defines `build`, "
            f"which is scored by `tuning.metric` ({use_case.tuning.metric}); leave `metrics` out"
        )
    if objective.kind == "build" and objective.deep != (variant == "deep"):
        rule, remedy = (
            ("[deep] trains a torch module by its plan, but {} has no `fit_plan`", "add `fit_plan(trial)`")
            if variant == "deep"
            else ("[classical] fits a scikit-learn estimator, but {} defines `fit_plan`", "remove it")
        )
        other = "classical" if variant == "deep" else "deep"
        raise ObjectiveError(f"{file}: {rule.format(label)}; {remedy}, or move the objective to [{other}]")


def check_strategies(use_case: UseCase, variant: Variant, config: VariantConfig) -> None:
    """Build the sampler and the pruner once, if the config names them.

    Raises:
        ConfigError: Optuna has no such sampler or pruner, or it doesn't take these arguments.
    """
    spec = StudySpec(
        name=f"{use_case.name}/{variant}",
        use_case=use_case.name,
        variant=variant,
        fingerprint="",
        objective_hash="",
        directions=config.directions,
        n_trials=config.n_trials,
        sampler=config.sampler,
        pruner=config.pruner,
        metrics=config.metrics,
        guard=config.guard,
    )
    if spec.sampler.name != "auto" or spec.sampler.options:
        strategies.sampler(spec)
    if spec.pruner.name != "auto" or spec.pruner.options:
        strategies.pruner(spec)


def open_study(spec: StudySpec, storage: BaseStorage | None = None, worker: int = 0) -> optuna.Study:
    """The study in the storage, made if it isn't there yet, with the sampler and pruner of one worker.

    What the study is about is kept as its user attribute `evertune`.
    """
    import optuna

    from shared.tuning.guarded import guarded

    if storage is None:
        from shared.storage import PostgresStorage

        storage = PostgresStorage()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=storage, study_name=spec.name, directions=list(spec.directions), load_if_exists=True
    )
    study = guarded(study, spec.metrics, spec.guard)
    study.sampler = strategies.sampler(spec, worker, after=len(study.get_trials(deepcopy=False)))
    if spec.earlier:
        from shared.tuning.transfer import TransferSampler

        study.sampler = TransferSampler(study.sampler, spec, storage)
    study.pruner = strategies.pruner(spec)
    about = describe(spec)
    if study.user_attrs.get("evertune") != about:
        study.set_user_attr("evertune", about)
    if spec.metrics and study.metric_names != list(spec.metrics):
        _name_values(study, spec.metrics)
    return study


def _name_values(study: optuna.Study, metrics: Sequence[str]) -> None:
    """Tell Optuna's charts and dashboard what the values are called."""
    with warnings.catch_warnings(action="ignore"):  # experimental
        study.set_metric_names(list(metrics))


def describe(spec: StudySpec) -> dict[str, Any]:
    """What the dashboard shows of a study; no foreign parameters, nothing secret."""
    return spec.model_dump(mode="json", exclude={"name", "warm_starts", "earlier", "since"})
