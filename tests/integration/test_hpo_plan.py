"""What an HPO flow finds due, by what the ledger remembers of earlier runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.config import ScheduleConfig, UseCase
from shared.domain import TrialSummary, TuningResult
from shared.errors import ServiceError
from shared.flow import hpo
from shared.flow.plan import Plan
from shared.settings import settings
from shared.storage.ledger import Ledger
from tests import on_record

pytestmark = pytest.mark.usefixtures("database")
SOURCE = "def objective(trial): return trial.suggest_float('x', 0, 1)\n"


def use_case(n_trials: int, **classical: object) -> UseCase:
    return UseCase.model_validate(
        {
            "name": "toy",
            "title": "Toy",
            "data": {"source": "sklearn:iris", "target": "target"},
            "tuning": {"metric": "accuracy"},
            "classical": {"objective": "x.py", "n_trials": n_trials, **classical},
            "retune": {"warm_trials": 3},
        }
    )


def arrive(fingerprint: str) -> None:
    """Rows with this fingerprint are the newest dataset version."""
    on_record.arrive("toy", fingerprint)


def plan(config: UseCase, folder: Path, source: str = SOURCE) -> Plan:
    (folder / "x.py").write_text(source)
    return hpo.plan(config, "classical", folder, run="ClassicalHPOFlow/1")


def finish(plan: Plan) -> None:
    best = TrialSummary(number=0, values=(0.9,), params={"x": 0.9})
    result = TuningResult(study=plan.study.name, best=best, top=(best,), counts={"COMPLETE": 1}, wall_s=1, cpu_s=1)
    hpo.register(plan, result, run="ClassicalHPOFlow/1")


def test_a_larger_budget_adds_to_a_warm_study(tmp_path: Path) -> None:
    for fingerprint in ("a" * 64, "b" * 64):
        arrive(fingerprint)
        due = plan(use_case(10), tmp_path)
        finish(due)
    assert (due.study.n_trials, [study.fingerprint for study in due.study.earlier]) == (3, ["a" * 64])
    assert due.study.earlier[0].top[0].params == {"x": 0.9}
    assert "nothing changed" in plan(use_case(10), tmp_path).idle

    more = plan(use_case(15), tmp_path)
    assert (more.idle, more.study.name, more.study.n_trials, more.study.patience) == ("", due.study.name, 15, 0)
    finish(more)
    assert "nothing changed" in plan(use_case(15), tmp_path).idle


def test_a_study_by_another_direction_is_no_warm_start(tmp_path: Path) -> None:
    arrive("a" * 64)
    finish(plan(use_case(10), tmp_path))
    arrive("b" * 64)
    turned = plan(use_case(10, directions=["minimize"]), tmp_path)
    assert (turned.study.n_trials, turned.study.earlier) == (10, ())


def test_an_edited_objective_learns_from_the_study_before_with_its_whole_budget(tmp_path: Path) -> None:
    arrive("a" * 64)
    before = plan(use_case(10), tmp_path)
    finish(before)
    edited = plan(use_case(10), tmp_path, SOURCE.replace("0, 1", "0, 2"))
    (earlier,) = edited.study.earlier
    assert (earlier.study, earlier.same_objective) == (before.study.name, False)
    assert (edited.study.n_trials, edited.study.patience) == (10, 0)


def test_unchanged_data_adds_trials_where_the_config_says_continue(tmp_path: Path) -> None:
    arrive("a" * 64)
    nightly = use_case(10).model_copy(update={"schedule": ScheduleConfig(when_unchanged="continue")})
    budgets = []
    for _ in range(3):
        due = plan(nightly, tmp_path)
        budgets.append(due.study.n_trials)
        finish(due)
        assert "nothing changed" in plan(nightly, tmp_path).idle, "the event came twice"
        Ledger().see_dataset(due.data)
    assert budgets == [10, 20, 30]
    assert "nothing changed" in plan(use_case(10), tmp_path).idle, "and nothing where it says skip"


def test_a_study_whose_model_couldnt_be_registered_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrive("a" * 64)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    settings.cache_clear()

    with pytest.raises(ServiceError, match="MLflow must be reachable"):
        plan(use_case(10), tmp_path, SOURCE + "def train(trial, data): pass\n")
    assert Ledger().entries("toy") == []

    plan(use_case(10), tmp_path)
    assert [entry.state for entry in Ledger().entries("toy")] == ["claimed"], "nothing to register"
