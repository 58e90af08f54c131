"""What an objective file may define, and what is said of one that breaks the contract."""

from __future__ import annotations

import dataclasses
import math
import pickle
import traceback
from pathlib import Path
from textwrap import dedent

import pytest
from optuna.trial import FixedTrial

from shared.errors import ObjectiveError
from shared.tuning.objective import FitPlan, Objective, check_value

BUILD = """
def build(trial):
    return {"C": trial.suggest_float("C", 1e-3, 1e3, log=True)}
"""
DEEP = (
    BUILD
    + """
def fit_plan(trial):
    return {"lr": 1e-3, "batch_size": 64, "epochs": 20}
"""
)
OWN = """
def objective(trial, data):
    return trial.suggest_float("x", 0, 1)
"""
SCRIPT = """
import optuna

def objective(trial):
    return trial.suggest_float("x", 0, 1)

if __name__ == "__main__":
    optuna.create_study().optimize(objective, n_trials=3)
"""
TRAIN = """
def train(trial, data):
    return "fitted"
"""


def objective(source: str) -> Objective:
    return Objective.from_source(source, "objectives/x.py")


def error_of(source: str) -> str:
    with pytest.raises(ObjectiveError) as caught:
        _ = objective(source).module
    return str(caught.value)


@pytest.mark.parametrize(
    ("source", "kind", "deep", "trains"),
    [
        (BUILD, "build", False, True),
        (DEEP, "build", True, True),
        (OWN, "data", False, False),
        (OWN + TRAIN, "data", False, True),
        (SCRIPT, "trial", False, False),
        (SCRIPT + TRAIN, "trial", False, True),
        ("def objective(trial, data=None): return 1", "data", False, False),
        ("def objective(trial, verbose=False): return 1", "trial", False, False),
        ("def build(trial, *, bias=True): return 1", "build", False, True),
    ],
)
def test_what_a_file_defines_says_what_kind_it_is(source: str, kind: str, deep: bool, trains: bool) -> None:
    found = objective(source)
    assert (found.kind, found.deep, found.trains) == (kind, deep, trains)


def test_an_objective_is_called_through_its_kind() -> None:
    assert objective(BUILD).build(FixedTrial({"C": 2.0})) == {"C": 2.0}
    assert objective(OWN).objective(FixedTrial({"x": 0.5}), None) == 0.5
    assert objective(OWN + TRAIN).train(FixedTrial({}), None) == "fitted"


def test_a_file_is_loaded_under_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits.py").write_text(BUILD)
    assert Objective.load("digits.py").label == "digits.py"
    assert Objective.load(tmp_path / "digits.py").label == "digits.py"
    assert Objective.load(tmp_path / "digits.py", label="mine").label == "mine"


def test_the_hash_is_that_of_the_source_alone() -> None:
    assert objective(BUILD).hash == Objective.from_source(BUILD, "elsewhere.py").hash
    assert objective(BUILD).hash != objective(BUILD + "# a comment\n").hash
    assert len(objective(BUILD).hash) == 64


def test_an_objective_is_frozen_and_pickled_as_its_source() -> None:
    found = objective(BUILD)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.source = ""  # type: ignore[misc]
    copy = pickle.loads(pickle.dumps(found))
    assert copy == found
    assert (copy.label, copy.kind) == (found.label, found.kind)


def test_a_class_of_the_file_can_be_a_dataclass_and_pickled() -> None:
    source = """
    from __future__ import annotations
    from dataclasses import dataclass

    @dataclass
    class Clip:
        limit: float

    def build(trial):
        return Clip(1.5)
    """
    built = objective(dedent(source)).build(FixedTrial({}))
    assert pickle.loads(pickle.dumps(built)) == built


def test_a_traceback_shows_the_lines_of_the_file() -> None:
    found = objective("def build(trial):\n    return 1 / 0  # here\n")
    try:
        found.build(FixedTrial({}))
    except ZeroDivisionError:
        shown = traceback.format_exc()
    assert "objectives/x.py@" in shown
    assert "return 1 / 0  # here" in shown


def test_two_versions_of_a_file_live_side_by_side() -> None:
    old, new = objective("def build(trial): return 'old'"), objective("def build(trial): return 'new'")
    assert (old.build(FixedTrial({})), new.build(FixedTrial({}))) == ("old", "new")


def test_a_missing_file_is_named_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "digits.py").write_text(BUILD)
    with pytest.raises(ObjectiveError) as caught:
        Objective.load(tmp_path / "digit.py")
    message = str(caught.value)
    assert f"{tmp_path}/digit.py: there is no such objective file; did you mean 'digits.py'?" in message
    assert f"{tmp_path} has digits.py; `objective` in the config is a path relative to the flow's folder" in message


def test_a_folder_is_no_objective_file(tmp_path: Path) -> None:
    with pytest.raises(ObjectiveError, match="there is no such objective file"):
        Objective.load(tmp_path)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_bytes(b"\xff\xfe")
    with pytest.raises(ObjectiveError, match=r"must be a readable UTF-8 file, but .* save it as UTF-8"):
        Objective.load(tmp_path / "x.py")


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        (
            "def bild(trial): pass",
            ["must define one of `build(trial)`, `objective(trial, data)`", "but defines `bild`"],
        ),
        ("x = 1", ["but defines no function"]),
        ("build = 3", ["but defines no function"]),
        (BUILD + OWN, ["but defines both `build` and `objective`; keep or add one of them"]),
        (OWN + "def fit_plan(trial): pass", ["`fit_plan` says how to train", "there is no `build`; add it"]),
        (BUILD + TRAIN, ["`train` belongs to an `objective`", "remove or rename `train`"]),
        ("def build(): pass", ["must define `build(trial)`, but `build` takes ()"]),
        ("def build(trial, data): pass", ["`build` takes (trial, data)", "give the others a default"]),
        (
            "def objective(a, b, c): pass",
            ["must define `objective(trial)` or `objective(", "takes (a, b, c)"],
        ),
        ("def objective(*, trial): pass", ["must define `objective(trial)` or `objective(trial, data)`"]),
        (OWN + "def train(trial): pass", ["must define `train(trial, data)`, but `train` takes (trial)"]),
        (BUILD + "def fit_plan(): pass", ["must define `fit_plan(trial)`, but `fit_plan` takes ()"]),
    ],
)
def test_a_file_that_breaks_the_contract_is_told_the_rule(source: str, parts: list[str]) -> None:
    message = error_of(source)
    assert message.startswith("objectives/x.py: ")
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("def build(trial:\n    pass", ["objectives/x.py, line 1:", "raised SyntaxError:", "python objectives/x.py"]),
        ("a = 1\nb = a / 0", ["objectives/x.py, line 2:", "raised ZeroDivisionError: division by zero"]),
        ("def f():\n    return 1 / 0\n\nf()", ["objectives/x.py, line 2:"]),
        ("import json\njson.loads('{')", ["objectives/x.py, line 2:", "raised JSONDecodeError"]),
        ("\nimport not_there", ["line 2:", "No module named 'not_there'", "stands alone: install the package"]),
        ("import sys\nsys.exit('enough')", ["line 2:", "raised SystemExit: enough"]),
    ],
)
def test_a_file_that_cannot_be_imported_is_told_the_line_and_the_cause(source: str, parts: list[str]) -> None:
    message = error_of(f"{source}\n\ndef build(trial): pass\n")
    for part in ["must import without an error", *parts]:
        assert part in message


def test_reading_an_objective_runs_nothing_of_it() -> None:
    source = "import torch\n\nraise RuntimeError\n\n@undefined\ndef build(trial: Nowhere = nothing): pass\n"
    assert objective(source).trains
    with pytest.raises(ObjectiveError, match="must import without an error"):
        _ = objective(source).build


def test_a_file_that_failed_once_fails_again() -> None:
    assert error_of(f"1 / 0{BUILD}") == error_of(f"1 / 0{BUILD}")


def test_a_function_that_the_file_lacks_is_named() -> None:
    with pytest.raises(ObjectiveError, match=r"objectives/x\.py: must define `train`, but defines `objective`; add it"):
        _ = objective(OWN).train


def test_a_fit_plan_may_be_a_mapping_or_a_plan() -> None:
    plan = objective(DEEP).fit_plan(FixedTrial({}))
    assert plan == FitPlan(lr=1e-3, batch_size=64, epochs=20)
    assert (plan.optimizer, plan.weight_decay, plan.patience, plan.transform) == ("AdamW", 0.0, None, None)
    source = """
    from shared.tuning.objective import FitPlan
    def build(trial): pass
    def fit_plan(trial): return FitPlan(lr=0.1, batch_size=1, epochs=1, optimizer="SGD", options={"momentum": 0.9})
    """
    assert objective(dedent(source)).fit_plan(FixedTrial({})).options == {"momentum": 0.9}


@pytest.mark.parametrize(
    ("plan", "parts"),
    [
        ("None", ["must return a FitPlan or a mapping, but returned None"]),
        ("{'lr': 1, 'batch_size': 8}", ["must give 'epochs', but doesn't; add it"]),
        (
            "{'lr': 1, 'batchsize': 8, 'batch_size': 8, 'epochs': 1}",
            ["has no 'batchsize'; did you mean 'batch_size'?", "it may have batch_size, epochs, lr"],
        ),
        ("{'lr': 0, 'batch_size': 8, 'epochs': 1}", ["'lr' breaks a rule", "greater than 0 (it is 0)"]),
        (
            "{'lr': 1, 'batch_size': 8, 'epochs': 1, 'optimizer': 'adamw'}",
            ["'optimizer' breaks a rule: must be one of ASGD", "(it is 'adamw')"],
        ),
        ("{'lr': 1, 'batch_size': 8, 'epochs': 1, 'transform': 3}", ["'transform' breaks a rule: must be a callable"]),
    ],
)
def test_a_bad_fit_plan_is_told_the_rule(plan: str, parts: list[str]) -> None:
    found = objective(BUILD + f"def fit_plan(trial): return {plan}")
    with pytest.raises(ObjectiveError) as caught:
        found.fit_plan(FixedTrial({}))
    for part in ["objectives/x.py: `fit_plan`", *parts]:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("value", "n_directions", "values"),
    [(0.5, 1, (0.5,)), (1, 1, (1.0,)), ([0.5], 1, (0.5,)), ((1, 2), 2, (1.0, 2.0)), (math.inf, 1, (math.inf,))],
)
def test_a_good_value_is_one_float_per_direction(value: object, n_directions: int, values: tuple[float, ...]) -> None:
    assert check_value(value, n_directions) == values


@pytest.mark.parametrize(
    ("value", "n_directions", "message"),
    [
        ("0.5", 1, "must return a number, but returned '0.5' (str); return the score as a float"),
        (None, 1, "must return a number, but returned None;"),
        (math.nan, 1, "must return a number, but returned 'nan' (float);"),
        ({}, 1, "must return a number, but returned '{}' (dict);"),
        ((1.0, None), 2, "must return a number, but returned None;"),
        ((1.0, 2.0), 1, "one value per direction, 1 here, but returned 2: '(1.0, 2.0)' (tuple); return 1, or change"),
        (1.0, 2, "one value per direction, 2 here, but returned 1: '1.0' (float)"),
        ([], 1, "one value per direction, 1 here, but returned 0"),
    ],
)
def test_a_bad_value_is_told_the_rule(value: object, n_directions: int, message: str) -> None:
    with pytest.raises(ObjectiveError) as caught:
        check_value(value, n_directions)
    assert message in str(caught.value)
