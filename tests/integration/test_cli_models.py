"""`evertune models` as somebody types it, on a real MLflow, with models that load."""

from __future__ import annotations

import py_compile
import re
import shlex
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

import mlflow
import pytest
from mlflow import MlflowClient
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner, Result
from xgboost import XGBClassifier

from shared.cli.app import app
from shared.config import load_use_case
from shared.data.store import load_dataset
from shared.domain import Dataset, PromotionDecision
from shared.model import Member, Signature, System, save
from shared.registry import aliases, client, promotion
from shared.storage.ledger import Ledger
from shared.storage.services import mlflow_tracking_uri
from tests.on_record import prepare_rows

NAME = "breast_cancer"
PAGE = Path(__file__).parents[2] / "docs" / "models.md"
YES = PromotionDecision(promote=True, reason="better by 0.1", figures={"challenger": -0.1, "latency_ms": 1.5})
NO = PromotionDecision(promote=False, reason="worse, or luck", figures={"challenger": -0.6})


def run(*arguments: str, ok: bool = True) -> str:
    """What a command prints."""
    result: Result = CliRunner().invoke(app, ["models", *arguments])
    assert (result.exit_code == 0) is ok, result.output
    return result.output


def register(estimator: object, rows: Dataset, **params: object) -> int:
    table = rows.ref.table
    system = System(
        Signature(table.features, table.shape, table.classes), [Member("one", estimator.fit(rows.X, rows.y))]
    )
    lineage = {
        "dataset": rows.ref.fingerprint,
        "study": f"{NAME}/system/abc/def",
        "trial": "7",
        "run": "SystemTuneFlow/1",
    }
    example = rows.X[:2]
    return client.register(
        NAME, save(system), use_case=NAME, example=example, predictions=system.predict(example),
        metrics={"development_neg_log_loss": -0.2}, params=params, lineage=lineage,
    ).version  # fmt: skip


@pytest.fixture
def rows(home) -> Dataset:
    """Development rows of the dataset version that is on record."""
    del home
    prepare_rows(load_use_case(NAME))
    newest = Ledger().newest_dataset(NAME)
    assert newest is not None
    return load_dataset(newest)


@pytest.fixture
def good_and_poor(rows) -> None:
    """Version 1, which the gate has made champion, and version 2, a poor one that it has refused."""
    register(LogisticRegression(max_iter=5000), rows, C=1.0, kind="linear")
    register(DummyClassifier(), rows, C=1.0, kind="dummy")
    promotion.promote(NAME, 1, YES, seen=None, actor="SystemTuneFlow/1")
    promotion.promote(NAME, 2, NO, seen=1, actor="SystemTuneFlow/2")


@pytest.mark.usefixtures("good_and_poor")
def test_what_the_page_says_to_type_leads_from_the_list_to_a_promotion_and_back():
    commands, _ = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for command in commands.replace("digits", NAME).splitlines():
        assert run(*shlex.split(command)[2:])
    kinds = [(p.version, p.kind, p.reason, p.actor) for p in Ledger().promotions(NAME)[2:]]
    assert kinds == [
        (2, "hand", "the auditors ask for it", "tester"),
        (1, "rollback", "it was a mistake", "tester"),
    ]


def row(shown: str, version: int) -> str:
    (found,) = re.findall(rf"^ *{version} .*$", shown, re.MULTILINE)
    return found


@pytest.mark.usefixtures("good_and_poor")
def test_a_person_may_overrule_the_gate_and_what_they_did_is_shown():
    listed = run("list", NAME)
    assert "neg_log_loss" in listed
    assert re.search(r"1 +champion +-0.2 .* MB .* def +7 +\d{4}-\d\d-\d\d \d\d:\d\d by the gate", row(listed, 1))
    assert row(listed, 2).rstrip().endswith("refused by the gate")

    refused = run("promote", NAME, "2", ok=False)
    assert "the gate has said: version 2 not promoted: worse, or luck" in refused
    assert "there is no terminal to ask" in refused
    assert aliases.of(NAME) == {"champion": 1}

    run("promote", NAME, "2", "--yes", "--reason", "the auditors want it")
    assert aliases.of(NAME) == {"champion": 2, "previous": 1}
    shown = run("show", NAME)
    assert "version 2 (champion)" in shown
    assert re.search(r"kind +dummy", shown)
    assert "champion instead of 1, by tester (hand): the auditors want it" in shown
    assert "2 is the champion of breast_cancer already" in run("promote", NAME, "champion", ok=False)

    assert "version 1 is champion instead of version 2" in run("rollback", NAME, "--reason", "it is a dummy")
    history = run("show", NAME, "2")
    assert "version 1 took its place, by tester (rollback): it is a dummy" in history
    assert aliases.of(NAME) == {"champion": 1}


@pytest.mark.usefixtures("good_and_poor")
def test_two_versions_are_compared_on_the_holdout_without_a_turn_of_the_gate():
    before = Ledger().promotions(NAME)

    shown = run("compare", NAME, "2")

    assert re.search(r"kind +dummy +linear", shown)
    assert not re.search(r"\bC\b", shown), "what both have is left out"
    found = re.search(r"a gain of (\S+), in 95 % of draws of these rows of (\S+) to (\S+)", shown)
    assert found
    gain, low, high = map(float, found.groups())
    assert low < gain < high < 0, "the dummy is surely worse"
    assert "spends nothing" in shown
    assert Ledger().promotions(NAME) == before


@pytest.mark.usefixtures("good_and_poor")
def test_verify_mends_what_it_can_and_ends_with_1_where_a_person_must(home: Path):
    assert "✓ breast_cancer: version 1 is champion, as the log says" in run("verify", NAME)

    registry = MlflowClient(mlflow_tracking_uri(), mlflow_tracking_uri())
    registry.set_registered_model_alias(NAME, "champion", "2")
    moved = run("verify", NAME)
    assert "somebody outside of Evertune has made version 2 champion: logged now" in moved
    assert "version 1 is where a rollback leads to" in moved
    assert "outside" not in run("verify", NAME)

    Ledger().log_promotion(NAME, 1, 2, YES, "SystemTuneFlow/3")
    assert "the promotion of version 1 by SystemTuneFlow/3 was interrupted: carried out now" in run("verify", NAME)
    assert aliases.of(NAME) == {"champion": 1, "previous": 2}

    files = {path: path.read_bytes() for path in (home / "mlflow" / NAME).rglob("manifest.json")}
    for path in files:
        path.write_text("{}")
    assert "✗ breast_cancer: breast_cancer@champion, version 1" in run("verify", NAME, ok=False)
    for path, content in files.items():
        path.write_bytes(content)

    registry.delete_registered_model_alias(NAME, "champion")
    assert "the log knows version 1 as champion, but the alias is gone" in run("verify", NAME, ok=False)
    run("rollback", NAME)
    run("verify", NAME)


def test_verify_goes_on_after_a_version_whose_packages_are_not_installed_here(rows, monkeypatch):
    register(LogisticRegression(max_iter=5000), rows)
    register(XGBClassifier(n_estimators=1, n_jobs=1), rows)
    promotion.promote(NAME, 1, YES, seen=None, actor="SystemTuneFlow/1")
    promotion.promote(NAME, 2, YES, seen=1, actor="SystemTuneFlow/2")
    monkeypatch.setitem(sys.modules, "xgboost", None)

    shown = run("verify", NAME, ok=False)

    assert re.search(r"✗ breast_cancer: breast_cancer@champion, version 2: .* installed here, but .*xgboost", shown)
    assert "✓ breast_cancer: breast_cancer@previous, version 1: its files are there, and load" in shown


@pytest.mark.usefixtures("good_and_poor")
def test_what_loading_by_mlflow_leaves_in_a_version_is_no_fault_and_what_is_planted_there_does_not_run_after_verify(
    tmp_path, capfd, monkeypatch
):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    mlflow.set_tracking_uri(mlflow_tracking_uri())
    mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    folder = Path(MlflowClient().get_model_version(NAME, "1").source.removeprefix("file://"))
    (bytecode,) = folder.glob("__pycache__/served.*.pyc")
    planted = tmp_path / "planted.py"
    planted.write_text((folder / "served.py").read_text() + "print('planted')")
    py_compile.compile(str(planted), str(bytecode), doraise=True, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
    mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    assert "planted" in capfd.readouterr().out, "as it would run"

    assert f"load; __pycache__/{bytecode.name}: deleted, since MLflow runs it unread" in run("verify", NAME)
    assert "deleted" not in run("verify", NAME)

    mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    assert "planted" not in capfd.readouterr().out


@pytest.mark.usefixtures("good_and_poor")
def test_verify_says_what_to_do_where_somebody_moves_previous_while_it_looks(monkeypatch):
    promotion.promote(NAME, 2, YES, seen=1, actor="ann", kind="hand")
    agree, registry = promotion.log_champion, MlflowClient(mlflow_tracking_uri(), mlflow_tracking_uri())

    def moved(name: str) -> None:
        agree(name)
        registry.delete_registered_model_alias(name, "previous")

    with monkeypatch.context() as patch:
        patch.setattr(promotion, "log_champion", moved)
        shown = run("verify", NAME, ok=False)
    assert "the alias `previous` is gone, but by the log a rollback leads to version 1" in shown
    assert "`evertune models verify breast_cancer` puts it right" in shown
    assert "version 1 is where a rollback leads to" in run("verify", NAME)


@pytest.mark.usefixtures("good_and_poor")
def test_verify_does_not_call_a_promotion_moved_by_hand_whose_version_was_deleted():
    Ledger().log_promotion(NAME, 2, 1, YES, "SystemTuneFlow/3")
    MlflowClient(mlflow_tracking_uri(), mlflow_tracking_uri()).delete_model_version(NAME, "2")
    assert "void, since the alias was moved by hand meanwhile, or the version deleted" in run("verify", NAME)


def test_what_is_not_there_is_told(home: Path):
    del home
    assert "nothing is registered yet; `evertune run breast_cancer` ends with a model" in run("list", NAME)
    assert "'breast_cancer' isn't; `evertune models list`" in run("show", NAME, ok=False)
    assert "but 'champion' is none of them" in run("compare", NAME, "champion", ok=False)
    assert "did you mean 'breast_cancer'?" in run("promote", "breast_cancr", "1", ok=False)
    assert "there never was one; `evertune models list digit` shows" in run("rollback", "digit", ok=False)
    assert "there is no champion yet" in run("verify", NAME)
