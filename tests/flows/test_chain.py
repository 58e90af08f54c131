"""The whole chain on real data by the local runner: from nothing to a promoted champion, again, and on more data."""

from __future__ import annotations

import base64
import gzip
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from shared.registry import client
from shared.settings import settings
from shared.storage import PostgresStorage
from shared.storage.ledger import Ledger
from shared.storage.progress import progress
from tests.flows import spy
from tests.flows.conftest import ROOT, Command, execute

PASSWORD = "a-password-that-must-not-be-seen"
ANY_LATENCY = "system.latency_budget_ms=1000"  # the machine may be busy
REGISTERED = {"ClassicalHPOFlow": "digits-classical", "DeepHPOFlow": "digits-deep", "SystemTuneFlow": "digits"}
GZIP = b"\x1f\x8b"
SMALL = {  # line of configs/digits.toml → its end in the test
    "# rows = 1200 ": "rows = 400",
    "n_trials = 24": "n_trials = 4",
    "n_trials = 16": "n_trials = 2",
    "n_trials = 20": "n_trials = 4",
    "folds = 5": "folds = 3",
    "latency_budget_ms = 20.0": "latency_budget_ms = 1000",  # the machine may be busy
}


@pytest.fixture
def small_digits(checkout: Path) -> Path:
    """A checkout whose digits are few, and so are their trials."""
    config = checkout / "configs" / "digits.toml"
    text = config.read_text()
    for line, small in SMALL.items():
        assert text.count(line) == 1
        text = text.replace(line, small)
    config.write_text(text)
    return checkout


def sets(*settings: str) -> list[str]:
    """The options of `evertune run` that change a config."""
    return [part for setting in settings for part in ("--set", setting)]


def trial_states(study: str) -> list[str]:
    storage = PostgresStorage()
    trials = storage.get_all_trials(storage.get_study_id_from_name(study), deepcopy=False)
    return [trial.state.name for trial in trials]


def finished(study: str) -> int:
    return sum(state in ("COMPLETE", "PRUNED") for state in trial_states(study))


@pytest.fixture
def secret(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home, whose databases are reached with a password (any will do: the server trusts its socket)."""
    for variable in ("EVERTUNE_DATABASE_URL", "MLFLOW_TRACKING_URI"):
        assert "postgres@" in os.environ[variable]
        monkeypatch.setenv(variable, os.environ[variable].replace("postgres@", f"postgres:{PASSWORD}@"))
    settings.cache_clear()
    return home


def test_the_chain_promotes_a_champion_and_then_has_nothing_to_do(
    secret: Path, small_digits: Path, evertune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evertune = partial(evertune, cwd=small_digits)
    imported = spy.start(tmp_path, monkeypatch)
    first = evertune("run", "digits")
    champion = client.champion("digits")
    assert champion is not None
    assert champion.version == 1
    assert "promoted" in first.stdout.lower()
    entries = {entry.variant: entry for entry in Ledger().entries("digits")}
    assert {variant: entry.state for variant, entry in entries.items()} == dict.fromkeys(
        ("classical", "deep", "system"), "done"
    )
    assert [finished(entries[v].study) for v in ("classical", "deep", "system")] == [4, 2, 4]
    facts = {"use_case", "dataset", "run", "study", "trial", "git_commit", "upstream"}
    assert champion.lineage.keys() == facts
    assert champion.lineage["run"].startswith("SystemTuneFlow/")

    _the_champion_is_a_pyfunc_of_raw_rows("digits")
    _every_flow_has_a_card(evertune)
    _no_secret_in(secret, small_digits / ".metaflow")
    _each_task_imports_only_what_it_uses(imported)

    _a_flow_by_hand_finds_nothing_to_do_and_imports_nothing_heavy(small_digits, imported)
    again = evertune("run", "digits")
    assert "nothing" in again.stdout.lower()
    assert client.champion("digits") == champion
    assert {e.study: e.run for e in Ledger().entries("digits")} == {e.study: e.run for e in entries.values()}

    assert "champion" in evertune("status", "digits").stdout
    snippet = evertune("best", "digits", "--variant", "classical").stdout
    compile(snippet, "snippet", "exec")


def _each_task_imports_only_what_it_uses(imported: Path) -> None:
    busy = spy.seen(imported)
    assert spy.unneeded(busy) == {}
    assert {flow for flow, _ in busy} == {"data_prep", "classical_hpo", "deep_hpo", "system_tune"}
    assert "torch" in busy["deep_hpo", "tune"]


def _a_flow_by_hand_finds_nothing_to_do_and_imports_nothing_heavy(project: Path, imported: Path) -> None:
    """The README's own command."""
    done = execute(sys.executable, "flows/classical_hpo/flow.py", "run", ok=True, cwd=project)
    assert "nothing changed" in done.stdout
    idle = spy.seen(imported)
    assert len(idle) == 5
    assert set().union(*idle.values()) == set()


def _every_flow_has_a_card(evertune: Command) -> None:
    cards = {Path(line).stem: _told(Path(line).read_text()) for line in evertune("cards", "digits").stdout.split()}
    assert cards.keys() == {"DataPrepFlow", *REGISTERED}
    assert [flow for flow, told in cards.items() if '"vegaChart"' not in told] == []
    trees = {
        flow: rf"```text\\n{model} version 1\\n[^`]* run {flow}/\d+, [^`]* package lock [^`]*```"
        for flow, model in REGISTERED.items()
    }
    assert [flow for flow, tree in trees.items() if not re.search(tree, cards[flow])] == []


def _told(page: str) -> str:
    """The components of a card, as JSON; its page has them in base64."""
    (components,) = re.findall(r'__MF_DATA__\["[\w-]+"\] = "(.*)"', page)
    return base64.b64decode(components).decode()


def _the_champion_is_a_pyfunc_of_raw_rows(use_case: str) -> None:
    import mlflow
    from sklearn.datasets import load_digits

    from shared.storage.services import mlflow_tracking_uri

    mlflow.set_tracking_uri(mlflow_tracking_uri())
    model = mlflow.pyfunc.load_model(f"models:/{use_case}@champion")
    rows, labels = load_digits(return_X_y=True, as_frame=True)
    predicted = model.predict(rows.head(300))
    assert np.mean(np.asarray(predicted) == labels.head(300)) > 0.8


def _no_secret_in(*folders: Path) -> None:
    """The databases' password is in no artifact (Metaflow gzips them), config, card, tag or log of the runs."""
    readable = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert any(path.read_bytes().startswith(GZIP) for path in readable)
    assert [path for path in readable if PASSWORD.encode() in _content(path)] == []


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if content.startswith(GZIP) else content


def test_what_an_interrupt_left_behind_is_picked_up(evertune: Command, request: pytest.FixtureRequest) -> None:
    command = ("run", "breast_cancer", *sets("data.rows=400", "classical.n_trials=6", "system.n_trials=3", ANY_LATENCY))
    first = subprocess.Popen([sys.executable, "-m", "shared.cli", *command], cwd=ROOT, stdout=subprocess.DEVNULL)
    study = _study_with_finished_trials(2)
    first.send_signal(signal.SIGINT)
    assert first.wait() == 130
    request.getfixturevalue("forked")
    before = finished(study)
    assert 2 <= before < 6

    done = evertune(*command)
    assert "DeepHPOFlow idle: configs/breast_cancer.toml has no table [deep]" in done.stdout
    assert {e.variant: e.state for e in Ledger().entries("breast_cancer")} == {"classical": "done", "system": "done"}
    assert finished(study) == 6
    assert set(trial_states(study)) <= {"COMPLETE", "PRUNED", "FAIL"}
    champion = client.champion("breast_cancer")
    assert champion is not None
    assert [(p.version, p.promoted) for p in Ledger().promotions("breast_cancer")] == [(champion.version, True)]
    _more_data_is_tuned_with_fewer_trials_and_meets_the_champion(study, evertune)


def _more_data_is_tuned_with_fewer_trials_and_meets_the_champion(earlier: str, evertune: Command) -> None:
    before = {entry.study: entry for entry in Ledger().entries("breast_cancer")}
    evertune("run", "breast_cancer", *sets("retune.warm_trials=2", "system.n_trials=3", ANY_LATENCY))

    grown = {e.variant: e for e in Ledger().entries("breast_cancer") if e.study not in before}
    assert grown.keys() == {"classical", "system"}
    classical = grown["classical"].study
    assert finished(classical) == 2
    storage = PostgresStorage()
    trials = storage.get_all_trials(storage.get_study_id_from_name(classical))
    assert trials[0].params == before[earlier].outcome["top"][0]["params"]
    gated = Ledger().promotions("breast_cancer")[-1]
    assert {"challenger", "champion", "gain", "gain_low", "gain_high", "size_mb"} <= gated.figures.keys()
    assert gated.promoted is (gated.figures["p"] <= gated.figures["level"])


def _study_with_finished_trials(n: int) -> str:
    """Waits for a study of breast_cancer that has so many."""
    while True:
        for entry in Ledger().entries("breast_cancer"):
            found = progress([entry.study]).get(entry.study)
            if found and found.finished >= n:
                return entry.study
        time.sleep(0.1)
