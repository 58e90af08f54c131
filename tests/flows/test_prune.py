"""`evertune prune` on real files: nothing that is needed goes, and what goes is gone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from shared.config import UseCase, load_use_case
from shared.data.store import is_complete
from shared.domain import DatasetRef, ModelVersion
from shared.events.chain import Chain
from shared.events.graph import Flow, Graph
from shared.events.prune import find_surplus, prune
from shared.model import Member, Signature, System, save
from shared.registry import aliases, client
from shared.storage import PostgresStorage
from shared.storage.ledger import Ledger
from tests import on_record
from tests.flows.conftest import Command, execute

ROOT = Path(__file__).parents[2]
IN_A_YEAR = datetime.now(UTC) + timedelta(days=365)


def config(n_rows: int = 150) -> UseCase:
    return load_use_case(ROOT / "configs/breast_cancer.toml", [f"data.rows={n_rows}", "retention.versions=1"])


@pytest.fixture
def prepare(home: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], DatasetRef]:
    """Runs DataPrepFlow on the first rows of the source; returns the dataset version."""
    monkeypatch.chdir(checkout)

    def run(n_rows: int) -> DatasetRef:
        file = home / "breast_cancer.json"
        file.write_text(config(n_rows).model_dump_json(exclude_none=True))
        flow = (sys.executable, "flows/data_prep/flow.py", "--no-pylint", "--config", "use_case", str(file), "run")
        execute(*flow, ok=True, cwd=checkout)
        ref = Ledger().newest_dataset("breast_cancer")
        assert ref is not None
        return ref

    return run


def finish_study(ref: DatasetRef) -> str:
    """A study of three trials, done, on a dataset version."""
    name = f"breast_cancer/classical/{ref.fingerprint[:12]}/{ref.rows['development']:08}"
    storage = PostgresStorage()
    optuna.create_study(study_name=name, storage=storage).optimize(lambda trial: trial.suggest_float("x", 0, 1), 3)
    storage.close()
    run = f"ClassicalHPOFlow/{ref.rows['development']}"
    outcome = {"budget": 3, "objective_hash": Ledger().save_source(f"# tuned on {ref.fingerprint}")}
    on_record.finish(name, outcome, run, use_case="breast_cancer", fingerprint=ref.fingerprint)
    return name


def end_chain(pid: int) -> Chain:
    """A chain that has left its record and a log."""
    now = datetime.now(UTC)
    chain = Chain.begin("breast_cancer", Graph.of(Flow("DataPrepFlow", Path("flow.py"))), pid, now)
    chain.model_copy(update={"finished_at": now}).save()
    chain.log("DataPrepFlow").write_text("started, done")
    return chain


def register(ref: DatasetRef, study: str) -> ModelVersion:
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    system = System(
        Signature(tuple(X.columns), (30,), ("no", "yes")), [Member("one", LogisticRegression(max_iter=9999).fit(X, y))]
    )
    lineage: dict[str, str] = {"dataset": ref.fingerprint, "study": study, "run": "ClassicalHPOFlow/1"}
    facts: dict[str, Any] = {"metrics": {"neg_log_loss": -0.1}, "params": {}, "lineage": lineage}
    example = {"example": X[:3], "predictions": system.predict(X[:3])}
    return client.register("breast_cancer", save(system), use_case="breast_cancer", **example, **facts)


@pytest.mark.usefixtures("forked")
def test_old_nights_go_and_the_champion_stays_with_all_that_it_came_of(
    home: Path, checkout: Path, prepare: Callable[[int], DatasetRef], evertune: Command
) -> None:
    refs = [prepare(n_rows) for n_rows in (150, 160, 170, 180, 190)]
    studies = [finish_study(ref) for ref in refs]
    versions = [register(ref, study) for ref, study in zip(refs, studies, strict=True)]
    aliases.point("breast_cancer", aliases.CHAMPION, versions[0].version)
    ended = [end_chain(pid) for pid in (1, 2, 3)]
    assert "breast_cancer: nothing to prune" in evertune("prune", "breast_cancer", "--dry-run", cwd=checkout).stdout

    doomed = find_surplus(config(), IN_A_YEAR)
    assert [ref.fingerprint for ref in doomed.datasets] == [ref.fingerprint for ref in reversed(refs[1:4])]
    assert [entry.study for entry in doomed.studies] == studies[1:2]
    assert {version.version for version in doomed.versions} == {v.version for v in versions[1:4]}
    assert len(doomed.runs) == 4
    assert [source.studies for source in doomed.sources] == [studies[1:2]]
    assert {chain.id for chain in doomed.chains} == {chain.id for chain in ended[:2]}
    files = sum(path.is_file() for path in (checkout / ".metaflow" / "DataPrepFlow" / "data").rglob("*"))

    assert prune(config(), IN_A_YEAR) == doomed
    assert not find_surplus(config(), IN_A_YEAR)
    assert [chain.folder.exists() for chain in ended] == [False, False, True]
    assert [is_complete(ref) for ref in refs] == [True, False, False, False, True]
    assert [Path(ref.uri).exists() for ref in refs] == [True, False, False, False, True]
    assert [ref.fingerprint for ref in Ledger().datasets("breast_cancer")] == [refs[4].fingerprint, refs[0].fingerprint]
    assert [Ledger().entry(study) is None for study in studies] == [False, True, False, False, False]
    storage = PostgresStorage()
    assert {study.study_name for study in storage.get_all_studies()} == {*studies} - {studies[1]}
    storage.close()
    assert {version.version for version in client.versions("breast_cancer")} == {1, 5}
    assert client.load_version(versions[0]).members
    assert len(list((home / "mlflow").glob("*/models/*/artifacts/MLmodel"))) == 2

    (kept,) = (folder.name for folder in (checkout / ".metaflow" / "DataPrepFlow").iterdir() if folder.name.isdigit())
    shown = "import metaflow; metaflow.namespace(None); print(metaflow.Run('DataPrepFlow/{}').data.dataset.fingerprint)"
    command = (sys.executable, "-c", shown.format(kept))
    assert execute(*command, ok=True, cwd=checkout).stdout.strip() == refs[4].fingerprint, "its artifacts are whole"
    assert sum(path.is_file() for path in (checkout / ".metaflow" / "DataPrepFlow" / "data").rglob("*")) < files
    assert len(list((checkout / ".metaflow" / "mf.cards").glob("DataPrepFlow/runs/*"))) == 1
