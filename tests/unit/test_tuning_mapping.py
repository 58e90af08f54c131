"""An earlier configuration in an edited search space."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import create_trial

from shared.tuning.mapping import nearest, shown_in


@pytest.mark.parametrize(
    ("value", "distribution", "expected", "why"),
    [
        (0.5, FloatDistribution(0, 1), 0.5, "it is still there"),
        (3.0, FloatDistribution(0, 1), 1.0, "the range ends earlier now"),
        (1e-9, FloatDistribution(1e-3, 1, log=True), 1e-3, "so does a logarithmic one"),
        (0.42, FloatDistribution(0, 1, step=0.25), 0.5, "it has steps now"),
        (7, IntDistribution(50, 150, step=25), 50, "an int, below"),
        (90, IntDistribution(50, 150, step=25), 100, "an int, between two steps"),
        (3.7, IntDistribution(1, 9), 4, "a float before, an int now"),
        (3, FloatDistribution(0, 9), 3.0, "an int before, a float now"),
        ("svm", CategoricalDistribution(("svm", "forest")), "svm", "a choice that is still there"),
        (2, CategoricalDistribution((1, 2, 4)), 2, "a number before, a choice of the same now"),
    ],
)
def test_a_value_is_mapped_to_the_nearest(value: Any, distribution: BaseDistribution, expected: Any, why: str) -> None:
    mapped = nearest(value, distribution)
    assert (mapped, type(mapped)) == (expected, type(expected)), why


@pytest.mark.parametrize(
    ("value", "distribution"),
    [
        ("gone", CategoricalDistribution(("svm", "forest"))),
        ("svm", FloatDistribution(0, 1)),
        (True, IntDistribution(0, 1)),
        (None, FloatDistribution(0, 1)),
    ],
)
def test_a_value_that_nothing_is_near_cant_be_mapped(value: Any, distribution: BaseDistribution) -> None:
    with pytest.raises(ValueError, match="must be"):
        nearest(value, distribution)


numeric = st.one_of(
    st.builds(lambda low, width: FloatDistribution(low, low + width), st.floats(-1e3, 1e3), st.floats(1e-3, 1e3)),
    st.builds(lambda low, n: FloatDistribution(low, low + n / 4, step=0.25), st.integers(-9, 9), st.integers(1, 40)),
    st.builds(
        lambda low, n, k: IntDistribution(low, low + n * k, step=k),
        st.integers(-9, 9),
        st.integers(1, 9),
        st.integers(1, 9),
    ),
    st.builds(lambda low, by: FloatDistribution(low, low * by, log=True), st.floats(1e-6, 1), st.floats(1.1, 1e6)),
    st.builds(lambda low, by: IntDistribution(low, low + by, log=True), st.integers(1, 9), st.integers(1, 999)),
)


@given(st.floats(-1e6, 1e6) | st.integers(-(10**6), 10**6), numeric)
def test_a_mapped_number_is_always_in_its_range(value: float, distribution: BaseDistribution) -> None:
    mapped = nearest(value, distribution)
    assert distribution._contains(distribution.to_internal_repr(mapped))
    assert nearest(mapped, distribution) == mapped


OLD = {"family": CategoricalDistribution(("svm", "forest")), "C": FloatDistribution(0, 10)}
TRIAL = create_trial(value=0.5, params={"family": "svm", "C": 4.0}, distributions=OLD, constraints={"size": 1.0})


@pytest.mark.parametrize(
    ("space", "trusted", "seen", "why"),
    [
        (OLD, False, True, "the same space"),
        ({}, True, True, "nothing was asked for yet, but it is the same objective"),
        ({}, False, False, "nothing was asked for yet, and the objective was edited"),
        (OLD | {"C": FloatDistribution(0, 100)}, False, True, "a wider range"),
        (OLD | {"C": FloatDistribution(5, 10)}, True, False, "outside of the range"),
        (OLD | {"family": CategoricalDistribution(("linear",))}, True, False, "a choice that is gone"),
    ],
)
def test_a_sampler_sees_an_earlier_trial_where_the_new_space_has_it(
    space: dict[str, BaseDistribution], trusted: bool, seen: bool, why: str
) -> None:
    shown = shown_in(TRIAL, space, trusted=trusted)
    assert (shown is not None) == seen, why
    if shown:
        assert shown.params == TRIAL.params
        assert shown.distributions == OLD | space
        assert (shown.values, shown.constraints) == ([0.5], {"size": 1.0})
