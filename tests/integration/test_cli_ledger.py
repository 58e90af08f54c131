"""Commands that read the ledger, on a real database."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from shared.cli.app import app
from shared.domain import PromotionDecision, TrialSummary
from shared.events.chain import Chain, utc_now
from shared.events.graph import Flow, Graph
from shared.events.watch import study_progress
from shared.settings import settings
from shared.storage import PostgresStorage
from shared.storage.database import sqlalchemy_url
from shared.storage.ledger import Ledger
from tests import on_record
from tests.conftest import Server

pytestmark = pytest.mark.usefixtures("database")

FINGERPRINT = "f" * 64
PARAMS = {"family": "svm", "C": 3.5}
SOURCE = """
from sklearn.svm import SVC

def build(trial):
    trial.suggest_categorical("family", ["svm"])
    return SVC(C=trial.suggest_float("C", 0.1, 10))
"""


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVERTUNE_HOME", str(tmp_path))
    settings.cache_clear()
    return tmp_path


@pytest.fixture
def registry(server: Server, mlflow_template: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    """MLflow with three versions of `digits`."""
    with server.fresh(mlflow_template) as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlalchemy_url(url))
        settings.cache_clear()
        yield on_record.register_versions("digits", 3)


def invoke(*args: str):
    return CliRunner().invoke(app, args)


def finish(variant: str, run: str, objective: str = "flows/classical_hpo/objectives/svm.py") -> str:
    """Put a finished study of `digits` on record."""
    ledger, name = Ledger(), f"digits/{variant}/{FINGERPRINT[:12]}/{variant[:8]}"
    outcome = {
        "trial": 17,
        "value": -0.0412,
        "metric": "neg_log_loss",
        "top": [TrialSummary(number=17, values=(-0.0412,), params=PARAMS).model_dump(mode="json")],
        "objective_hash": ledger.save_source(SOURCE),
        "objective": objective,
        "model": f"digits-{variant}",
        "version": 3,
    }
    on_record.finish(name, outcome, run, variant=variant, fingerprint=FINGERPRINT)  # type: ignore[arg-type]
    return name


def test_status_shows_the_chain_the_studies_and_the_champion(registry: MlflowClient):
    registry.set_registered_model_alias("digits", "champion", "3")
    study = finish("classical", "ClassicalHPOFlow/7")
    Ledger().log_promotion("digits", 3, None, PromotionDecision(promote=True, reason="first"), "SystemTuneFlow/9")
    chain = Chain.begin("digits", Graph.of(Flow("DataPrepFlow", Path("a"))), 1, utc_now())
    chain.update("DataPrepFlow", state="failed", run="DataPrepFlow/5", note="no rows").model_copy(
        update={"finished_at": utc_now()}
    ).save()

    result = invoke("status")

    assert result.exit_code == 0, result.output
    assert f"{chain.id} of digits: failed" in result.stdout
    assert "DataPrepFlow/5" in result.stdout
    assert study in result.stdout
    assert re.search(r"champion +digits version 3", result.stdout)


def test_status_logs_and_shows_what_is_live_where_the_alias_was_moved_by_hand(registry: MlflowClient):
    finish("system", "SystemTuneFlow/9")
    Ledger().log_promotion("digits", 3, None, PromotionDecision(promote=True, reason="first"), "SystemTuneFlow/9")
    registry.set_registered_model_alias("digits", "champion", "3")
    invoke("status", "digits")
    registry.set_registered_model_alias("digits", "champion", "2")

    shown = invoke("status", "digits").stdout
    assert re.search(r"champion +digits version 2, since .*, moved there by somebody outside of Evertune", shown)
    assert re.search(r"gate +version 3 promoted: first", shown)
    assert [(p.version, p.kind) for p in Ledger().promotions("digits")] == [(3, "gate"), (2, "found")]


def test_status_of_a_project_where_nothing_has_run_says_how_to_begin():
    assert "nothing has run yet; start with `evertune run" in invoke("status").stdout


def test_the_best_parameters_are_a_snippet_that_runs():
    finish("classical", "ClassicalHPOFlow/7")

    snippet = invoke("best", "digits", "--variant", "classical").stdout

    head, _, _ = snippet.partition("objective = ")
    namespace: dict[str, object] = {}
    exec(head, namespace)
    assert namespace["params"] == PARAMS
    assert "trial 17, neg_log_loss -0.0412" in snippet


def test_without_a_variant_the_best_parameters_are_the_systems():
    finish("classical", "ClassicalHPOFlow/7")
    finish("system", "SystemTuneFlow/9", objective="")

    assert invoke("best", "digits").stdout.startswith("# system: trial 17")


def test_best_needs_a_study_that_is_done():
    finish("classical", "ClassicalHPOFlow/7")

    for arguments, known in ((["best", "diabetes"], "none"), (["best", "digits", "--variant", "deep"], "classical")):
        result = invoke(*arguments)
        assert result.exit_code == 1
        assert f"has {known}; run `evertune run {arguments[1]}`" in result.stderr


def test_progress_is_that_of_the_studies_that_the_chains_runs_have_claimed():
    import optuna

    study = optuna.create_study(storage=PostgresStorage(), study_name="digits/deep/x", direction="maximize")
    study.set_user_attr("evertune", {"n_trials": 20})
    study.optimize(lambda trial: trial.number, n_trials=3)
    Ledger().begin("digits/deep/x", "digits", "deep", FINGERPRINT, budget=1, run="DeepHPOFlow/8")
    finish("classical", "ClassicalHPOFlow/7")
    flows = [Flow("ClassicalHPOFlow", Path("a")), Flow("DeepHPOFlow", Path("b"))]
    chain = Chain.begin("digits", Graph.of(*flows), 1, utc_now())
    for run in ("ClassicalHPOFlow/7", "DeepHPOFlow/8"):
        chain = chain.update(run.split("/")[0], state="running", run=run)

    found = study_progress(chain)

    assert [*found] == ["DeepHPOFlow"]
    assert (found["DeepHPOFlow"].finished, found["DeepHPOFlow"].budget, found["DeepHPOFlow"].best) == (3, 20, 2.0)


def test_a_checked_config_is_printed_whole():
    result = invoke("config", "check", "breast_cancer", "--set", "classical.n_trials=7")

    assert result.exit_code == 0, result.output
    config = json.loads(result.stdout)
    assert config["classical"]["n_trials"] == 7
    assert config["tuning"]["folds"] == 5


def test_a_config_whose_objective_is_missing_is_refused():
    result = invoke("config", "check", "breast_cancer", "--set", "classical.objective=objectives/breast.py")

    assert result.exit_code == 1
    assert "there is no such objective file; did you mean 'breast_cancer.py'?" in result.stderr


def test_the_services_are_shown_without_their_passwords(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example.com")
    settings.cache_clear()

    result = invoke("services", "status")

    assert "running" in result.stdout
    assert "mlflow.example.com" in result.stdout
    assert "secret" not in result.output


@pytest.mark.parametrize("command", ["run", "cards"])
def test_a_home_that_cannot_be_written_is_told(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EVERTUNE_HOME", str(tmp_path / "file"))
    settings.cache_clear()
    done = CliRunner().invoke(app, [command, "digits"])
    settings.cache_clear()
    assert done.exit_code == 1
    assert "EVERTUNE_HOME must be a folder that can be written" in done.output
