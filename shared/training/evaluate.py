"""From a trial to its value, and from the best parameters to a fitted model: one path for every kind of objective."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from shared.domain import Dataset, DatasetRef
from shared.errors import DataError, ObjectiveError
from shared.model import Member, ModelError, System, save
from shared.training import classical
from shared.training.scoring import check_metric
from shared.tuning.objective import Objective, check_value

if TYPE_CHECKING:
    import numpy as np
    import optuna
    import pandas as pd

    from shared.domain import Table

Evaluate = Callable[["optuna.Trial"], float | tuple[float, ...]]


def evaluator(objective: Objective, data: Dataset, metric: str, seed: int = 0) -> Evaluate:
    """The function that a study optimizes, greater is better unless the objective scores itself.

    A trial's random numbers come from `seed` + its number. Deep trials leave `best_epoch` in the user attributes.

    Raises:
        ConfigError: the metric can't score this target.
        DataError: a deep objective's features aren't numbers.
        ObjectiveError: the objective's file can't be imported; (by the function) what it returned breaks the contract,
            or couldn't be registered.
        optuna.TrialPruned: (by the function) the study's pruner gives the trial up.
    """
    _ = objective.module  # a file that can't be imported is told before the first trial
    if objective.kind == "build":
        check_metric(metric, data.ref.table)
    if objective.deep:
        check_numbers(data)
    check = partial(_check_savable, set(), data.ref.table)

    def evaluate(trial: optuna.Trial) -> float | tuple[float, ...]:
        value = _value(objective, trial, data, metric, seed + trial.number, check)
        values = check_value(value, len(trial.study.directions))
        return values if len(values) > 1 else values[0]

    return evaluate


def check_numbers(data: Dataset) -> None:
    """A network takes numbers only.

    Raises:
        DataError: a feature is text, or has missing values.
    """
    text = [name for name, dtype in data.X.dtypes.items() if dtype.kind not in "biuf"]
    missing = [] if text else [name for name, found in data.X.isna().any().items() if found]
    if bad := text or missing:
        fault = "text" if text else "missing values"
        raise DataError(
            f"[deep] takes numbers only, but {', '.join(map(str, bad[:5]))} has {fault}; prepare the source, or use an "
            "`objective(trial, data)` of your own"
        )


def retrain(
    objective: Objective,
    params: Mapping[str, Any],
    data: Dataset,
    user_attrs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> System:
    """A system of one member: the parameters, trained on all rows, a deep model for as many epochs as were best.

    Raises:
        ObjectiveError: the objective has nothing to train with.
    """
    fitted = _fit(objective, params, data, (user_attrs or {}).get("best_epoch"), seed)
    return System(classical.signature(data.ref.table), (Member("model", fitted),))


def fit_member(
    objective: Objective,
    params: Mapping[str, Any],
    X: pd.DataFrame,
    y: np.ndarray,
    table: Table,
    best_epoch: int | None = None,
    seed: int = 0,
    name: str = "model",
) -> Member:
    """The objective's model for fixed parameters, fitted on some rows: a fold's, or rows preprocessed before.

    best_epoch: epochs of a deep model, by default its plan's.
    """
    return Member(name, _fit(objective, params, _rows_alone(X, y, table), best_epoch, seed))


def _check_savable(checked: set[frozenset[type]], table: Table, fitted: Any) -> None:
    """Refuse what couldn't be registered with the first model of its make, not after the whole study.

    checked: the makes that are known to be savable, each as the types that a model is made of.

    Raises:
        ObjectiveError: it can't be saved without pickle.
    """
    parts = fitted.get_params().values() if hasattr(fitted, "get_params") else fitted.modules()
    make = frozenset(map(type, [fitted, *parts]))
    if make in checked or all(map(_is_known, make)):
        return
    try:
        save(System(classical.signature(table), (Member("model", fitted),)))
    except ModelError as err:
        raise ObjectiveError(f"`build(trial)` must return a model that can be registered: {err}") from err
    checked.add(make)


def _is_known(part: type) -> bool:
    """Whether a type is scikit-learn's or XGBoost's own, or a plain value: that the saving is tried on in the tests."""
    return part.__module__.partition(".")[0] in ("sklearn", "xgboost") or part in (str, int, float, bool, type(None))


def _value(
    objective: Objective, trial: optuna.Trial, data: Dataset, metric: str, seed: int, check: classical.Check
) -> Any:
    if objective.kind == "trial":
        return objective.objective(trial)
    if objective.kind == "data":
        return objective.objective(trial, data)
    report = partial(_report, trial)
    if objective.deep:
        return _best_epoch_score(objective, trial, data, metric, report, seed, check)
    return classical.cross_validate(objective.build(trial), data, metric, report, seed, check)


def _best_epoch_score(
    objective: Objective,
    trial: optuna.Trial,
    data: Dataset,
    metric: str,
    report: classical.Report,
    seed: int,
    check: classical.Check,
) -> float:
    """Trained on one split only, since epochs cost more than folds: the first, or by time the one with the newest rows.

    The best epoch is kept on the trial.
    """
    from shared.training import deep

    rows, valid = list(data.splits())[-1 if data.ordered else 0]
    with deep.seeded(seed):
        module = objective.build(trial)

        def on_epoch(epoch: int, value: float) -> None:
            check(module)
            report(epoch, value)

        fit = deep.train(
            module,
            objective.fit_plan(trial),
            data.X.iloc[rows],
            data.y[rows],
            table=data.ref.table,
            metric=metric,
            valid=(data.X.iloc[valid], data.y[valid]),
            on_epoch=on_epoch,
            seed=seed,
        )
    trial.set_user_attr("best_epoch", fit.best_epoch)
    return fit.best_score


def _report(trial: optuna.Trial, step: int, value: float) -> None:
    from optuna import TrialPruned

    trial.report(value, step)
    if trial.should_prune():
        raise TrialPruned(f"after step {step}, at {value:.6g}")


def _fit(objective: Objective, params: Mapping[str, Any], data: Dataset, best_epoch: int | None, seed: int) -> Any:
    from optuna.trial import FixedTrial

    trial = FixedTrial(dict(params))
    if objective.kind != "build":
        train = objective.train
        with _seeded(seed):
            return _checked(train(trial, data), objective, data.ref.table)
    if not objective.deep:
        return classical.fit(objective.build(trial), data.X, data.y, seed)
    from shared.training import deep

    with deep.seeded(seed):
        module, plan = objective.build(trial), objective.fit_plan(trial)
        return deep.train(module, plan, data.X, data.y, table=data.ref.table, epochs=best_epoch, seed=seed).module


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The random numbers of those who have no seed of their own, from a seed, and afterwards as before."""
    import numpy as np

    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        with ExitStack() as stack:
            if "torch" in sys.modules:
                from shared.training import deep

                stack.enter_context(deep.seeded(seed))
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _checked(fitted: Any, objective: Objective, table: Table) -> Any:
    """What `train(trial, data)` returned, if it predicts as a registered model has to.

    Raises:
        ObjectiveError: it is no model.
    """
    method = "predict_proba" if table.task == "classification" else "predict"
    if isinstance(fitted, type) or not (hasattr(fitted, method) or hasattr(fitted, "state_dict")):
        raise ObjectiveError(
            f"{objective.label}: `train(trial, data)` must return the fitted model, an estimator with `{method}` or a "
            f"torch.nn.Module, but returned {None if fitted is None else f'a {type(fitted).__name__}'}; end it with "
            "`return model.fit(data.X, data.y)`"
        )
    return fitted


def _rows_alone(X: pd.DataFrame, y: np.ndarray, table: Table) -> Dataset:
    """Rows as a dataset of no use case, for an objective's `train(trial, data)`; folds are dealt in turn."""
    import numpy as np

    ref = DatasetRef(
        use_case="", fingerprint="", uri="", table=table, rows={"development": len(X)}, folds=5, source="rows",
        created_at=datetime.min,
    )  # fmt: skip
    return Dataset(ref, X, y, np.arange(len(X)) % ref.folds)
