"""An objective that was written as functions, as the file that it would be."""

from __future__ import annotations

import linecache
import math
import os.path
from functools import partial
from math import log as logarithm
from pathlib import Path

import numpy as np
import pytest
import sklearn.svm
from optuna.trial import FixedTrial
from scipy.stats import loguniform
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


@pytest.mark.parametrize("function", [partial(build, None), lambda trial: trial, Scaled()])
def test_what_was_not_written_by_def_is_refused(function: object):
    with pytest.raises(ObjectiveError, match="is written by `def`"):
        source_of([function])


trial, depth = object(), "a secret"  # as a notebook has them by now
made = kernel
KINDS = {"rbf", "poly"}


def test_parameters_and_local_variables_are_not_taken_for_what_else_has_their_name():
    def build(trial):
        depth = trial.suggest_int("depth", 1, 3)
        return SVC(C=max(depth for depth in (depth,)))

    assert "secret" not in source_of([build])


def test_another_name_of_a_function_is_written_too():
    def build(trial):
        return SVC(kernel=made(trial))

    assert Objective.from_source(source_of([build]), "x").build(FixedTrial({"kernel": "poly"})).kernel == "poly"


def test_a_set_is_refused_since_its_order_is_another_in_each_process():
    def build(trial):
        return SVC(kernel=trial.suggest_categorical("kernel", sorted(KINDS)))

    with pytest.raises(ObjectiveError, match="uses `KINDS`, a set"):
        source_of([build])


def test_an_imported_instance_is_imported():
    def build(trial):  # noqa: ARG001
        return SVC(C=loguniform.mean(1, 2))

    assert "from scipy.stats import loguniform\n" in source_of([build])


def test_a_class_of_a_notebook_is_found_by_its_methods(monkeypatch: pytest.MonkeyPatch):
    cell = "class Wide(SVC):\n    def name(self):\n        return 'wide'\n\ndef build(trial):\n    return Wide()\n"
    notebook: dict[str, object] = {"SVC": SVC, "__name__": "__main__"}
    exec(compile(cell, "<cell 1>", "exec"), notebook)
    monkeypatch.setitem(linecache.cache, "<cell 1>", (len(cell), None, cell.splitlines(keepends=True), "<cell 1>"))

    written = source_of([notebook["build"]])

    assert Objective.from_source(written, "x").build(FixedTrial({})).name() == "wide"
