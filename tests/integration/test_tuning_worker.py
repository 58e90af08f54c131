"""The worker's loop on a real PostgreSQL: the budget is exact, nothing is lost, and a bad trial costs one trial."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from shared.domain import EarlierStudy, StudySpec, TrialSummary
from shared.errors import StudyFailed
from shared.storage import PostgresStorage, leases
from shared.storage.progress import progress
from shared.tuning.select import select
from shared.tuning.study import open_study
from shared.tuning.worker import Evaluate, give_back_abandoned, run_worker

pytestmark = pytest.mark.usefixtures("database")
SPAWN = multiprocessing.get_context("fork")


def spec(**changes: Any) -> StudySpec:
    values: dict[str, Any] = {
        "name": "toy/classical/0/1", "use_case": "toy", "variant": "classical", "fingerprint": "0",
        "objective_hash": "1", "directions": ("maximize",), "n_trials": 6, "max_failures": 5,
    }  # fmt: skip
    return StudySpec(**values | changes)


def square(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", -1, 1) ** 2


def trials(study_spec: StudySpec) -> list[FrozenTrial]:
    return open_study(study_spec, PostgresStorage()).trials


def counts(study_spec: StudySpec) -> Counter[str]:
    return Counter(trial.state.name for trial in trials(study_spec))


@pytest.fixture
def started() -> Iterator[Callable[..., list[BaseProcess]]]:
    """Start workers as processes of their own; what is left of them is killed at the end."""
    processes: list[BaseProcess] = []

    def start(study_spec: StudySpec, evaluate: Evaluate, workers: Sequence[int]) -> list[BaseProcess]:
        new = [
            SPAWN.Process(target=run_worker, args=(study_spec, evaluate), kwargs={"worker": worker})
            for worker in workers
        ]
        processes.extend(new)
        for process in new:
            process.start()
        return new

    yield start
    for process in processes:
        process.kill()
        process.join()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.01)


def test_one_worker_runs_exactly_the_budget() -> None:
    stats = run_worker(spec(), square)
    assert counts(spec()) == {"COMPLETE": 6}
    assert (stats.trials, stats.stopped, stats.last_error) == (6, "", "")
    assert 0 < stats.evaluate_s < stats.wall_s


def test_three_processes_together_run_exactly_the_budget(started: Callable[..., list[BaseProcess]]) -> None:
    def uneven(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        time.sleep(0.02 * x)
        if trial.number % 4 == 1:
            raise optuna.TrialPruned
        if trial.number % 4 == 2:
            raise ValueError("some fail")
        return x

    together = spec(n_trials=25, max_failures=1000)
    processes = started(together, uneven, range(3))
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    found = counts(together)
    assert found["COMPLETE"] + found["PRUNED"] == 25
    assert found["RUNNING"] == 0
    assert found["PRUNED"] > 0
    assert found["FAIL"] > 0


def test_a_finished_study_runs_no_more_trials() -> None:
    run_worker(spec(), square)
    assert run_worker(spec(), square, worker=1).trials == 0
    assert counts(spec()) == {"COMPLETE": 6}


def test_a_larger_budget_adds_to_the_study() -> None:
    run_worker(spec(n_trials=3), square)
    assert run_worker(spec(n_trials=5), square).trials == 2
    assert counts(spec()) == {"COMPLETE": 5}


def uneven(trial: optuna.Trial) -> float:
    """Some trials are pruned by what the others reported."""
    x, depth = trial.suggest_float("x", -1, 1), trial.suggest_int("depth", 1, 9)
    for step in range(4):
        trial.report(-((x - 0.3) ** 2) - 0.01 * depth * step, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return -((x - 0.3) ** 2)


def fourth_fails(trial: optuna.Trial) -> float:
    value = uneven(trial)
    if trial.number == 3:
        raise ValueError("the fourth is bad")
    return value


def history(study_spec: StudySpec) -> list[Any]:
    return [(t.params, t.values, t.state, t.intermediate_values) for t in trials(study_spec)]


@pytest.mark.parametrize("evaluate", [uneven, fourth_fails])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("auto", {}),
        ("RandomSampler", {}),
        ("TPESampler", {}),
        ("QMCSampler", {"scramble": True, "warn_independent_sampling": False}),
        ("GPSampler", {"warn_independent_sampling": False}),
    ],
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_study_of_one_worker_repeats_exactly(name: str, options: dict[str, Any], evaluate: Evaluate) -> None:
    one = spec(n_trials=24, seed=7, sampler={"name": name, "options": options})
    studies = [one.model_copy(update={"name": study}) for study in ("a", "b")]
    for study in studies:
        run_worker(study, evaluate)
    first, second = map(history, studies)
    assert first == second
    states = {state for _, _, state, _ in first}
    failed = {TrialState.FAIL} if evaluate is fourth_fails else set()
    assert states == {TrialState.COMPLETE, TrialState.PRUNED} | failed


@pytest.mark.parametrize("name", ["auto", "RandomSampler", "TPESampler", "GPSampler", "QMCSampler"])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_workers_draw_different_numbers_from_one_seed(name: str) -> None:
    several = spec(sampler={"name": name})
    drawn = []
    for worker in range(3):
        storage = PostgresStorage()
        study = open_study(several.model_copy(update={"name": f"of {worker}"}), storage, worker)
        drawn.append(study.ask().suggest_float("x", 0, 1))
        storage.close()
    assert len(set(drawn)) == 3


def test_pruned_trials_count_against_the_budget() -> None:
    def prune(trial: optuna.Trial) -> float:
        trial.report(square(trial), 0)
        raise optuna.TrialPruned

    run_worker(spec(), prune)
    assert counts(spec()) == {"PRUNED": 6}


def test_a_trial_that_raises_costs_one_trial_and_the_study_goes_on() -> None:
    def third_raises(trial: optuna.Trial) -> float:
        value = square(trial)
        if trial.number == 2:
            raise ValueError("the third is bad")
        return value

    stats = run_worker(spec(), third_raises)
    assert counts(spec()) == {"COMPLETE": 6, "FAIL": 1}
    failed, rerun = trials(spec())[2:4]
    assert failed.state == TrialState.FAIL
    assert "ValueError: the third is bad" in failed.user_attrs["error"]
    assert 'raise ValueError("the third is bad")' in failed.user_attrs["error"]
    assert "the third is bad" in stats.last_error
    assert (rerun.params, rerun.user_attrs["rerun_of"]) == (failed.params, 2)


def test_a_rerun_that_fails_is_not_run_again() -> None:
    def hates_the_first(trial: optuna.Trial) -> float:
        value = square(trial)
        if trial.number == 0 or trial.user_attrs.get("rerun_of") == 0:
            raise ValueError("no")
        return value

    run_worker(spec(), hates_the_first)
    failed = [trial for trial in trials(spec()) if trial.state == TrialState.FAIL]
    assert [trial.number for trial in failed] == [0, 1]
    assert failed[0].params == failed[1].params
    assert counts(spec()) == {"COMPLETE": 6, "FAIL": 2}


def test_a_bad_value_fails_its_trial_with_the_rule() -> None:
    values: list[Any] = ["0.5", None, float("nan"), (1.0, 2.0)]

    def bad_at_first(trial: optuna.Trial) -> Any:
        return values[trial.number] if trial.number < len(values) else 1.0

    run_worker(spec(n_trials=1), bad_at_first)
    errors = [trial.user_attrs["error"] for trial in trials(spec()) if trial.state == TrialState.FAIL]
    assert len(errors) == 4
    assert all("an objective must return" in error for error in errors)


def test_a_study_stops_at_its_failures_and_fails_only_if_nothing_has_finished() -> None:
    def always(trial: optuna.Trial) -> float:
        raise RuntimeError(f"trial {trial.number} is broken")

    stats = run_worker(spec(max_failures=3), always)
    assert stats.stopped == "stopped after 3 failures"
    assert counts(spec())["FAIL"] == 3
    with pytest.raises(StudyFailed, match="RuntimeError: trial 2 is broken"):
        select(spec(), stats=[stats])


def test_a_study_that_was_stopped_goes_on_with_what_has_finished() -> None:
    def worse_and_worse(trial: optuna.Trial) -> float:
        if trial.number > 1:
            raise RuntimeError("broken")
        return square(trial)

    stats = run_worker(spec(max_failures=2), worse_and_worse)
    result = select(spec(max_failures=2), stats=[stats])
    assert result.note == "stopped after 2 failures, with 2 of 6 trials"
    assert result.best.number in (0, 1)


def test_failures_stop_the_other_workers_too() -> None:
    def always(_: optuna.Trial) -> float:
        raise RuntimeError("broken")

    run_worker(spec(max_failures=2), always)
    assert run_worker(spec(max_failures=2), square, worker=1).trials == 0


def test_a_study_stops_when_its_time_is_over() -> None:
    def slow(trial: optuna.Trial) -> float:
        time.sleep(0.3)
        return square(trial)

    stats = run_worker(spec(timeout_s=0.1), slow)
    assert (stats.trials, stats.stopped) == (1, "timed out after 0.1 s")
    assert counts(spec()) == {"COMPLETE": 1}


def test_a_sampler_that_has_seen_all_stops_the_study() -> None:
    grid = spec(sampler={"name": "GridSampler", "options": {"search_space": {"x": [0, 0.5]}}})
    stats = run_worker(grid, square)
    assert counts(grid) == {"COMPLETE": 2}
    assert stats.stopped == "stopped by its sampler or objective"


def test_an_objective_may_stop_the_study() -> None:
    def enough(trial: optuna.Trial) -> float:
        trial.study.stop()
        return square(trial)

    assert run_worker(spec(), enough).stopped == "stopped by its sampler or objective"
    assert counts(spec()) == {"COMPLETE": 1}


def test_warm_starts_are_run_first_and_once() -> None:
    warm = spec(warm_starts=({"x": 0.25}, {"x": -0.5}))
    run_worker(warm.model_copy(update={"n_trials": 3}), square)
    run_worker(warm, square)
    found = trials(warm)
    assert [trial.params["x"] for trial in found[:2]] == [0.25, -0.5]
    assert sum(trial.params["x"] in (0.25, -0.5) for trial in found) == 2
    assert counts(warm) == {"COMPLETE": 6}


def learning(name: str = "toy/classical/1/1", same_objective: bool = True, **changes: Any) -> StudySpec:
    """A study on other data that starts from `spec()`."""
    top = (TrialSummary(number=0, values=(0.81,), params={"x": 0.9}),)
    earlier = EarlierStudy(study=spec().name, fingerprint="0", same_objective=same_objective, top=top)
    return spec(name=name, fingerprint="1", earlier=(earlier,), **changes)


def warm(study_spec: StudySpec) -> list[FrozenTrial]:
    return [trial for trial in trials(study_spec) if "warm_start" in trial.user_attrs]


def test_a_second_dataset_runs_the_best_of_the_first_again_and_nothing_of_it_is_written() -> None:
    run_worker(spec(n_trials=12), square)
    run_worker(learning(), square)
    best = max(trials(spec()), key=lambda trial: trial.values[0])
    first = trials(learning())[0]
    assert first.params == best.params
    assert first.user_attrs["warm_start"]["study"] == spec().name
    assert counts(learning()) == {"COMPLETE": 6}
    result = select(learning(), PostgresStorage())
    assert [(t.study, t.trials) for t in result.transfers] == [(spec().name, 12)]


def test_two_workers_run_each_warm_start_once(started: Callable[..., list[BaseProcess]]) -> None:
    run_worker(spec(n_trials=12), square)
    together = learning(n_trials=10)
    for process in (processes := started(together, square, range(2))):
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    origins = [trial.user_attrs["warm_start"]["trial"] for trial in warm(together)]
    assert origins
    assert len(origins) == len(set(origins))
    assert [trial.number for trial in warm(together)] == [2 * i for i in range(len(origins))]
    assert counts(together) == {"COMPLETE": 10}


def test_an_edited_objective_takes_what_fits() -> None:
    def before(trial: optuna.Trial) -> float:
        return trial.suggest_float("x", 0, 1) + (trial.suggest_categorical("kind", ["a", "b"]) == "b")

    def edited(trial: optuna.Trial) -> float:
        return trial.suggest_float("x", 2, 3) + (trial.suggest_categorical("kind", ["a", "c"]) == "c")

    run_worker(spec(n_trials=12), before)
    run_worker(learning(same_objective=False), edited)
    first = warm(learning())[0]
    assert first.user_attrs["warm_start"]["params"]["kind"] == "b"
    assert first.params["x"] == 2
    assert first.params["kind"] in ("a", "c")
    assert counts(learning()) == {"COMPLETE": 6}


def test_of_a_deleted_study_the_ledgers_best_are_run_again() -> None:
    run_worker(learning(), square)
    assert [trial.params for trial in warm(learning())] == [{"x": 0.9}]
    assert counts(learning()) == {"COMPLETE": 6}
    assert select(learning(), PostgresStorage()).transfers[0].trials == 0


def test_a_warm_start_whose_trial_fails_is_run_once_more() -> None:
    def breaks(trial: optuna.Trial) -> float:
        if trial.number == 0:
            raise ValueError("before it asks for anything")
        return square(trial)

    run_worker(learning(), breaks)
    assert [trial.state for trial in warm(learning())] == [TrialState.FAIL, TrialState.COMPLETE]
    assert warm(learning())[1].params == {"x": 0.9}


def test_patience_counts_trials_after_the_warm_starts() -> None:
    stats = run_worker(learning(n_trials=20, patience=3), lambda trial: -abs(trial.suggest_float("x", -1, 1) - 0.9))
    assert stats.stopped == "stopped after 3 trials without improvement"
    assert counts(learning()) == {"COMPLETE": 4}


def test_an_interrupted_trial_is_told_and_its_configuration_kept() -> None:
    def interrupted(trial: optuna.Trial) -> float:
        value = square(trial)
        if trial.number == 1:
            raise KeyboardInterrupt
        return value

    with pytest.raises(KeyboardInterrupt):
        run_worker(spec(), interrupted)
    told = trials(spec())[1]
    assert (told.state, told.user_attrs["cause"]) == (TrialState.FAIL, "interrupted")
    run_worker(spec(max_failures=1), square)
    assert trials(spec())[2].params == told.params
    assert counts(spec()) == {"COMPLETE": 6, "FAIL": 1}


def test_sigterm_tells_the_running_trial_and_exits(tmp_path: Path, started: Callable[..., list[BaseProcess]]) -> None:
    def hangs(trial: optuna.Trial) -> float:
        value = square(trial)
        (tmp_path / "running").touch()
        time.sleep(600)
        return value

    (process,) = started(spec(), hangs, [0])
    wait_for(tmp_path / "running")
    process.terminate()
    process.join(60)
    assert process.exitcode == 128 + signal.SIGTERM
    (told,) = [trial for trial in trials(spec()) if trial.state != TrialState.WAITING]
    assert (told.state, told.user_attrs["cause"]) == (TrialState.FAIL, "interrupted")


def test_what_the_last_worker_left_is_given_back_after_it(
    tmp_path: Path, started: Callable[..., list[BaseProcess]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "GRACE", 0.0)

    def hangs(trial: optuna.Trial) -> float:
        value = square(trial)
        time.sleep(0.5)
        (tmp_path / "running").touch()
        time.sleep(600)
        return value

    (victim,) = started(spec(), hangs, [0])
    wait_for(tmp_path / "running")
    victim.kill()
    victim.join(60)
    deadline = time.monotonic() + 60
    while counts(spec())["RUNNING"]:  # PostgreSQL notices in its own time that a client is gone
        assert time.monotonic() < deadline
        give_back_abandoned(spec(), PostgresStorage())
    assert counts(spec()) == {"FAIL": 1, "WAITING": 1}


def test_a_killed_worker_costs_one_trial_and_its_configuration_is_run_once_more(
    tmp_path: Path, started: Callable[..., list[BaseProcess]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "GRACE", 0.02)

    def hangs_once(trial: optuna.Trial) -> float:
        value = square(trial)
        if not (tmp_path / "running").exists():
            time.sleep(0.5)
            (tmp_path / "running").touch()
            time.sleep(600)
        return value

    (victim,) = started(spec(), hangs_once, [0])
    wait_for(tmp_path / "running")
    assert victim.pid
    os.kill(victim.pid, signal.SIGKILL)
    victim.join(60)
    run_worker(spec(), hangs_once, worker=1)
    lost = trials(spec())[0]
    assert (lost.state, lost.user_attrs["cause"]) == (TrialState.FAIL, "worker lost")
    assert [t.params for t in trials(spec()) if t.user_attrs.get("rerun_of") == 0] == [lost.params]
    assert counts(spec()) == {"COMPLETE": 6, "FAIL": 1}


def test_progress_counts_trials_by_state_and_shows_the_best() -> None:
    def some_fail(trial: optuna.Trial) -> float:
        if trial.number == 0:
            raise ValueError("no")
        return float(trial.number)

    run_worker(spec(n_trials=3), some_fail)
    other = spec(name="other", directions=("minimize",), n_trials=2)
    run_worker(other, lambda trial: float(trial.number))
    found = progress(["toy/classical/0/1", "other", "not there"])
    assert set(found) == {"toy/classical/0/1", "other"}
    first = found["toy/classical/0/1"]
    assert (first.budget, first.complete, first.failed, first.finished, first.best) == (3, 3, 1, 3, 3.0)
    assert (found["other"].budget, found["other"].best) == (2, 0.0)
