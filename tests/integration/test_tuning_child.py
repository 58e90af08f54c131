"""With `trial_timeout_s` trials run in a child process: one that runs over, or whose process dies, costs one trial."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from optuna.trial import FrozenTrial

from shared.domain import StudySpec
from shared.errors import ObjectiveError, StudyFailed
from shared.storage import PostgresStorage
from shared.tuning.child import run_worker_in_child
from shared.tuning.study import open_study
from tests.integration.test_tuning_worker import spec, wait_for

pytestmark = pytest.mark.usefixtures("database")

# What the child imports: it doesn't know the tests.
OBJECTIVES = """
import os, signal, sys, time
from pathlib import Path
from shared.errors import ObjectiveError

def make(folder, what):
    if what == "broken":
        raise ObjectiveError("there is no such function")
    if what == "dead":
        os._exit(3)
    def evaluate(trial):
        x = trial.suggest_float("x", -1, 1)
        trial.set_user_attr("pid", os.getpid())
        if trial.number in (1, 3) and what in ("sleeps", "hangs", "dies", "leaves others"):
            time.sleep(0.1)
            (Path(folder) / "running").write_text(str(os.getpid()))
            if what == "leaves others":
                import subprocess
                left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False)
                (Path(folder) / "left").write_text(str(left.pid))
                if os.fork() == 0:  # holds all that the process has open
                    time.sleep(600)
            if what in ("dies", "leaves others"):
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)
        return x ** 2
    return evaluate
"""


@pytest.fixture
def objective(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Callable[[], Any]]:
    (tmp_path / "timed_objective.py").write_text(OBJECTIVES)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("timed_objective")
    return lambda what: partial(importlib.reload(module).make, str(tmp_path), what)


def timed(**changes: Any) -> StudySpec:
    return spec(trial_timeout_s=3, **changes)


def trials() -> list[FrozenTrial]:
    return open_study(spec(), PostgresStorage()).trials


def states() -> Counter[str]:
    return Counter(trial.state.name for trial in trials())


def test_all_trials_run_in_one_child(objective: Callable[[str], Any]) -> None:
    stats = run_worker_in_child(timed(), objective("quick"))
    assert (stats.trials, stats.stopped) == (6, "")
    assert states() == {"COMPLETE": 6}
    (pid,) = {trial.user_attrs["pid"] for trial in trials()}
    assert pid != os.getpid()
    assert not psutil.pid_exists(pid)


def test_a_trial_that_runs_over_fails_with_the_reason_and_is_run_once_more(objective: Callable[[str], Any]) -> None:
    stats = run_worker_in_child(timed(n_trials=4), objective("sleeps"))
    late = [trial for trial in trials() if trial.state.name == "FAIL"]
    assert [trial.number for trial in late] == [1, 3]
    assert {trial.user_attrs["cause"] for trial in late} == {"timed out"}
    assert "longer than `trial_timeout_s`, 3 s" in late[0].user_attrs["error"]
    assert trials()[2].user_attrs["rerun_of"] == 1
    assert trials()[2].params == late[0].params
    assert states() == {"COMPLETE": 4, "FAIL": 2}
    assert stats.trials == 6
    assert len({trial.user_attrs["pid"] for trial in trials()}) == 3, "a new child after each, and only then"


def test_trials_that_run_over_count_as_failures(objective: Callable[[str], Any]) -> None:
    stats = run_worker_in_child(timed(max_failures=1), objective("sleeps"))
    assert stats.stopped == "stopped after 1 failures"
    assert "trial_timeout_s" in stats.last_error
    assert states()["COMPLETE"] == 1


def test_a_trial_whose_process_dies_costs_that_trial(objective: Callable[[str], Any]) -> None:
    run_worker_in_child(timed(n_trials=3), objective("dies"))
    dead = [trial for trial in trials() if trial.state.name == "FAIL"]
    assert {trial.user_attrs["cause"] for trial in dead} == {"process died"}
    assert "exit code -9" in dead[0].user_attrs["error"]
    assert states()["COMPLETE"] == 3


def test_what_a_trial_has_started_ends_with_it(objective: Callable[[str], Any], tmp_path: Path) -> None:
    unlimited = timed(n_trials=3).model_copy(update={"trial_timeout_s": 600.0})
    run_worker_in_child(unlimited, objective("leaves others"))
    assert {trial.user_attrs["cause"] for trial in trials() if trial.state.name == "FAIL"} == {"process died"}
    left = int((tmp_path / "left").read_text())
    deadline = time.monotonic() + 60
    while psutil.pid_exists(left) and psutil.Process(left).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.05)


def test_the_study_s_time_counts_over_all_children(objective: Callable[[str], Any]) -> None:
    stats = run_worker_in_child(timed(timeout_s=3.1), objective("sleeps"))
    assert stats.stopped == "timed out after 3.1 s"
    assert len([trial for trial in trials() if trial.state.name == "FAIL"]) == 1


def test_what_the_child_can_t_do_is_raised_by_the_worker(objective: Callable[[str], Any]) -> None:
    with pytest.raises(ObjectiveError, match="no such function"):
        run_worker_in_child(timed(), objective("broken"))
    with pytest.raises(StudyFailed, match="exit code 3 before its first trial"):
        run_worker_in_child(timed(), objective("dead"))


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_that_is_ended_takes_its_child_along(
    objective: Callable[[str], Any], tmp_path: Path, sent: signal.Signals
) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=run_worker_in_child, args=(timed().model_copy(update={"trial_timeout_s": 600.0}), objective("hangs"))
    )
    process.start()
    wait_for(tmp_path / "running")
    assert process.pid
    os.kill(process.pid, sent)
    process.join(60)
    child = int((tmp_path / "running").read_text())
    deadline = time.monotonic() + 60
    while psutil.pid_exists(child):
        assert time.monotonic() < deadline, "the child lives on"
        time.sleep(0.05)
    assert trials()[1].user_attrs["cause"] == "interrupted"
