"""An objective that scores itself: its value is no metric of the config, and isn't called so."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from shared.cli.show import study_line
from shared.config import UseCase
from shared.domain import Dataset, DatasetRef, ModelVersion, StudySpec, Table, TrialSummary, TuningResult
from shared.flow import hpo
from shared.flow.plan import Plan, idle_reason
from shared.model import Member, Signature, System
from shared.storage.ledger import Ledger
from shared.tuning.objective import Objective

OWN = "def objective(trial, data): ...\n\ndef train(trial, data): ...\n"
BUILD = "def build(trial): ...\n"


def a_dataset() -> Dataset:
    table = Table(
        features=("a",), dtypes=("float64",), target="t", task="classification", classes=("no", "yes"), shape=(1,)
    )
    ref = DatasetRef(
        use_case="toy", fingerprint="f", uri="", table=table, rows={"development": 4}, folds=2, source="s",
        created_at=datetime(2030, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    return Dataset(ref, pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0]}), np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))


def a_plan(source: str, metrics: tuple[str, ...] = ()) -> Plan:
    use_case = UseCase.model_validate(
        {
            "name": "toy",
            "title": "Toy",
            "data": {"source": "sklearn:iris", "target": "t"},
            "tuning": {"metric": "accuracy"},
            "classical": {"objective": "x.py"},
        }
    )
    objective = Objective.from_source(source, "x.py")
    spec = StudySpec(
        name="toy/classical/f/1", use_case="toy", variant="classical", fingerprint="f", objective_hash=objective.hash,
        directions=("maximize",), n_trials=1, metrics=metrics,
    )  # fmt: skip
    return Plan(use_case, "classical", dataset=a_dataset().ref, spec=spec, objective=objective)


def concluded(plan: Plan) -> tuple[TuningResult, ModelVersion | None]:
    """A study's result, and the version that was registered of it."""
    data = a_dataset()
    best = TrialSummary(number=0, values=(0.9,), params={"C": 1.0})
    result = TuningResult(study=plan.study.name, best=best, top=(best,), counts={"COMPLETE": 1}, wall_s=1, cpu_s=1)
    Ledger().begin(plan.study.name, "toy", "classical", "f", budget=1, run="ClassicalHPOFlow/1")
    fitted = LogisticRegression().fit(data.X, data.y)
    system = System(Signature(("a",), (1,), ("no", "yes")), (Member("classical", fitted),))
    return result, hpo.conclude(
        plan, result, "ClassicalHPOFlow/1", "toy-classical", lambda: hpo.retrained(data, lambda: system), hpo.publish
    )


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("source", "metrics", "name"), [(OWN, (), "value"), (OWN, ("gini",), "gini"), (BUILD, (), "accuracy")]
)
def test_the_best_value_is_called_by_what_it_is(source: str, metrics: tuple[str, ...], name: str) -> None:
    plan = a_plan(source, metrics)
    result, version = concluded(plan)
    entry = Ledger().entry(plan.study.name)
    assert version is not None
    assert entry is not None
    assert version.metrics.keys() == {f"development_{name}", "size_mb"}
    assert version.metrics[f"development_{name}"] == 0.9
    assert study_line(entry) == f"trial 0, {name} 0.9 → toy-classical version 1"
    assert f"trial 0 has {name} 0.9" in idle_reason(plan.study, entry)
    assert f"{name} 0.9" in hpo.card(plan, result, [], version)[0].render()["source"]


@pytest.mark.usefixtures("home")
def test_the_card_has_the_tree_of_a_version_that_is_on_record_and_no_other() -> None:
    plan = a_plan(BUILD)
    result, version = concluded(plan)
    unrecorded = ModelVersion(name="toy-classical", version=2)
    last = [hpo.card(plan, result, [], found)[-1].render() for found in (version, unrecorded, None)]
    tree = "## What it was made of\n```text\ntoy-classical version 1\n├── run ClassicalHPOFlow/1, "
    assert [str(part.get("source")).startswith(tree) for part in last] == [True, False, False]


@pytest.mark.usefixtures("home")
def test_with_a_limit_for_trials_they_run_in_another_process() -> None:
    plan = a_plan("import os\n\ndef objective(trial):\n    return os.getpid()\n")
    limited = replace(plan, spec=plan.study.model_copy(update={"trial_timeout_s": 60.0}))
    for each in (plan, limited):
        hpo.start_anew(each.study.name)
        hpo.tune(each, worker=0, workers=1, task="t/1")
        result, _ = hpo.select(each, [], run="r")
        assert (result.best.values[0] == os.getpid()) == (each is plan)
