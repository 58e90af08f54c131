"""Which configurations are alike: Gower's distance over parameters in units of their ranges."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, create_trial

from shared.tuning.neighbors import distances, distinct, encode, space_of

SPACE = {
    "family": CategoricalDistribution(("svm", "forest")),
    "C": FloatDistribution(1e-2, 1e2, log=True),
    "depth": IntDistribution(1, 5),
}


def configuration(**params: Any) -> FrozenTrial:
    return create_trial(value=0.0, params=params, distributions={name: SPACE[name] for name in params})


def distance(one: FrozenTrial, other: FrozenTrial) -> float:
    space = space_of([one, other])
    return float(distances(encode([one], space), encode([other], space), space)[0, 0])


@pytest.mark.parametrize(
    ("one", "other", "expected", "why"),
    [
        ({"C": 1.0}, {"C": 1.0}, 0, "the same"),
        ({"C": 1e-2}, {"C": 1e2}, 1, "the two ends of a range"),
        ({"C": 1.0}, {"C": 10.0}, 1 / 4, "one of four decades"),
        ({"depth": 2}, {"depth": 4}, 1 / 2, "two of four steps"),
        ({"family": "svm"}, {"family": "forest"}, 1, "another choice"),
        ({"family": "svm", "C": 1.0}, {"family": "svm", "C": 10.0}, 1 / 8, "the mean of 0 and 1/4"),
        ({"family": "svm", "C": 1.0}, {"family": "forest", "depth": 1}, 1, "what only one has counts 1"),
        ({"family": "svm", "C": 1.0}, {"family": "svm"}, 1 / 2, "one of two parameters is only in one"),
        ({}, {}, 0, "nothing to differ in"),
    ],
)
def test_the_distance_is_the_mean_over_the_parameters(
    one: dict[str, Any], other: dict[str, Any], expected: float, why: str
) -> None:
    assert distance(configuration(**one), configuration(**other)) == pytest.approx(expected), why


configurations = st.fixed_dictionaries(
    {"family": st.sampled_from(["svm", "forest"])},
    optional={"C": st.floats(1e-2, 1e2), "depth": st.integers(1, 5)},
).map(lambda params: configuration(**params))


@given(configurations, configurations)
def test_the_distance_is_symmetric_and_between_zero_and_one(one: FrozenTrial, other: FrozenTrial) -> None:
    assert 0 <= distance(one, other) == distance(other, one) <= 1
    assert distance(one, one) == 0


@given(st.lists(configurations, max_size=12), st.integers(1, 5))
def test_distinct_configurations_are_apart_and_the_best_is_among_them(found: list[FrozenTrial], n: int) -> None:
    few = distinct(found, n, 0.2)
    assert few[:1] == found[:1]
    assert len(few) <= n
    assert all(distance(a, b) >= 0.2 for i, a in enumerate(few) for b in few[:i])


def test_distances_take_no_more_memory_where_there_are_more_parameters() -> None:
    def peak(n_parameters: int) -> int:
        space = {f"x{i}": FloatDistribution(0, 1) for i in range(n_parameters)}
        rows = np.random.default_rng(0).random((200, n_parameters))
        tracemalloc.start()
        distances(rows, rows, space)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(20) < 2 * peak(2)


def test_distinct_configurations_of_very_many_take_no_matrix_of_all_pairs() -> None:
    many = [configuration(C=float(c)) for c in np.geomspace(1e-2, 1e2, 2000)]
    tracemalloc.start()
    assert len(distinct(many, 3, 0.2)) == 3
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 * len(many) ** 2 / 4


def test_parameters_without_a_distribution_differ_or_not() -> None:
    remembered = [configuration(C=1.0), configuration(C=1.0), configuration(C=1.01)]
    for trial in remembered:
        trial.distributions = {}
    space = space_of(remembered)
    apart = distances(encode(remembered, space), encode(remembered, space), space)
    assert np.array_equal(apart, [[0, 0, 1], [0, 0, 1], [1, 1, 0]])
