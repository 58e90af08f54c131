"""Bodies for `mlflow models serve`, posted to MLflow's own scoring server and to ours: both give the same answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
from mlflow.pyfunc.scoring_server import init
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from deployments.model_server.app import create
from deployments.model_server.live import LiveModel, load
from shared.model import Member, Signature, System, save
from shared.registry import client
from tests.integration.test_model_server import listening
from tests.production.test_model_server import until

ROWS = pd.DataFrame(
    {"size": [1.0, 2.5, np.nan, 4.0] * 5, "new": [True, False] * 10, "place": ["here", "there", "here", "far"] * 5}
)
RECORDS = json.loads(ROWS[:4].to_json(orient="records"))
SPLIT = json.loads(ROWS[:4].to_json(orient="split", index=False))
COLUMNS = {name: [record[name] for record in RECORDS] for name in ROWS}


def system(rows: pd.DataFrame, *texts: str) -> System:
    prepared = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), [*texts]), remainder="passthrough")
    model = make_pipeline(prepared, HistGradientBoostingClassifier(max_iter=5, min_samples_leaf=1, random_state=0))
    codes = np.arange(len(rows)) % 2
    return System(Signature(tuple(rows), (rows.shape[1],), ("no", "yes")), [Member("one", model.fit(rows, codes))])


@contextmanager
def both(rows: pd.DataFrame, *texts: str) -> Iterator[tuple[str, str]]:
    """Addresses of MLflow's scoring server and of ours, with one registered version."""
    one = system(rows, *texts)
    facts: dict[str, Any] = {"use_case": "toy", "metrics": {}, "params": {}, "lineage": {"dataset": "0123"}}
    version = client.register("toy", save(one), example=rows[:2], predictions=one.predict(rows[:2]), **facts)
    with client.downloaded(version) as folder:
        pyfunc = mlflow.pyfunc.load_model(str(folder))
        ours = LiveModel("toy", lambda _: version.version, lambda *_: load(version), lambda _: None)
        with listening(init(pyfunc)) as theirs, listening(create([ours])) as url:
            until(lambda: requests.get(f"{url}/readyz").ok)
            yield theirs, url


def answers(urls: tuple[str, str], body: Any, content_type: str = "application/json") -> list[Any]:
    content = body if isinstance(body, str) else json.dumps(body)
    posted = [requests.post(f"{url}/invocations", content, headers={"Content-Type": content_type}) for url in urls]
    assert [answer.status_code for answer in posted] == [200, 200], [answer.text for answer in posted]
    return [answer.json() for answer in posted]


@pytest.mark.usefixtures("home")
def test_both_servers_answer_alike_in_each_form() -> None:
    sparse = [RECORDS[0], {name: value for name, value in RECORDS[1].items() if name != "size"}]
    bodies: list[Any] = [
        {"dataframe_split": SPLIT},
        {"dataframe_split": SPLIT, "params": {"output": "proba"}},
        {"dataframe_records": RECORDS},
        {"dataframe_records": sparse},
        {"instances": RECORDS},
        {"inputs": COLUMNS},
        {"inputs": RECORDS[0]},
    ]
    with both(ROWS, "place") as urls:
        for body in bodies:
            theirs, ours = answers(urls, body)
            assert ours == theirs, body
        # MLflow's own reader of CSV takes no signature of any number: its answer is that to the same rows as JSON.
        theirs, ours = answers(urls, {"dataframe_split": SPLIT})
        csv = requests.post(
            f"{urls[1]}/invocations", ROWS[:4].to_csv(index=False), headers={"Content-Type": "text/csv"}
        )
        assert csv.json() == theirs


@pytest.mark.usefixtures("home")
def test_a_single_column_may_be_a_list_of_values() -> None:
    rows = ROWS[["place"]]
    with both(rows, "place") as urls:
        for form in ("instances", "inputs"):
            theirs, ours = answers(urls, {form: ["here", "far"]})
            assert ours == theirs
