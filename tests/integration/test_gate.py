"""The gate in `SystemTuneFlow`: the champion keeps its place through an outage, and gives way only for a reason."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from shared.config import UseCase
from shared.data.fair import new_to_champion
from shared.data.prepare import prepare
from shared.data.store import load_dataset
from shared.domain import Dataset, DatasetRef, ModelVersion, Table
from shared.errors import RegistryError
from shared.flow.plan import Plan
from shared.flow.system import champion_score, decide
from shared.model import Member, Signature, System, save
from shared.registry import client
from shared.storage.ledger import Ledger

X = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 0.0, 1.0, 0.0]})
Y = np.array([0, 0, 1, 1])


def rows(classes: tuple[str, ...] = ("no", "yes"), frame: pd.DataFrame = X) -> Dataset:
    table = Table(
        features=tuple(frame.columns), dtypes=("float64",) * 2, target="t", task="classification", classes=classes,
        shape=(2,),
    )  # fmt: skip
    ref = DatasetRef(
        use_case="toy", fingerprint="f", uri="", table=table, rows={"holdout": 4}, folds=2, source="s",
        created_at=datetime(2030, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    return Dataset(ref, frame, Y, np.full(4, -1))


@pytest.fixture
def champion(home: object) -> ModelVersion:
    del home
    fitted = LogisticRegression().fit(X, Y)
    system = System(Signature(("a", "b"), (2,), ("no", "yes")), (Member("classical", fitted),))
    return client.register(
        "toy", save(system), use_case="toy", example=X, predictions=system.predict(X), metrics={}, params={}, lineage={}
    )


def test_a_champion_is_scored_on_the_rows_of_now_if_it_was_made_for_them(champion: ModelVersion) -> None:
    assert champion_score("accuracy", champion, rows()) == 1.0
    assert math.isnan(champion_score("accuracy", champion, rows(classes=("no", "maybe"))))
    assert math.isnan(champion_score("accuracy", champion, rows(frame=X.rename(columns={"a": "z"}))))


def test_a_registry_that_does_not_answer_never_costs_the_champion_its_place(champion: ModelVersion) -> None:
    gone = champion.model_copy(update={"version": 99})
    with pytest.raises(RegistryError):
        champion_score("accuracy", gone, rows())


def prepared(**data: object) -> Plan:
    """A plan on the dataset version that the rows and the rules of the split make, which is on record."""
    use_case = UseCase.model_validate(
        {
            "name": "toy",
            "title": "Toy",
            "data": {"source": "sklearn:breast_cancer", "target": "target", "holdout": 0.4, **data},
            "tuning": {"metric": "accuracy"},
            "classical": {"objective": "x.py"},
            "system": {},
            "promotion": {},
        }
    )
    ref = prepare(use_case, None, datetime(2030, 1, 1, tzinfo=UTC)).ref
    Ledger().record_dataset(ref, run="DataPrepFlow/1")
    return Plan(use_case, "system", dataset=ref)


def trained(estimator: Any, plan: Plan) -> ModelVersion:
    """A registered system of an estimator, fitted on the plan's development rows."""
    rows = load_dataset(plan.data)
    table = rows.ref.table
    system = System(
        Signature(table.features, table.shape, table.classes), (Member("one", estimator.fit(rows.X, rows.y)),)
    )
    return client.register(
        "toy", save(system), use_case="toy", example=rows.X[:2], predictions=system.predict(rows.X[:2]), metrics={},
        params={}, lineage={"dataset": plan.data.fingerprint},
    )  # fmt: skip


def rows_of(plan: Plan) -> set[tuple[float, ...]]:
    return set(load_dataset(plan.data).X.itertuples(index=False, name=None))


def by_heart() -> DecisionTreeClassifier:
    return DecisionTreeClassifier(random_state=0)


def honest() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression())


@pytest.mark.usefixtures("home")
def test_after_a_change_of_the_split_the_champion_has_no_credit_for_rows_that_it_knows_by_heart() -> None:
    before, now = prepared(), prepared(split_seed=1)
    champion, challenger = trained(by_heart(), before), trained(honest(), now)
    holdout, known = load_dataset(now.data, "holdout"), rows_of(before)
    new = np.array([row not in known for row in holdout.X.itertuples(index=False, name=None)])

    decision = decide(now, challenger, champion, latency_ms=1.0)

    labels = np.array(holdout.ref.table.classes)[holdout.y[new]]
    expected = client.load_version(champion).predict(holdout.X[new]) == labels
    assert decision.figures["champion"] == pytest.approx(expected.mean())
    assert decision.figures["champion"] < champion_score("accuracy", champion, holdout) - 0.02
    assert decision.promote
    assert f"accuracy (on the {new.sum()} of {len(new)} holdout rows that are new to the champion)" in decision.reason


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("more", [{}, {"rows": 569}], ids=["the same rows", "more rows"])
def test_while_the_split_stays_all_of_the_holdout_counts(more: dict[str, int]) -> None:
    before, now = prepared(rows=500), prepared(**{"rows": 500, **more})
    champion, challenger = trained(by_heart(), before), trained(honest(), now)
    holdout = load_dataset(now.data, "holdout")

    decision = decide(now, challenger, champion, latency_ms=1.0)

    assert decision.figures["champion"] == champion_score("accuracy", champion, holdout)
    assert "holdout rows" not in decision.reason


@pytest.mark.usefixtures("home")
def test_a_champion_that_cant_be_compared_fairly_keeps_its_place() -> None:
    before, now = prepared(holdout=0.1), prepared(holdout=0.1, split_seed=1)
    champion, challenger = trained(DummyClassifier(), before), trained(honest(), now)

    few = decide(now, challenger, champion, latency_ms=1.0)
    shutil.rmtree(before.data.uri)
    gone = decide(now, challenger, champion, latency_ms=1.0)

    assert (few.promote, gone.promote) == (False, False)
    assert re.search(
        r"the split has changed since, and only \d of \d\d holdout rows are new to it, too few", few.reason
    )
    assert f"trained on (dataset version {before.data.fingerprint[:12]}) can't be read any more" in gone.reason


def test_rows_that_come_again_with_time_count_if_both_have_learned_from_them() -> None:
    again = rows()
    assert len(new_to_champion(again, development=again, trained_on=again).y) == 4
    only_champion = new_to_champion(again, development=replace(again, X=X[:2]), trained_on=again)
    assert only_champion.X.equals(X[:2])
