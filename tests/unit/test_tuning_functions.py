"""An objective that was written as functions, as the file that it would be."""

from __future__ import annotations

import math
import os.path
from math import log as logarithm
from pathlib import Path

import numpy as np
import pytest
import sklearn.svm
from optuna.trial import FixedTrial
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import SVC

from shared.errors import ObjectiveError
from shared.tuning.functions import source_of, write_functions
from shared.tuning.objective import Objective

LOW, NAMES = 1e-3, ("rbf", "poly")
ROWS = np.ones(3)


class Scaled(SVC):
    """Written here, so it isn't to be imported."""


def kernel(trial) -> str:
    return trial.suggest_categorical("kernel", NAMES)


def build(trial) -> Pipeline:
    return make_pipeline(Scaled(C=trial.suggest_float("C", LOW, math.e), gamma=logarithm(2), kernel=kernel(trial)))


def fit_plan(trial):
    return {"epochs": int(np.sqrt(trial.suggest_int("epochs", 1, 100))), "lr": 1e-3, "batch_size": 8}


def objective(trial):
    return ROWS.sum() * trial.suggest_float("x", 0, 1)


def test_a_function_is_written_with_all_that_it_uses_and_runs_alone(tmp_path: Path):
    path = write_functions([build, fit_plan], tmp_path, "toy")

    written = Objective.load(path)

    model = written.build(FixedTrial({"C": 2.0, "kernel": "poly"}))
    assert type(model[-1]).__module__ != __name__, "it comes from the file"
    assert (model[-1].C, model[-1].kernel) == (2.0, "poly")
    assert written.fit_plan(FixedTrial({"epochs": 9})).epochs == 3
    assert "from sklearn.svm import SVC" in written.source, "by its public path"
    assert "import numpy as np" in written.source


def test_a_module_within_a_package_is_imported_by_its_whole_name():
    def build(trial):  # noqa: ARG001
        return os.path.sep + sklearn.svm.__name__

    written = source_of([build])

    assert "import sklearn.svm\n" in written
    assert Objective.from_source(written, "x").build(FixedTrial({})).endswith("sklearn.svm")


def test_the_same_functions_are_the_same_file(tmp_path: Path):
    assert write_functions([build], tmp_path, "toy") == write_functions([build], tmp_path, "toy")
    assert write_functions([build], tmp_path, "toy") != write_functions([objective_alone], tmp_path, "toy")


def objective_alone(trial):
    def square(x):
        return x * x

    return square(trial.suggest_float("x", 0, 1))


def test_a_value_that_cannot_be_written_down_is_refused():
    with pytest.raises(ObjectiveError, match="`objective` uses `ROWS`, a ndarray that can't be written down"):
        source_of([objective])


def test_a_variable_of_an_enclosing_function_is_written_down_too():
    depth = 7

    def build(trial):  # noqa: ARG001
        return SVC(C=depth)

    assert Objective.from_source(source_of([build]), "x").build(FixedTrial({})).C == 7


def test_a_function_without_source_is_refused():
    made: dict[str, object] = {}
    exec("def build(trial): pass", made)

    with pytest.raises(ObjectiveError, match="that of `build` can't be found"):
        source_of([made["build"]])
