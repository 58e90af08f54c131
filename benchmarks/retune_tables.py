"""Real trials of two shipped objectives on versions of their data, and surrogates that stand in for them.

A benchmark by surrogate (Eggensperger et al. 2015): 100 configurations, the same on every version, are evaluated as a
flow does it (three folds, up to 720 rows), and a Gaussian process per model family predicts the others. So a study
costs milliseconds, and studies of many seeds can be compared; a few are repeated with real trials.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, create_trial
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from shared.domain import Dataset, DatasetRef, Table
from shared.settings import settings
from shared.training.evaluate import evaluator
from shared.tuning.neighbors import encode, space_of
from shared.tuning.objective import Objective

Evaluate = Callable[[optuna.Trial], float]

LOADERS = {"breast_cancer": load_breast_cancer, "digits": load_digits}
VERSIONS = ("50 %", "75 %", "100 %", "noised", "prior")
CONFIGURATIONS = {"linear": 12, "svm": 24, "forest": 24, "xgboost": 40}
ROWS, FOLDS, METRIC = 720, 3, "neg_log_loss"


def dataset(use_case: str, version: str) -> Dataset:
    """The first 50, 75 or 100 % of up to 720 shuffled rows.

    `noised` are all with noise of half a standard deviation, `prior` without half of the rows of half of the classes.
    """
    bunch = LOADERS[use_case](as_frame=True)
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(bunch.target))[:ROWS]
    X, y = bunch.data.iloc[rows].reset_index(drop=True), bunch.target.to_numpy()[rows].astype(np.int64)
    if version == "noised":
        X = X + rng.normal(size=X.shape) * X.std().to_numpy() / 2
    keep = np.ones(len(X), dtype=bool)
    if "%" in version:
        keep = np.arange(len(X)) < len(X) * int(version.split()[0]) // 100
    if version == "prior":
        keep = (y >= (y.max() + 1) / 2) | (rng.random(len(X)) < 0.5)
    return _dataset(use_case, version, X[keep].reset_index(drop=True), y[keep])


def _dataset(use_case: str, version: str, X: Any, y: np.ndarray) -> Dataset:
    table = Table(
        features=tuple(X.columns),
        dtypes=tuple(map(str, X.dtypes)),
        target="target",
        task="classification",
        classes=tuple(range(int(y.max()) + 1)),
        shape=(X.shape[1],),
    )
    ref = DatasetRef(
        use_case=use_case, fingerprint=version, uri="", table=table, rows={"development": len(X)}, folds=FOLDS,
        source=use_case, created_at=datetime.now(UTC),
    )  # fmt: skip
    return Dataset(ref, X, y, np.arange(len(X)) % FOLDS)


def objective(use_case: str) -> Objective:
    return Objective.load(Path(__file__).parent.parent / f"flows/classical_hpo/objectives/{use_case}.py")


@cache
def real(use_case: str, version: str) -> Evaluate:
    """The objective as a flow evaluates it. What was evaluated once is kept."""
    evaluate = evaluator(objective(use_case), dataset(use_case, version), METRIC)
    file = _file(use_case, version)
    known = dict(map(json.loads, file.read_text().splitlines())) if file.exists() else {}

    def value(trial: optuna.Trial) -> float:
        objective(use_case).build(trial)
        key = json.dumps([trial.number, trial.params], sort_keys=True)
        if key not in known:
            known[key] = evaluate(trial)
            with file.open("a") as lines:
                lines.write(json.dumps([key, known[key]]) + "\n")
        return float(known[key])

    return value


@cache
def surrogate(use_case: str, version: str) -> Evaluate:
    """The objective as predicted from the evaluated configurations, by model family."""
    evaluate, tuned = real(use_case, version), objective(use_case)
    known = [_evaluated(evaluate, params) for params in configurations(use_case)]
    models = {family: _Model([t for t in known if t.params["family"] == family]) for family in CONFIGURATIONS}

    def value(trial: optuna.Trial) -> float:
        tuned.build(trial)
        return models[trial.params["family"]].value(trial.params)

    return value


class _Model:
    """A Gaussian process of the logarithm of the loss over the parameters of one family, in units of their ranges."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        self._space = space_of(trials)
        X = encode(trials, self._space)
        scales = Matern(np.ones(X.shape[1]), length_scale_bounds=(0.05, 20), nu=2.5)
        kernel = ConstantKernel() * scales + WhiteKernel(0.01, (1e-6, 1))
        self._process = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=2, random_state=0)
        self._process.fit(X, np.log([-t.values[0] for t in trials]))

    def value(self, params: Mapping[str, Any]) -> float:
        row = encode([create_trial(value=0.0, params=dict(params), distributions=dict(self._space))], self._space)
        return -float(np.exp(self._process.predict(row)[0]))


@cache
def configurations(use_case: str) -> list[dict[str, Any]]:
    """Those that every version is evaluated on: of each family a part of a Sobol sequence."""
    found = []
    for family, n in CONFIGURATIONS.items():
        sobol = optuna.samplers.QMCSampler(seed=0, scramble=True)
        study = optuna.create_study(sampler=optuna.samplers.PartialFixedSampler({"family": family}, sobol))
        for _ in range(n):
            trial = study.ask()
            objective(use_case).build(trial)
            study.tell(trial, 0.0)
            found.append(trial.params)
    return found


def _evaluated(evaluate: Evaluate, params: Mapping[str, Any]) -> FrozenTrial:
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial(dict(params))
    study.optimize(evaluate, n_trials=1)
    return study.trials[0]


def _file(use_case: str, version: str) -> Path:
    folder = settings().home / "benchmarks" / "retune"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{use_case}-{version.split()[0]}.jsonl"
