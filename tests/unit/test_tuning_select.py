"""The best of a study, when a study stops, and the snippet that rebuilds its best model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from shared.domain import StudySpec, TrialSummary
from shared.errors import ObjectiveError, StudyFailed
from shared.tuning.select import select
from shared.tuning.snippet import as_python
from shared.tuning.stopping import Stopping
from shared.tuning.worker import WorkerStats, tune_in_memory

UNIT = optuna.distributions.FloatDistribution(0, 1)


def spec(**changes: Any) -> StudySpec:
    values: dict[str, Any] = {
        "name": "toy/classical/0/1", "use_case": "toy", "variant": "classical", "fingerprint": "0",
        "objective_hash": "1", "directions": ("maximize",), "n_trials": 4,
    }  # fmt: skip
    return StudySpec(**values | changes)


def complete(*values: float, x: float = 0.5, **changes: Any) -> FrozenTrial:
    return create_trial(values=values, params={"x": x}, distributions={"x": UNIT}, **changes)


def pruned() -> FrozenTrial:
    return create_trial(state=TrialState.PRUNED)


def failed(error: str = "ValueError: no", cause: str = "raised", **attrs: int) -> FrozenTrial:
    return create_trial(state=TrialState.FAIL, user_attrs={"error": error, "cause": cause, **attrs})


def stored(trials: Sequence[FrozenTrial], directions: Sequence[str] = ("maximize",)) -> InMemoryStorage:
    storage = InMemoryStorage()
    study = optuna.create_study(study_name=spec().name, storage=storage, directions=list(directions))
    study.add_trials(trials)
    return storage


def numbered(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return optuna.load_study(study_name=spec().name, storage=stored(trials)).trials


def stats(stopped: str = "", wall_s: float = 1.0) -> WorkerStats:
    return WorkerStats(worker=0, trials=2, wall_s=wall_s, cpu_s=2.0, evaluate_s=0.5, stopped=stopped)


def reason_to_stop(spec: StudySpec, trials: Sequence[FrozenTrial], elapsed_s: float) -> str:
    return Stopping(spec).reason(trials, elapsed_s)


@pytest.mark.parametrize(("direction", "number"), [("maximize", 1), ("minimize", 2)])
def test_the_best_trial_is_the_complete_one_with_the_best_value(direction: Any, number: int) -> None:
    storage = stored([failed(), complete(3.0), complete(1.0), pruned()], [direction])
    result = select(spec(directions=(direction,)), storage)
    assert result.best.number == number
    assert result.counts == {"FAIL": 1, "COMPLETE": 2, "PRUNED": 1}
    assert (result.front, result.note) == ((), "")


def test_of_equal_trials_the_first_is_best() -> None:
    assert select(spec(), stored([complete(1.0), complete(2.0), complete(2.0)])).best.number == 1


def test_the_top_is_of_distinct_configurations_best_first() -> None:
    storage = stored([complete(1.0, x=0.1), complete(3.0, x=0.2), complete(2.0, x=0.2), complete(2.5, x=0.3)])
    assert [trial.number for trial in select(spec(), storage).top] == [1, 3, 0]


def test_a_trial_that_breaks_a_constraint_is_not_best_while_another_keeps_it() -> None:
    study = optuna.create_study(study_name=spec().name, storage=InMemoryStorage(), direction="maximize")
    for value, violation in ((5.0, 1.0), (2.0, -1.0), (3.0, 0.0)):
        trial = study.ask()
        trial.set_constraint("size", violation)
        study.tell(trial, value)
    assert select(spec(n_trials=3), study._storage).best.values == (3.0,)


def test_where_no_trial_keeps_the_constraints_the_note_says_so() -> None:
    study = optuna.create_study(study_name=spec().name, storage=InMemoryStorage(), direction="maximize")
    trial = study.ask()
    trial.set_constraint("size", 1.0)
    study.tell(trial, 5.0)
    result = select(spec(n_trials=1), study._storage)
    assert (result.best.values, result.note) == ((5.0,), "no trial meets the constraints")


def test_several_directions_have_a_front_and_the_best_is_first_in_the_first_value() -> None:
    trials = [complete(1.0, 1.0), complete(3.0, 5.0), complete(2.0, 9.0), complete(2.0, 2.0)]
    two = ("maximize", "minimize")
    result = select(spec(directions=two), stored(trials, two))
    assert sorted(trial.number for trial in result.front) == [0, 1, 3]
    assert result.best.number == 1


def test_the_pick_of_the_caller_chooses_among_all_complete_trials() -> None:
    two = ("maximize", "minimize")
    storage = stored([complete(1.0, 1.0), complete(3.0, 5.0), pruned()], two)
    result = select(spec(directions=two), storage, pick=lambda trials: min(trials, key=lambda t: t.values[1]))
    assert result.best.number == 0
    assert result.top[0] == result.best


def test_wall_time_is_that_of_the_slowest_worker_and_cpu_time_that_of_all() -> None:
    result = select(spec(), stored([complete(1.0)] * 4), stats=[stats(wall_s=2.0), stats(wall_s=3.0)])
    assert (result.wall_s, result.cpu_s) == (3.0, 4.0)


def test_the_note_says_why_the_budget_was_not_reached() -> None:
    reasons = [stats("timed out after 3 s"), stats("timed out after 3 s"), stats()]
    assert select(spec(), stored([complete(1.0)]), stats=reasons).note == "timed out after 3 s, with 1 of 4 trials"
    assert select(spec(), stored([complete(1.0)] * 4), stats=reasons).note == ""


def test_a_study_without_a_complete_trial_fails_with_the_last_error() -> None:
    with pytest.raises(StudyFailed) as caught:
        select(spec(), stored([failed("ValueError: first"), failed("ValueError: last"), pruned()]))
    message = str(caught.value)
    assert message.startswith(
        "study toy/classical/0/1 must have a complete trial, but 2 trials failed and 1 were pruned"
    )
    assert "the last error:\n| ValueError: last\nmend the objective" in message
    assert "first" not in message


def test_a_study_that_ran_out_of_time_fails_with_another_remedy() -> None:
    with pytest.raises(StudyFailed, match="but 0 trials failed; raise the budget `n_trials` or the timeout"):
        select(spec(), stored([]))


def test_a_study_stops_at_its_failures_but_not_for_what_befell_its_workers() -> None:
    befell = [failed(cause="interrupted"), failed(cause="worker lost"), failed(cause="worker lost")]
    twice = failed(cause="worker lost", rerun_of=1)
    trials = numbered([failed(), *befell, twice, complete(1.0)])
    assert reason_to_stop(spec(max_failures=2), trials, 0) == "stopped after 2 failures"
    assert reason_to_stop(spec(max_failures=3), trials, 0) == ""


def test_failures_of_earlier_runs_do_not_count() -> None:
    trials = numbered([failed(), failed()])
    later = datetime.now(UTC) + timedelta(seconds=5)
    assert reason_to_stop(spec(max_failures=2, since=later), trials, 0) == ""
    assert reason_to_stop(spec(max_failures=2, since=later - timedelta(hours=1)), trials, 0) != ""


def test_a_study_stops_when_its_time_is_over() -> None:
    assert reason_to_stop(spec(timeout_s=3), [], 3.0) == "timed out after 3 s"
    assert reason_to_stop(spec(timeout_s=3), [], 2.9) == ""
    assert reason_to_stop(spec(), [], 1e9) == ""


def test_a_study_stops_without_improvement_if_it_is_to() -> None:
    trials = numbered([complete(1.0), complete(2.0), pruned(), complete(1.5), failed()])
    assert reason_to_stop(spec(patience=2), trials, 0) == "stopped after 2 trials without improvement"
    assert reason_to_stop(spec(patience=3), trials, 0) == ""
    assert reason_to_stop(spec(patience=0), trials, 0) == ""


def test_an_infeasible_trial_is_no_improvement() -> None:
    broken, kept = complete(9.0, constraints={"size": 0.5}), complete(1.0, constraints={"size": -0.5})
    trials = numbered([broken, kept, complete(2.0), complete(0.0)])
    assert reason_to_stop(spec(patience=2), trials, 0) == ""
    assert reason_to_stop(spec(patience=1), trials, 0) != ""
    assert reason_to_stop(spec(patience=1), numbered([broken, broken]), 0) == "", "there is no best yet"


@given(st.lists(st.integers(0, 5), max_size=12))
def test_as_many_trials_are_without_improvement_as_follow_the_first_best(values: list[int]) -> None:
    expected = len(values) - 1 - values.index(max(values)) if values else 0
    stopping, trials = Stopping(spec()), numbered([complete(float(v)) for v in values])
    for n in range(len(trials) + 1):  # as a worker sees them: one more each time, the last one running at first
        running = [create_trial(state=TrialState.RUNNING)] if n < len(trials) else []
        assert stopping.reason(trials[:n] + running, 0) == ""
    assert stopping.without_improvement == expected


BEST = TrialSummary(
    number=7, values=(-0.25,), params={"C": 0.1, "kernel": "rbf", "shrink": None}, user_attrs={"best_epoch": 3}
)


def executed(snippet: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(snippet, "snippet", "exec"), names)
    return names


def test_the_snippet_rebuilds_the_best_model(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(
        "def build(t): return t.suggest_float('C', 0, 1), t.suggest_categorical('kernel', ['rbf', 'linear'])"
    )
    snippet = as_python("classical", str(path), BEST, "neg_log_loss")
    assert snippet.startswith("# classical: trial 7, neg_log_loss -0.25\n")
    assert executed(snippet)["model"] == (0.1, "rbf")
    assert executed(snippet)["params"] == BEST.params


def test_the_snippet_of_a_deep_model_has_its_plan_and_best_epoch(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(
        "def build(t): pass\ndef fit_plan(t): return dict(lr=t.suggest_float('C', 0, 1), batch_size=8, epochs=9)"
    )
    names = executed(as_python("deep", str(path), BEST, "neg_log_loss", deep=True))
    assert (names["plan"].lr, names["epochs"]) == (0.1, 3)


def test_the_snippet_of_an_own_objective_retrains_by_its_train(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("def objective(t): return 1\ndef train(t, data): return t.suggest_float('C', 0, 1), data")
    assert executed(as_python("classical", str(path), BEST, "r2", kind="trial"))["train"]("rows") == (0.1, "rows")


def test_the_snippet_of_a_system_is_what_it_is_made_of() -> None:
    made_of = {"members": {"classical": {"weight": 1.0, "params": {"C": 0.1}}}, "calibration": "none"}
    best = BEST.model_copy(update={"user_attrs": {"system": made_of}})
    assert executed(as_python("system", "", best, "r2"))["system"] == made_of


def test_an_objective_is_tried_out_in_memory_and_repeats() -> None:
    first, second = (tune_in_memory(lambda t: t.suggest_float("x", 0, 1), n_trials=3, seed=1) for _ in range(2))
    assert [t.value for t in first.trials] == [t.value for t in second.trials]
    assert len(first.trials) == 3


def test_an_objective_tried_out_in_memory_raises_what_is_wrong() -> None:
    with pytest.raises(ObjectiveError, match="must return a number"):
        tune_in_memory(lambda _: "good")  # type: ignore[arg-type,return-value]


def test_an_objective_of_several_values_can_be_tried_out_with_its_reports() -> None:
    def reports(trial: optuna.Trial) -> tuple[float, float]:
        trial.report(0.5, 0)
        assert not trial.should_prune()
        return 0.5, 1.0

    study = tune_in_memory(reports, 2, ("maximize", "minimize"), metrics=("accuracy", "mb"), guard="accuracy")
    assert [trial.intermediate_values for trial in study.trials] == [{0: 0.5}] * 2
