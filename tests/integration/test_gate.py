"""The gate in `SystemTuneFlow`: the champion keeps its place through an outage, and gives way only for a reason."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from shared.domain import Dataset, DatasetRef, ModelVersion, Table
from shared.errors import RegistryError
from shared.flow.system import champion_score
from shared.model import Member, Signature, System, save
from shared.registry import client

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
