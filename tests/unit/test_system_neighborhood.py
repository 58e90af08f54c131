"""Around a good configuration, the same suggest calls give values near it, and never leave the original range."""

import math

import optuna
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from shared.training.neighborhood import Neighborhood, near

RADII = st.floats(0.01, 0.5)


def ask(sampler_seed: int = 0) -> optuna.Trial:
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=sampler_seed)).ask()


@st.composite
def float_ranges(draw: st.DrawFn) -> tuple[float, float, float, bool, float | None]:
    """low, high, center, log, step."""
    log = draw(st.booleans())
    step = None if log else draw(st.sampled_from([None, 0.05, 0.1, 0.25, 1.5]))
    low = draw(st.floats(1e-6, 10)) if log else round(draw(st.floats(-100, 100)), 2)
    high = low + draw(st.floats(1e-3, 1000)) if step is None else round(low + draw(st.integers(1, 40)) * step, 2)
    return low, high, draw(st.floats(low, high)), log, step


@st.composite
def int_ranges(draw: st.DrawFn) -> tuple[int, int, int, bool, int]:
    """low, high, center, log, step."""
    log = draw(st.booleans())
    low = draw(st.integers(1, 50)) if log else draw(st.integers(-50, 50))
    step = 1 if log else draw(st.integers(1, 7))
    steps = draw(st.integers(0, 200))
    center = low + step * draw(st.integers(0, steps))
    return low, low + step * steps, center, log, step


@pytest.mark.filterwarnings("error")  # Optuna warns where a range is not divisible by its step
@given(float_ranges(), RADII, st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_a_float_stays_in_its_range_and_near_the_center(case, radius, seed):
    low, high, center, log, step = case
    trial = Neighborhood(ask(seed), "m.", {"x": center}, radius)
    value = trial.suggest_float("x", low, high, log=log, step=step)
    assert low <= value <= high
    scale = math.log if log else float
    reach = max(radius * (scale(high) - scale(low)), step or 0) + (step or 0) / 2  # a center may lie between two steps
    assert abs(scale(value) - scale(center)) <= reach + 1e-6


@given(int_ranges(), RADII, st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_an_int_stays_on_its_grid_and_near_the_center(case, radius, seed):
    low, high, center, log, step = case
    value = Neighborhood(ask(seed), "m.", {"x": center}, radius).suggest_int("x", low, high, log=log, step=step)
    assert low <= value <= high
    assert (value - low) % step == 0
    if log:
        assert (
            abs(math.log(value / center)) <= radius * math.log(high / low) + math.log((center + 1) / center) + 1 / value
        )
    else:
        assert abs(value - center) <= max(radius * (high - low), step)


@given(int_ranges(), RADII)
@settings(max_examples=50, deadline=None)
def test_there_is_something_to_search_where_the_range_has_several_values(case, radius):
    low, high, center, log, step = case
    assume(high > low)
    trial = ask()
    Neighborhood(trial, "m.", {"x": center}, radius).suggest_int("x", low, high, log=log, step=step)
    suggested = trial.distributions["m.x"]
    assert suggested.low < suggested.high or log


@given(float_ranges(), RADII, st.integers(0, 100))
@settings(max_examples=50, deadline=None)
def test_what_was_suggested_can_be_replayed_by_a_fixed_trial(case, radius, seed):
    low, high, center, log, step = case
    trial = Neighborhood(ask(seed), "m.", {"x": center}, radius)
    value = trial.suggest_float("x", low, high, log=log, step=step)
    assert FixedTrial(trial.params).suggest_float("x", low, high, log=log, step=step) == value


def test_a_center_outside_of_the_range_counts_as_the_nearer_end():
    assert near(7.0, 0.0, 1.0, 0.1) == (0.9, 1.0)


def test_names_get_the_prefix_and_params_lose_it():
    trial = ask()
    around = Neighborhood(trial, "classical.", {"C": 1.0, "kernel": "rbf"}, 0.2)
    around.suggest_float("C", 0.1, 10, log=True)
    around.suggest_categorical("kernel", ["linear", "rbf"])
    assert set(trial.params) == {"classical.C"}
    assert set(around.params) == {"C", "kernel"}


def test_a_categorical_keeps_the_choice_of_the_center():
    trial = ask()
    assert Neighborhood(trial, "m.", {"k": None}, 0.2).suggest_categorical("k", ["a", None]) is None
    assert trial.params == {}


def test_what_the_center_lacks_is_suggested_from_its_whole_range():
    trial = ask()
    around = Neighborhood(trial, "m.", {"gone": "c"}, 0.01)
    around.suggest_float("x", 0.0, 8.0)
    around.suggest_int("n", 1, 9, step=2)
    around.suggest_categorical("gone", ["a", "b"])
    whole = trial.distributions
    assert (whole["m.x"].low, whole["m.x"].high) == (0.0, 8.0)
    assert (whole["m.n"].low, whole["m.n"].high, whole["m.n"].step) == (1, 9, 2)
    assert whole["m.gone"].choices == ("a", "b")


def test_nothing_is_reported_to_a_study_with_two_objectives():
    trial = optuna.create_study(directions=["maximize", "minimize"]).ask()
    around = Neighborhood(trial, "m.", {}, 0.2)
    around.report(1.0, step=0)
    assert not around.should_prune()


def test_attributes_and_constraints_are_those_of_the_whole_trial():
    trial = ask()
    around = Neighborhood(trial, "m.", {}, 0.2)
    around.set_user_attr("note", "hi")
    around.set_constraint("memory", 3.0)
    assert trial.user_attrs == {"m.note": "hi"}
    assert trial.constraints == {"m.memory": 3.0}
    assert (around.user_attrs, around.constraints, around.number) == ({"note": "hi"}, {"memory": 3.0}, trial.number)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_suggest_methods_of_old_work_too():
    around = Neighborhood(ask(), "m.", {"a": 1.0, "b": 1.0, "c": 1.0}, 0.1)
    values = [around.suggest_uniform("a", 0, 2), around.suggest_loguniform("b", 0.5, 2)]
    assert all(abs(value - 1) < 0.25 for value in values)
    assert around.suggest_discrete_uniform("c", 0, 2, 0.5) in (0.5, 1.0, 1.5)
