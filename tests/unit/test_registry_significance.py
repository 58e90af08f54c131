"""Whether a gain may be chance: the permutation test and the bootstrap of the gate."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from shared.registry.significance import MOST_SWAPS, Pair, smallest_p
from tests.unit.test_training_measure import drawn, measure, table

SQUARED = measure("neg_mean_squared_error", table(0))


def pair(n_rows: int = 60, better: float = 0.0, seed: int = 0, groups: np.ndarray | None = None) -> Pair:
    """Two regressors of independent errors, the champion's larger by a share."""
    rng = np.random.default_rng(seed)
    y, one, other = rng.normal(size=(3, n_rows))
    return Pair(SQUARED, y, y + one, y + (1 + better) * other, groups)


def test_on_few_rows_p_is_that_of_all_swaps() -> None:
    few = pair(8)
    gains = (few.champion - few.y) ** 2 - (few.challenger - few.y) ** 2
    signs = np.array(list(product([1, -1], repeat=8)))
    as_much = (signs @ gains >= gains.sum() - 1e-12).sum()

    assert few.p_value(0.01) == pytest.approx(as_much / 2**8)


@pytest.mark.parametrize(("n_rows", "margin"), [(2, 0.0), (5, 0.0), (5, 1e-3), (8, 0.0), (8, 1e-3), (30, 0.0)])
def test_no_p_is_smaller_than_that_of_a_model_that_is_better_everywhere(n_rows: int, margin: float) -> None:
    y = np.zeros(n_rows)
    best = Pair(SQUARED, y, y + 0.1, y + np.linspace(1, 2, n_rows))
    assert best.p_value(1e-9, margin) == smallest_p(n_rows)


def test_on_many_rows_p_is_near_that_of_a_t_test() -> None:
    many = pair(2000, better=0.02)
    gains = (many.champion - many.y) ** 2 - (many.challenger - many.y) ** 2

    assert many.p_value(0.01) == pytest.approx(ttest_1samp(gains, 0, alternative="greater").pvalue, abs=0.03)


def test_the_better_the_challenger_the_smaller_is_p() -> None:
    p = [pair(200, better).p_value(0.01) for better in (-0.5, 0.0, 0.5)]
    assert p[0] > 0.99 > p[1] > 0.01 > p[2]


def test_p_is_never_zero_and_fine_enough_for_its_level() -> None:
    assert pair(200, 9.0).p_value(0.025) == 1 / 801
    assert pair(200, 9.0).p_value(1e-9) == 1 / (1 + MOST_SWAPS)


def test_the_same_rows_give_the_same_p() -> None:
    assert pair().p_value(0.01) == pair().p_value(0.01)


def test_a_margin_is_added_to_the_gain() -> None:
    worse = pair(400, better=-0.1)
    assert worse.p_value(0.01) > 0.1 > worse.p_value(0.01, margin=0.6)


def test_rows_that_belong_together_are_swapped_together() -> None:
    """Ten times the same rows are no more evidence than once."""
    once = pair(8, better=0.8)
    y, challenger, champion = (np.tile(a, 10) for a in (once.y, once.challenger, once.champion))
    alone, together = (
        Pair(SQUARED, y, challenger, champion),
        Pair(SQUARED, y, challenger, champion, np.tile(range(8), 10)),
    )

    assert together.p_value(0.01) == pytest.approx(once.p_value(0.01))
    assert alone.p_value(0.01) < once.p_value(0.01)
    assert np.ptp(together.interval()) > 2 * np.ptp(alone.interval())


@pytest.mark.parametrize("metric", ["roc_auc", "f1"])
def test_metrics_that_are_no_means_are_swapped_too(metric: str) -> None:
    y, good = drawn(2, 200)
    bad = np.random.default_rng(2).dirichlet([1, 1], 200)
    measured = measure(metric, table(2))

    assert Pair(measured, y, good, bad).p_value(0.01) <= 0.01
    assert Pair(measured, y, bad, good).p_value(0.01) > 0.9


def test_the_area_under_a_curve_knows_no_scale() -> None:
    """A champion whose probabilities are squeezed ranks as before, so p is what it was."""
    y, one = drawn(2, 200)
    other = drawn(2, 200)[1][::-1]
    measured = measure("roc_auc", table(2))
    p = 0.05 + 0.01 * other[:, 1] / other.sum(axis=1)
    squeezed = np.column_stack([1 - p, p])

    assert Pair(measured, y, one, squeezed).p_value(0.01) == Pair(measured, y, one, other).p_value(0.01)


def test_the_interval_holds_the_gain_and_narrows_with_more_rows() -> None:
    few, many = pair(50, 0.2), pair(5000, 0.2)
    for one in (few, many):
        low, high = one.interval()
        assert low < SQUARED.score(one.y, one.challenger) - SQUARED.score(one.y, one.champion) < high
    assert np.ptp(many.interval()) < np.ptp(few.interval()) / 4
    assert np.isnan(pair(1).interval()).all()
