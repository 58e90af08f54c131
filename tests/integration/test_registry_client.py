"""Registering, finding and loading model versions, on a real MLflow."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from xgboost import XGBRegressor

from shared.domain import ModelVersion
from shared.errors import RegistryError, ServiceError
from shared.model import Member, Signature, System, save
from shared.registry import aliases, client
from shared.settings import settings
from shared.storage import services

pytestmark = pytest.mark.usefixtures("home")

NAME = "iris-classical"
LINEAGE = {
    "dataset": "0123456789abcdef",
    "run": "ClassicalHPOFlow/7",
    "study": "iris/classical/0123/89ab",
    "trial": "4",
}


@pytest.fixture(scope="module")
def files(system) -> dict[str, bytes]:
    return save(system)


@pytest.fixture
def register(files, rows, system):
    def call(score: float = -0.25, **changes) -> ModelVersion:
        arguments = {
            "use_case": "iris",
            "example": rows[:3],
            "predictions": system.predict(rows[:3]),
            "metrics": {"neg_log_loss": score},
            "params": {"family": "linear", "one": {"C": 1.5, "note": "x" * 7000}, "odd|key": 1},
            "lineage": LINEAGE,
        }
        return client.register(changes.pop("name", NAME), files, **{**arguments, **changes})

    return call


def test_a_version_is_registered_with_its_metrics_parameters_and_lineage_and_in_silence(register, home, capfd):
    version = register()
    assert capfd.readouterr() == ("", "")
    assert (version.name, version.version, version.aliases) == (NAME, 1, ())
    assert version.metrics == {"neg_log_loss": -0.25, "size_mb": pytest.approx(0.027, abs=0.01)}
    assert version.lineage == {**LINEAGE, "use_case": "iris"}
    mlflow = mlflow_client()
    registered = mlflow.get_model_version(NAME, "1")
    run = mlflow.get_run(registered.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"family": "linear", "one.C": "1.5", "one.note": "x" * 6000, "odd_key": "1"}
    assert run.data.tags["evertune.study"] == LINEAGE["study"]
    assert mlflow.get_experiment(run.info.experiment_id).name == NAME
    assert registered.description == (
        "Made by Evertune from trial 4 of the study iris/classical/0123/89ab, on dataset version 0123456789ab."
    )
    assert Path(registered.source.removeprefix("file://")).is_relative_to(home / "mlflow" / NAME)


def test_the_registered_model_is_its_script_its_native_files_and_what_it_requires(register):
    register()
    folder = Path(mlflow_client().get_model_version(NAME, "1").source.removeprefix("file://"))
    native = {"artifacts/system/manifest.json", "artifacts/system/members/0/model.skops"}
    described = {"MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt"}
    example = {"input_example.json", "serving_input_example.json"}
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc"}
    assert found - {"registered_model_meta"} == {"served.py"} | native | described | example
    required = {line.partition("==")[0] for line in (folder / "requirements.txt").read_text().split()}
    assert required == {"mlflow", "numpy", "pandas", "scikit-learn", "skops"}


def test_aliases_find_versions_and_newer_ones_take_them_over(register):
    assert client.by_alias(NAME, "challenger") is None
    first, second = register(), register(score=-0.125)
    aliases.point(NAME, "challenger", 1)
    aliases.point(NAME, "challenger", 2)
    second = client.version(NAME, 2)
    assert client.by_alias(NAME, "challenger") == second
    assert client.champion(NAME) is None
    assert (first.uri, second.uri) == (f"models:/{NAME}/1", f"models:/{NAME}/2")
    assert (second.aliases, second.metrics["neg_log_loss"]) == (("challenger",), -0.125)


@pytest.mark.parametrize("page", [client.PAGE, 2])
def test_all_versions_of_a_model_are_listed_with_their_aliases_and_their_lineage(register, monkeypatch, page):
    assert client.versions(NAME) == []
    monkeypatch.setattr(client, "PAGE", page)
    registered = [register() for _ in range(3)]
    register(name=f"{NAME}-too")
    aliases.point(NAME, "challenger", 2)
    aliases.point(NAME, "champion", 2)
    expected = [v.model_copy(update={"metrics": {}, "aliases": ()}) for v in registered]
    expected[1] = expected[1].model_copy(update={"aliases": ("challenger", "champion")})
    assert sorted(client.versions(NAME), key=lambda v: v.version) == expected


def test_the_run_of_a_registration_that_died_is_closed_by_the_next(register, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(client, "_log", die)
        with pytest.raises(KeyboardInterrupt):
            register()
    registry = mlflow_client()
    experiment = registry.get_experiment_by_name(NAME).experiment_id
    own = registry.create_run(experiment)  # one that a person has made there
    register()
    status = {run.info.run_id: run.info.status for run in registry.search_runs([experiment])}
    assert status.pop(own.info.run_id) == "RUNNING"
    assert sorted(status.values()) == ["FINISHED", "KILLED"]


def test_a_version_is_loaded_with_the_same_predictions(register, system, rows):
    loaded = client.load_version(register())
    np.testing.assert_array_equal(loaded.predict_proba(rows), system.predict_proba(rows))


def test_a_regression_is_registered_too(rows):
    values = rows.iloc[:, 0].to_numpy()
    system = System(Signature(tuple(rows.columns), (4,)), [Member("one", Ridge().fit(rows, values))])
    facts = {"use_case": "sizes", "metrics": {"r2": 1.0}, "params": {}, "lineage": {}}
    version = client.register("sizes", save(system), example=rows[:2], predictions=system.predict(rows[:2]), **facts)
    np.testing.assert_array_equal(client.load_version(version).predict(rows), system.predict(rows))


ROW = {"n": 4, "x": 1.5, "b": True, "t": "a"}
TAKEN = [
    ("numbers as in training", [ROW]),
    ("a fraction among whole numbers", [{**ROW, "n": 2.5}]),
    ("a null among whole numbers", [ROW, {**ROW, "n": None}]),
    ("no number at all", [{**ROW, "n": None, "x": None}]),
    ("whole numbers in a column of fractions", [{**ROW, "x": 2}]),
]
REFUSED = [
    ("text in a numeric column", {**ROW, "n": "two"}),
    ("a number for a boolean", {**ROW, "b": 0.5}),
    ("a number for text", {**ROW, "t": 1}),
    ("a column too few", {"n": 4}),
]


def test_the_pyfunc_takes_any_number_or_none_in_a_numeric_column_and_nothing_else():
    rows = pd.DataFrame({"n": [1, 5, 9, 7], "x": [0.5, 2.0, 1.5, 3.0], "b": [True, False] * 2, "t": list("abba")})
    encode = ColumnTransformer([("t", OneHotEncoder(sparse_output=False), ["t"])], remainder="passthrough")
    model = make_pipeline(encode.set_output(transform="pandas"), XGBRegressor(n_estimators=3, n_jobs=1)).fit(
        rows, [1.0, 2.0, 3.0, 4.0]
    )
    system = System(Signature(tuple(rows.columns), (4,)), [Member("one", model)])
    facts = {"use_case": "mixed", "metrics": {}, "params": {}, "lineage": {}}
    version = client.register("mixed", save(system), example=rows[:3], predictions=system.predict(rows[:3]), **facts)
    mlflow.set_tracking_uri(services.mlflow_tracking_uri())
    served = mlflow.pyfunc.load_model(version.uri)

    for why, taken in TAKEN:
        raw = pd.DataFrame(taken)
        expected = system.predict(raw.astype({"n": "float64", "x": "float64"}))
        np.testing.assert_array_equal(served.predict(raw), expected, err_msg=why)
    for _, refused in REFUSED:
        with pytest.raises((MlflowException, ValueError), match=r"Incompatible input types|missing inputs|to float"):
            served.predict(pd.DataFrame([refused]))


SERVE = """
import sys

class NoEvertune:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "shared":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoEvertune())
import mlflow.pyfunc
from sklearn.datasets import load_iris

mlflow.set_tracking_uri(sys.argv[1])
rows = load_iris(as_frame=True).data[::60]
first, second = (mlflow.pyfunc.load_model(f"models:/iris-classical/{version}") for version in (1, 2))
assert type(first.unwrap_python_model()) is not type(second.unwrap_python_model())
print(first.predict(rows[rows.columns[::-1]]).tolist())
print(second.predict(rows, params={"output": "proba"}).round(3).to_json())
try:
    second.predict(rows, params={"output": "logits"})
except ValueError as err:
    print(err)
"""


def test_the_pyfunc_predicts_raw_rows_where_there_is_no_evertune(register, system, rows, tmp_path):
    register()
    register()
    done = subprocess.run(
        [sys.executable, "-c", SERVE, services.mlflow_tracking_uri()],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
    )
    proba = pd.DataFrame(system.predict_proba(rows[::60]), rows[::60].index, system.signature.classes)
    labels, probabilities, error = done.stdout.splitlines()
    assert labels == str(system.predict(rows[::60]).tolist())
    assert probabilities == proba.reset_index(drop=True).round(3).to_json()
    assert error == '`output` must be "label" or "proba", but is \'logits\''


def test_a_network_is_served_by_the_same_script(system, rows, monkeypatch):
    from torch import manual_seed, nn

    monkeypatch.setattr(sys, "dont_write_bytecode", False)  # MLflow imports the script where it lies

    manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    network = System(system.signature, [Member("one", layers.eval())])
    facts = {"use_case": "iris", "metrics": {}, "params": {}, "lineage": {}}
    version = client.register("net", save(network), example=rows[:3], predictions=network.predict(rows[:3]), **facts)
    mlflow.set_tracking_uri(services.mlflow_tracking_uri())
    proba = mlflow.pyfunc.load_model(version.uri).predict(rows, params={"output": "proba"})
    np.testing.assert_allclose(proba, network.predict_proba(rows), atol=1e-6)
    np.testing.assert_allclose(client.load_version(version).predict_proba(rows), network.predict_proba(rows), atol=1e-6)


def test_what_mlflow_refuses_is_an_error_that_says_what_was_tried(register):
    register()
    with pytest.raises(RegistryError, match=f"can't set {NAME}@champion: the registry has no version 9"):
        aliases.point(NAME, "champion", 9)
    with pytest.raises(RegistryError, match="can't register a version of a/b: "):
        register(name="a/b")


def test_a_version_whose_files_are_gone_is_an_error_that_names_it(register):
    version = register()
    shutil.rmtree(mlflow_client().get_model_version(NAME, "1").source.removeprefix("file://"))
    with pytest.raises(RegistryError, match=rf"can't load models:/{NAME}/1: (?s:.*)No such file or directory"):
        client.load_version(version)


def test_a_database_of_mlflow_that_does_not_answer_is_named_without_its_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg://ann:hidden@127.0.0.1:1/mlflow")
    settings.cache_clear()
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:1 isn't \(.*refused\); check MLFLOW_TRACKING_URI") as caught:
        client.champion(NAME)
    assert "hidden" not in str(caught.value)


def mlflow_client():
    from mlflow import MlflowClient

    return MlflowClient(services.mlflow_tracking_uri())
