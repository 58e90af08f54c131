"""A registered model is trained once more in a process of its own, from what is on record alone."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest
from pyarrow import parquet

from shared.config import UseCase
from shared.domain import ModelVersion, TrialSummary
from shared.errors import RegistryError, UnrecordedModelError
from shared.flow import hpo, origin, system
from shared.flow.environment import user_name
from shared.flow.reproduce import lineage_of, plan_of, reproduce
from shared.registry import client
from shared.settings import settings
from shared.storage import records
from shared.storage.database import connect
from shared.storage.ledger import Ledger
from shared.tuning.select import summary
from tests import on_record

pytestmark = pytest.mark.usefixtures("forked")
SOURCES = {
    "scikit-learn": """
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        def build(trial):
            return make_pipeline(StandardScaler(), RandomForestClassifier(trial.suggest_int("trees", 5, 20), n_jobs=2))
    """,
    "XGBoost": """
        from xgboost import XGBClassifier

        def build(trial):
            rounds = trial.suggest_int("rounds", 20, 60)
            return XGBClassifier(n_estimators=rounds, subsample=0.6, colsample_bytree=0.5, tree_method="hist")
    """,
    "an objective of one's own": """
        import numpy as np
        from sklearn.ensemble import RandomForestClassifier

        def objective(trial, data):
            return trial.suggest_float("share", 0.3, 0.9)

        def train(trial, data):
            rows = np.random.permutation(len(data.X))[: int(len(data.X) * trial.suggest_float("share", 0.3, 0.9))]
            return RandomForestClassifier(10).fit(data.X.iloc[rows], data.y[rows])
    """,
}
NETWORK = """
    from torch import nn

    def build(trial):
        width = trial.suggest_int("width", 8, 32)
        first = [nn.BatchNorm1d(30), nn.Linear(30, width), nn.ReLU(), nn.Dropout(0.2)]
        return nn.Sequential(*first, nn.Linear(width, 2))

    def fit_plan(trial):
        return {"lr": trial.suggest_float("lr", 1e-3, 1e-2, log=True), "batch_size": 64, "epochs": 5}
"""
RUNS = {"classical": "ClassicalHPOFlow/2", "deep": "DeepHPOFlow/3", "system": "SystemTuneFlow/4"}


@dataclass
class Chain:
    """The studies of a use case, run here as its flows would run them."""

    folder: Path
    tables: dict[str, object]

    def use_case(self, **tables: object) -> UseCase:
        return UseCase.model_validate({**self.tables, **tables})

    def registered(self, variant: str, source: str) -> ModelVersion:
        """The best of two trials of an objective, registered."""
        (self.folder / f"{variant}.py").write_text(dedent(source))
        self.tables[variant] = {"objective": f"{variant}.py", "n_trials": 2, "workers": 1}
        plan = hpo.plan(self.use_case(), variant, self.folder, run=RUNS[variant])
        hpo.tune(plan, worker=0, workers=1, task=f"{RUNS[variant]}/tune/1")
        result, _ = hpo.select(plan, [], run=RUNS[variant])
        version = hpo.register(plan, result, run=RUNS[variant])
        assert version is not None
        return version

    def system(self) -> ModelVersion:
        """Both members blended and calibrated, registered; what the search picks may be anything."""
        self.tables["system"] = {"n_trials": 5, "workers": 2}
        plan = system.plan(self.use_case(), run=RUNS["system"])
        system.tune(plan, worker=0, workers=2, task=f"{RUNS['system']}/tune/1")
        result, trials = system.select(plan, [], run=RUNS["system"])
        pick = next(t for t in map(summary, trials) if is_calibrated_blend(t))
        picked = result.model_copy(update={"best": pick})
        return hpo.register_model("cancer", plan, picked, system.retrain(plan, pick), RUNS["system"])


def is_calibrated_blend(trial: TrialSummary) -> bool:
    choice = trial.user_attrs.get("system", {})
    return len(choice.get("members", ())) == 2 and choice["calibration"] == "temperature"


@pytest.fixture
def chain(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """One with a dataset version, on two cores."""
    del home
    monkeypatch.setenv("EVERTUNE_CORES", "2")
    settings.cache_clear()
    made = Chain(
        tmp_path,
        {
            "name": "cancer",
            "title": "Cancer",
            "data": {"source": "sklearn:breast_cancer", "target": "target"},
            "tuning": {"metric": "neg_log_loss", "folds": 3},
            "classical": {"objective": "classical.py"},
        },
    )
    on_record.prepare_rows(made.use_case())
    return made


def evertune(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shared.cli", "models", *arguments], capture_output=True, text=True, check=False
    )


def reproduced(version: ModelVersion) -> tuple[int, str]:
    """Exit status and what was said."""
    before = len(client.versions(version.name))
    done = evertune("reproduce", version.name, str(version.version))
    assert len(client.versions(version.name)) == before
    return done.returncode, done.stdout + done.stderr


def holdout_rows() -> int:
    ref = Ledger().newest_dataset("cancer")
    assert ref is not None
    return ref.rows["holdout"]


@pytest.mark.parametrize("kind", SOURCES)
def test_a_classical_model_is_reproduced_to_the_last_bit(kind: str, chain: Chain) -> None:
    version = chain.registered("classical", SOURCES[kind])
    same = f"cancer-classical version 1: the same predictions for all {holdout_rows()} rows of the holdout\n"
    assert reproduced(version) == (0, same)


def test_a_network_is_reproduced_within_a_millionth(chain: Chain) -> None:
    version = chain.registered("deep", NETWORK)
    same = f"cancer-deep version 1: the same predictions for all {holdout_rows()} rows of the holdout, within 1e-06\n"
    assert reproduced(version) == (0, same)


def test_a_calibrated_system_is_reproduced_after_its_studies_are_gone_and_its_folds_forgotten(chain: Chain) -> None:
    chain.registered("classical", SOURCES["scikit-learn"])
    chain.registered("deep", NETWORK)
    version = chain.system()
    for entry in Ledger().entries("cancer"):
        hpo.start_anew(entry.study)
    ref = Ledger().newest_dataset("cancer")
    assert ref is not None
    shutil.rmtree(f"{ref.uri}/blobs")
    code, said = reproduced(version)
    assert (code, said.startswith("cancer version 1: the same predictions for all")) == (0, True), said


def test_of_other_rows_comes_another_model_and_it_says_by_how_much(chain: Chain) -> None:
    version = chain.registered("classical", SOURCES["scikit-learn"])
    ref = Ledger().newest_dataset("cancer")
    assert ref is not None
    path = f"{ref.uri}/development.parquet"
    table = parquet.read_table(path)
    parquet.write_table(table.slice(100), path)
    code, said = reproduced(version)
    assert code == 1
    assert re.match(
        rf"cancer-classical version 1: other predictions for \d+ of {holdout_rows()} rows of the holdout", said
    )
    assert "the largest difference is 0." in said
    assert "or the stored rows were changed" in said


def test_an_objective_with_random_numbers_of_its_own_is_not_reproduced(chain: Chain) -> None:
    unseeded = SOURCES["an objective of one's own"].replace("np.random.perm", "np.random.default_rng().perm")
    assert reproduced(chain.registered("classical", unseeded))[0] == 1


def test_what_has_changed_around_a_model_is_told() -> None:
    now = origin.environment()
    packages = {**now["packages"], "numpy": "1.0", "gone": "2"}
    changes = origin.changes({**now, "python": "3.1", "packages": packages}, now)
    assert changes == [
        f"python was 3.1, and is {now['python']} now",
        "gone was 2, and is not installed now",
        f"numpy was 1.0, and is {now['packages']['numpy']} now",
    ]
    assert origin.changes(now, now) == []
    assert origin.changes({key: facts for key, facts in now.items() if key != "cpu"}, now) == [
        f"cpu was unknown, and is {now['cpu']} now"
    ]


def test_packages_are_told_by_the_names_that_pip_knows_and_broken_ones_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, metadata in (
        ("first/Some.Package_x-1.dist-info", "Name: Some.Package_x\nVersion: 1\n"),
        ("second/some_package_x-2.dist-info", "Name: some-package-x\nVersion: 2\n"),
        ("first/broken-3.dist-info", None),
    ):
        (tmp_path / folder).mkdir(parents=True)
        if metadata:
            (tmp_path / folder / "METADATA").write_text(metadata)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), str(tmp_path / "second"), *sys.path])
    packages = origin.environment()["packages"]
    assert packages["some-package-x"] == "1", "the first is the one that is imported"
    assert not [name for name in packages if "broken" in name or "_" in name]


def test_a_model_leads_to_its_dataset_version_and_that_to_all_its_models(chain: Chain) -> None:
    chain.registered("classical", SOURCES["scikit-learn"])
    ref = Ledger().newest_dataset("cancer")
    assert ref is not None
    said = evertune("lineage", "cancer-classical", "challenger").stdout
    for line in (
        "cancer-classical version 1\n",
        "run ClassicalHPOFlow/2, ",
        f"study cancer/classical/{ref.fingerprint[:12]}/",
        "parameters trees=",
        f"objective {chain.folder}/classical.py, {lineage_of('cancer-classical', 1).lineage['objective']['hash'][:12]}",
        f"dataset version {ref.fingerprint[:12]}\n",
        "source sklearn:breast_cancer\n",
        "run DataPrepFlow/1\n",
    ):
        assert line in said.replace("\n│   │   ", " ")
    back = evertune("lineage", "--dataset", ref.fingerprint[:8]).stdout
    assert re.search(rf"dataset version {ref.fingerprint[:12]}\n└── cancer-classical\n    └── version 1: trial", back)
    assert "no model was made of 'abc'" in evertune("lineage", "--dataset", "abc").stderr
    assert "name a MODEL, or give --dataset" in evertune("lineage").stderr


def test_trusting_a_version_warns_and_makes_it_loadable_but_tells_nothing_of_its_past(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(records, "record", lambda *_: True)
        version = chain.registered("classical", SOURCES["XGBoost"])
    with pytest.raises(UnrecordedModelError, match="`evertune models trust cancer-classical 1` records its files"):
        client.load_version(version)
    unasked = evertune("trust", "cancer-classical", "1")
    assert (unasked.returncode, "a person must agree, but there is no terminal" in unasked.stderr) == (1, True)
    assert records.find("cancer-classical", 1) is None
    trusted = evertune("trust", "cancer-classical", "1", "--yes")
    assert (trusted.returncode, "nobody has checked who wrote them" in trusted.stdout) == (0, True)
    assert f"its files were trusted by {user_name()}, " in evertune("lineage", "cancer-classical", "1").stdout
    assert len(client.load_version(version).members) == 1
    assert "must be put on record once" in evertune("trust", "cancer-classical", "1", "--yes").stderr
    assert "what a version was made of must be on record" in evertune("reproduce", "cancer-classical").stderr


def test_a_record_that_cant_be_used_any_more_says_which_part_and_what_to_do(chain: Chain) -> None:
    version = chain.registered("classical", SOURCES["scikit-learn"])
    recorded = dict(lineage_of(version.name, 1).lineage)
    for changed, why in (
        ({key: part for key, part in recorded.items() if key != "threads"}, "its 'threads' isn't there"),
        ({**recorded, "study": {**recorded["study"], "seed": "of words"}}, r"its 'study' can't be read \(seed: "),
    ):
        with pytest.raises(RegistryError, match=f"{why}.* reproduce it with that one"):
            plan_of(changed)
    ref = Ledger().newest_dataset("cancer")
    assert ref is not None
    path = f"{ref.uri}/holdout.parquet"
    parquet.write_table(parquet.read_table(path).slice(0, 0), path)
    with pytest.raises(RegistryError, match=rf"that of dataset version {ref.fingerprint[:12]} is empty"):
        reproduce(version)
    with connect() as connection:
        connection.execute("DELETE FROM evertune.dataset_versions")
    with pytest.raises(RegistryError, match=r"isn't on record any more; DataPrepFlow makes it again of the same rows"):
        reproduce(version)


def test_an_objective_whose_source_is_gone_is_no_reason_to_guess(chain: Chain) -> None:
    version = chain.registered("classical", SOURCES["scikit-learn"])
    with connect() as connection:
        connection.execute("DELETE FROM evertune.objective_sources")
    code, said = reproduced(version)
    assert (code, "an objective's source must be on record to be loaded" in said) == (1, True)
