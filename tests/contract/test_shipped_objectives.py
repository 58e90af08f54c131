"""Every objective that is shipped tunes, is retrained, and is saved and loaded without unpickling."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest

from shared import model
from shared.config import load_use_case
from shared.data.prepare import in_memory
from shared.domain import Dataset
from shared.training import threads
from shared.training.evaluate import evaluator, retrain
from shared.tuning.objective import Objective

ROOT = Path(__file__).resolve().parents[2]
CLASSICAL = ROOT / "flows/classical_hpo/objectives"
DEEP = ROOT / "flows/deep_hpo/objectives"
SHIPPED = sorted(path for folder in (CLASSICAL, DEEP) for path in folder.glob("*.py"))
HEAVY = {"torch", "torchvision", "xgboost", "sklearn", "mlflow", "pandas"}

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    threads.limit(1)


# Each family of the conditional spaces, with the classical use case that it belongs to.
FAMILIES = [
    *(("digits", {"family": family}) for family in ("linear", "svm", "xgboost")),
    *(("digits", {"family": "forest", "forest_kind": kind}) for kind in ("extra", "random")),
    *(("breast_cancer", {"family": family}) for family in ("linear", "svm", "forest", "xgboost")),
    *(("diabetes", {"family": family}) for family in ("linear", "splines", "svr", "kernel", "average")),
]


def ids(value: object) -> str:
    return "-".join(value.values()) if isinstance(value, dict) else str(value)


def tune(objective: Objective, data: Dataset, metric: str, n_trials: int, **fixed: object) -> optuna.Study:
    sampler = optuna.samplers.PartialFixedSampler(fixed, optuna.samplers.RandomSampler(seed=1))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(evaluator(objective, data, metric), n_trials=n_trials)
    return study


def retrain_and_reload(objective: Objective, best: optuna.trial.FrozenTrial, data: Dataset, folder: Path) -> None:
    system = retrain(objective, best.params, data, best.user_attrs)
    for name, content in model.save(system).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    loaded = model.load(folder)

    assert len(loaded.predict(data.X[:5])) == 5
    np.testing.assert_allclose(loaded.scores(data.X[:20]), system.scores(data.X[:20]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "fixed"), FAMILIES, ids=ids)
def test_a_family_of_a_classical_objective_tunes_and_is_saved(name, fixed, tmp_path):
    use_case = load_use_case(name, ["data.rows=240", "tuning.folds=2"])
    data, objective = in_memory(use_case), Objective.load(CLASSICAL / f"{name}.py")

    study = tune(objective, data, use_case.tuning.metric, 1, **fixed)

    assert np.isfinite(study.best_value)
    retrain_and_reload(objective, study.best_trial, data, tmp_path)


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
def test_an_architecture_of_the_deep_digits_tunes_and_is_saved(architecture, tmp_path):
    use_case = load_use_case("digits", ["data.rows=200"])
    data, objective = in_memory(use_case), Objective.load(DEEP / "digits.py")

    study = tune(objective, data, use_case.tuning.metric, 1, architecture=architecture, augmentation=1.0)

    assert study.best_trial.user_attrs["best_epoch"] >= 1
    retrain_and_reload(objective, study.best_trial, data, tmp_path)


def test_the_deep_digits_recognize_98_of_100_with_a_plain_configuration():
    use_case = load_use_case("digits")
    params = {"architecture": "cnn", "cnn_channels": 24, "dropout": 0.2, "augmentation": 0.0, "optimizer": "AdamW",
              "lr": 0.005, "weight_decay": 1e-3, "batch_size": 64}  # fmt: skip
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial(params)

    study.optimize(evaluator(Objective.load(DEEP / "digits.py"), in_memory(use_case), "accuracy"), n_trials=1)

    assert study.best_trial.params == params
    assert study.best_value >= 0.98


@pytest.mark.parametrize("stages", [2, 3])
def test_the_fashion_network_takes_images_of_28_by_28(stages):
    torch = pytest.importorskip("torch")
    trial = optuna.trial.FixedTrial({"channels": 32, "stages": stages, "dropout": 0.1, "optimizer": "AdamW", "lr": 1e-3,
                                     "weight_decay": 1e-4, "batch_size": 128, "augmented": True})  # fmt: skip
    objective = Objective.load(DEEP / "fashion_mnist.py")
    images = torch.rand(4, 1, 28, 28)

    assert objective.build(trial)(objective.fit_plan(trial).transform(images)).shape == (4, 10)


def test_iris_is_what_the_benchmark_measures():
    tree = Objective.load(ROOT / "benchmarks" / "iris_tree.py").build(
        optuna.trial.FixedTrial({"max_depth": 3, "criterion": "entropy"})
    )

    X, y = pd.DataFrame({"x": [0.0, 1.0, 2.0]}), [0, 1, 1]
    assert list(tree.fit(X, y).predict(X)) == y


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.parent.name}-{path.stem}")
def test_an_objective_imports_nothing_heavy_until_it_builds(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}

    assert not {name.split(".")[0] for name in imported} & HEAVY


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.parent.name}-{path.stem}")
def test_an_objectives_docstring_says_what_is_optimized_on_which_data(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""

    assert "Maximizes" in docstring
    assert "Data: " in docstring


def test_an_objective_run_by_itself_tunes_three_trials_without_metaflow(tmp_path):
    code = (
        "import runpy, sys\n"
        "sys.modules['metaflow'] = sys.modules['psycopg'] = None  # importing either raises\n"
        "runpy.run_path('flows/classical_hpo/objectives/digits.py', run_name='__main__')"
    )
    env = {**os.environ, "EVERTUNE_HOME": str(tmp_path / "home"), "EVERTUNE_CORES": "1", "PYTHONPATH": str(ROOT)}

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["trial 0", "trial 1", "trial 2"]
    assert lines[3].startswith("best is trial")
    assert not (tmp_path / "home").exists()
