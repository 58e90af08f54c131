"""What charts are drawn from: values, ranks, axes, importance, the Pareto front."""

from __future__ import annotations

import math

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from shared.flow.charts.theme import decades, seconds, thin
from shared.flow.charts.trials import Goal, ended, front, importances, ranked, view

UP, DOWN = Goal("r2"), Goal("loss", "minimize")


def trial(
    number: int, value: float | None = None, state: TrialState = TrialState.COMPLETE, **params: float | str
) -> FrozenTrial:
    distributions = {
        k: CategoricalDistribution(["a", "b"]) if isinstance(v, str) else FloatDistribution(0, 1)
        for k, v in params.items()
    }
    made = create_trial(state=state, value=value, params=params, distributions=distributions)
    made.number = number
    return made


def test_trials_are_ranked_by_direction_and_equals_by_their_number() -> None:
    trials = [trial(0, 0.2), trial(1, 0.9), trial(2, 0.9), trial(3, 0.5)]
    assert [t.number for t in ranked(trials, UP)] == [1, 2, 3, 0]
    assert [t.number for t in ranked(trials, DOWN)] == [0, 3, 1, 2]


def test_only_complete_trials_with_a_finite_value_are_ranked() -> None:
    trials = [trial(0, math.inf), trial(1, 0.4), trial(2, state=TrialState.FAIL), trial(3, 0.9, TrialState.PRUNED)]
    assert [t.number for t in ranked(trials, UP)] == [1]


def test_a_pruned_trial_without_a_value_has_its_last_report() -> None:
    pruned = create_trial(state=TrialState.PRUNED, intermediate_values={0: 0.1, 3: 0.4, 1: 0.9})
    assert UP.value(pruned) == 0.4


def test_a_trial_that_reported_nan_last_has_no_value() -> None:
    assert UP.value(create_trial(state=TrialState.PRUNED, intermediate_values={0: 0.1, 1: math.nan})) is None


def test_running_and_waiting_trials_are_not_drawn() -> None:
    study = optuna.create_study()
    study.enqueue_trial({})
    study.ask()
    study.enqueue_trial({})
    assert ended(study.trials) == []


def test_one_terrible_trial_does_not_squash_the_axis() -> None:
    low, high = view([-1e9, *(0.9 + i / 100 for i in range(10))], UP)
    assert low > 0.5
    assert high > 0.99


def test_the_axis_holds_all_values_where_none_is_far_off() -> None:
    low, high = view([0.2, 0.4, 0.6], DOWN)
    assert low < 0.2
    assert high > 0.6


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.sampled_from([UP, DOWN]))
def test_the_axis_always_shows_the_better_half(values: list[float], goal: Goal) -> None:
    low, high = view(values, goal)
    assert low < high
    better = sorted(values, key=goal.loss)[: (len(values) + 1) // 2]
    assert all(low <= v <= high for v in better)


def test_the_axis_of_no_values_is_a_valid_one() -> None:
    assert view([math.nan], UP) == (0.0, 1.0)


def conditional(n: int = 40) -> list[FrozenTrial]:
    """The family decides, its x matters a little within family a, noise doesn't."""
    made = []
    for i in range(n):
        x, noise = (i * 0.618) % 1, (i * 0.414) % 1
        if i % 2:
            made.append(trial(i, 10 + x, family="a", x=x, noise=noise))
        else:
            made.append(trial(i, 5 + (i * 0.73) % 1, family="b", noise=noise))
    return made


def test_importance_finds_the_family_then_what_matters_within_it() -> None:
    shares = importances(conditional(), UP)
    assert list(shares)[:2] == ["family", "x"]
    assert shares["family"] > 0.6
    assert shares["x"] > 0.05
    assert shares["noise"] < 0.05


def test_importance_is_the_same_for_both_directions() -> None:
    up, down = importances(conditional(), UP), importances(conditional(), DOWN)
    assert up == pytest.approx(down, abs=0.02)


def test_a_choice_whose_trials_were_all_pruned_still_matters() -> None:
    pruned = [
        trial(t.number, t.value, TrialState.PRUNED if t.params["family"] == "b" else t.state, **t.params)
        for t in conditional()
    ]
    assert importances(pruned, UP) == importances(conditional(), UP)


def test_importance_says_nothing_of_too_few_trials_or_of_equal_values() -> None:
    assert importances(conditional(9), UP) == {}
    assert importances([trial(i, 1.0, x=i / 20) for i in range(20)], UP) == {}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(0, 1), st.sampled_from("ab")), min_size=10, max_size=30))
def test_importances_are_shares(rows: list[tuple[float, float, str]]) -> None:
    shares = importances([trial(i, v, x=x, c=c) for i, (v, x, c) in enumerate(rows)], UP)
    assert all(0 <= share <= 1 + 1e-9 for share in shares.values())


def test_no_trial_of_the_front_is_dominated_and_every_other_is() -> None:
    goals = (Goal("r2", "maximize", 0), Goal("latency", "minimize", 1))
    values = [(0.9, 5.0), (0.8, 2.0), (0.85, 6.0), (0.9, 5.0), (0.7, 2.5)]
    trials = [create_trial(state=TrialState.COMPLETE, values=v) for v in values]
    assert [t.values for t in front(trials, goals)] == [[0.9, 5.0], [0.8, 2.0], [0.9, 5.0]]


def test_thinning_keeps_the_ends_and_the_limit() -> None:
    kept = thin(range(10_001), 100)
    assert len(kept) == 100
    assert (kept[0], kept[-1]) == (0, 10_000)
    assert thin([1, 2, 3], 5) == [1, 2, 3]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0841, "84 ms"), (8.414, "8.41 s"), (187, "3 min 07 s"), (7500, "2 h 05 min"), (59.97, "60 s")],
)
def test_durations_read_well(value: float, text: str) -> None:
    assert seconds(value) == text


def test_a_logarithmic_axis_has_ticks_within_its_range() -> None:
    assert decades(8, 128) == [10, 20, 50, 100]
    assert decades(1e-5, 1) == [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1]
