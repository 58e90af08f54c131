"""The whole chain on real data by the local runner: from nothing to a promoted champion, again, and on more data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from shared.registry import client
from shared.storage.ledger import Ledger
from shared.storage.studies import open_storage
from tests.flows.conftest import Command

SMALL = ("classical.n_trials=4", "deep.n_trials=2", "system.n_trials=4", "retune.warm_trials=2")


def sets(*more: str) -> list[str]:
    return [argument for override in (*SMALL, *more) for argument in ("--set", override)]


def finished(study: str) -> int:
    storage = open_storage()
    trials = storage.get_all_trials(storage.get_study_id_from_name(study), deepcopy=False)
    return sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in trials)


def test_the_chain_promotes_a_champion_and_then_has_nothing_to_do(evertune: Command, home: Path) -> None:
    first = evertune("run", "digits", *sets("data.rows=400"))
    champion = client.champion("digits")
    assert champion is not None
    assert champion.version == 1
    assert "promoted" in first.stdout.lower()
    entries = {entry.variant: entry for entry in Ledger().entries("digits")}
    assert {variant: entry.state for variant, entry in entries.items()} == dict.fromkeys(
        ("classical", "deep", "system"), "done"
    )
    assert [finished(entries[v].study) for v in ("classical", "deep", "system")] == [4, 2, 4]
    assert {"dataset", "run", "study", "trial", "git_commit", "upstream"} <= champion.lineage.keys()
    assert champion.lineage["run"].startswith("SystemTuneFlow/")

    _the_champion_is_a_pyfunc_of_raw_rows("digits")
    _no_secret_in(home)

    again = evertune("run", "digits", *sets("data.rows=400"))
    assert "nothing" in again.stdout.lower()
    assert client.champion("digits") == champion
    assert {e.study: e.run for e in Ledger().entries("digits")} == {e.study: e.run for e in entries.values()}

    assert "champion" in evertune("status", "digits").stdout
    snippet = evertune("best", "digits", "--variant", "classical").stdout
    compile(snippet, "snippet", "exec")

    evertune("run", "digits", *sets("data.rows=500"))
    grown = [entry for entry in Ledger().entries("digits") if entry.fingerprint != entries["deep"].fingerprint]
    assert {entry.variant for entry in grown} == {"classical", "deep", "system"}
    classical = next(entry for entry in grown if entry.variant == "classical")
    assert finished(classical.study) == 2  # retune.warm_trials, from the earlier study's best
    storage = open_storage()
    trials = storage.get_all_trials(storage.get_study_id_from_name(classical.study))
    assert trials[0].params == entries["classical"].outcome["top"][0]["params"]


def _the_champion_is_a_pyfunc_of_raw_rows(use_case: str) -> None:
    import mlflow
    from sklearn.datasets import load_digits

    from shared.storage.services import mlflow_tracking_uri

    mlflow.set_tracking_uri(mlflow_tracking_uri())
    model = mlflow.pyfunc.load_model(f"models:/{use_case}@champion")
    rows, labels = load_digits(return_X_y=True, as_frame=True)
    predicted = model.predict(rows.head(300).astype(model.metadata.get_input_schema().pandas_types()[0]))
    assert np.mean(np.asarray(predicted) == labels.head(300)) > 0.8


def _no_secret_in(home: Path) -> None:
    """The database's URL is in no artifact, tag, log or config of the runs."""
    import os

    url = os.environ["EVERTUNE_DATABASE_URL"].encode()
    assert [path for path in home.rglob("*") if path.is_file() and url in path.read_bytes()] == []


def test_a_variant_that_the_config_leaves_out_is_idle(evertune: Command) -> None:
    small = ("--set", "classical.n_trials=3", "--set", "system.n_trials=3")
    evertune("run", "breast_cancer", *small)
    assert {entry.variant for entry in Ledger().entries("breast_cancer")} == {"classical", "system"}
    champion = client.champion("breast_cancer")
    assert champion is not None
    promotions = Ledger().promotions("breast_cancer")
    assert [(p.version, p.promoted) for p in promotions] == [(champion.version, True)]
    assert json.dumps(dict(promotions[0].figures))
