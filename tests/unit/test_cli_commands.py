"""The `evertune` command, as far as it needs no service."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from shared.cli.app import app
from shared.cli.show import decision_line, live_lines, show_surplus, study_line, summary_lines
from shared.config import CLASSIFICATION_METRICS, REGRESSION_METRICS
from shared.events.chain import Chain
from shared.events.graph import Flow, Graph
from shared.events.summary import summarize
from shared.flow.plan import newest_done
from shared.flow.retention import ChainFiles, Holdings
from shared.storage.ledger import LedgerEntry, Promotion
from shared.storage.sources import Source

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LATER = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)
HEAVY = ("torch", "mlflow", "xgboost", "sklearn", "optuna", "pandas", "metaflow", "psycopg", "pydantic")


def invoke(*args: str):
    return CliRunner().invoke(app, args)


def entry(variant: str = "classical", state: str = "done", at: datetime = NOON, **outcome: object) -> LedgerEntry:
    found = {
        "trial": 17,
        "value": -0.0412,
        "metric": "neg_log_loss",
        "model": f"digits-{variant}",
        "version": 3,
        **outcome,
    }
    return LedgerEntry(f"digits/{variant}/{at:%H}", "digits", variant, "f" * 64, state, "HPO/1", found, "", at)  # type: ignore[arg-type]


def promotion(version: int = 3, promoted: bool = True) -> Promotion:
    figures, outcome = {"challenger": -0.03}, "moved" if promoted else None
    return Promotion(
        "digits", version, None, promoted, "it is better", figures, "SystemTuneFlow/1", NOON, "gate", outcome
    )


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['evertune', '--help']\n"
        "from shared.cli import main\n"
        "try: main()\n"
        f"except SystemExit: print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "evertune" in ran.stdout
    assert ran.stderr.strip() == "[]"


def test_an_error_is_a_message_without_a_traceback():
    result = invoke("config", "check", "digit")

    assert result.exit_code == 1
    assert "there is no such config; did you mean 'digits'?" in result.stderr
    assert "Traceback" not in result.output


def test_an_override_that_breaks_a_rule_is_refused_before_anything_starts():
    result = invoke("run", "digits", "--set", "classical.trials=10")

    assert result.exit_code == 1
    assert "`classical.trials` is not a key; did you mean 'n_trials'?" in result.stderr


def test_the_metrics_are_those_that_a_config_takes():
    lines = invoke("config", "metrics").stdout.split()

    assert set(lines) == {*CLASSIFICATION_METRICS, *REGRESSION_METRICS, "classification", "regression"}


def test_the_use_cases_are_listed():
    result = invoke("config", "list")

    assert result.exit_code == 0
    assert {"digits", "breast_cancer", "diabetes", "fashion_mnist"} <= set(result.stdout.split())


def test_a_broken_config_does_not_hide_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    configs = shutil.copytree("configs", tmp_path / "configs")
    (configs / "broken.toml").write_text("[data\n")
    monkeypatch.setattr("shared.settings.project_root", lambda: tmp_path)
    result = invoke("config", "list")

    assert result.exit_code == 1
    assert {"digits", "diabetes"} <= set(result.stdout.split())
    assert "configs/broken.toml: must be TOML" in result.stderr


def test_the_newest_finished_study_of_each_variant_counts():
    older, newer = entry(at=NOON), entry(at=LATER)
    entries = [newer, older, entry("deep", state="failed"), entry("system")]

    assert newest_done(entries) == {"classical": newer, "system": entry("system")}


@pytest.mark.parametrize(("run", "tuned"), [("HPO/1", True), ("HPO/2", False)])
def test_a_chain_in_which_no_run_finished_a_study_had_nothing_to_do(run, tuned):
    chain = Chain.begin("digits", Graph.of(Flow("HPO", Path("a"))), 1, NOON).update("HPO", run=run)

    assert summarize([entry()], [], None).finished_by(chain) is tuned


LOG = [promotion(2), promotion(3), promotion(4, promoted=False)]


@pytest.mark.parametrize(
    ("why", "log", "live", "shown"),
    [
        ("as the gate has promoted it", LOG, 3, "digits version 3, r2 -0.03 on the holdout, since 2026-11-24"),
        ("moved back by hand", LOG, 2, "digits version 2, by its alias in the registry: the gate hasn't logged that"),
        ("promoted by a run that died", [], 1, "digits version 1, by its alias in the registry: the gate hasn't"),
        ("the alias was deleted", LOG, None, "none"),
    ],
)
def test_the_champion_is_what_the_registry_says(why, log, live, shown):
    lines = dict(live_lines(summarize([entry(metric="r2")], log, live), "digits"))

    assert lines["champion"].startswith(shown), why
    assert "champion" not in dict(live_lines(summarize([], [], None), "digits"))


def test_a_summary_reads_as_sentences():
    assert study_line(entry()) == "trial 17, neg_log_loss -0.0412 → digits-classical version 3"
    assert study_line(entry(model=None, version=None)) == "trial 17, neg_log_loss -0.0412"
    assert decision_line(promotion(4, promoted=False)) == "version 4 not promoted: it is better"
    labels = [label for label, _ in summary_lines(summarize([entry(), entry("system")], [promotion()], 3), "digits")]
    assert labels == ["classical", "system", "gate", "champion", "next"]


def test_what_would_be_pruned_is_named_by_kind():
    old = datetime(2026, 1, 1, tzinfo=UTC)
    found = Holdings(sources=[Source("0123456789abcdef", old)], chains=[ChainFiles("20260101T000000-7", old)])
    console = Console(file=StringIO(), width=100)
    show_surplus(console, "toy", found, dry_run=True)
    assert [line.split() for line in console.file.getvalue().splitlines()] == [
        ["toy:", "would", "be", "deleted"],
        ["1", "objective", "sources", "0123456789ab"],
        ["1", "chains", "20260101T000000-7"],
    ]
