"""A row's place follows from itself (or its time), so that nothing leaks and nothing moves."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.config import DataConfig
from shared.data.split import HOLDOUT, by_hash, by_time, mix

HASHES = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=50).map(lambda x: np.array(x, dtype=np.uint64))


def config(**values) -> DataConfig:
    return DataConfig(source="sklearn:iris", target="target", **values)


@settings(max_examples=60, deadline=None)
@given(old=HASHES, new=HASHES, seed=st.integers(0, 2**32), folds=st.integers(2, 20))
def test_a_row_never_moves_when_the_data_grow(old, new, seed, folds):
    rules = config(split_seed=seed)
    grown = by_hash(np.concatenate([new, old]), rules, folds)
    assert (grown[len(new) :] == by_hash(old, rules, folds)).all()


@settings(max_examples=60, deadline=None)
@given(hashes=HASHES, small=st.floats(0.05, 0.5), more=st.floats(0.01, 0.4))
def test_a_larger_holdout_only_takes_rows(hashes, small, more):
    held = by_hash(hashes, config(holdout=small), 5) == HOLDOUT
    assert (by_hash(hashes, config(holdout=small + more), 5)[held] == HOLDOUT).all()


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_shares_and_folds_are_as_asked_for(seed):
    fold = by_hash(mix(np.arange(100_000, dtype=np.uint64)), config(holdout=0.2, split_seed=seed), 5)
    assert np.bincount(fold + 1) / 100_000 == pytest.approx([0.2] + [0.16] * 5, abs=0.005)


def test_folds_do_not_follow_from_the_draw_of_the_holdout():
    hashes = mix(np.arange(50_000, dtype=np.uint64))
    small, large = (by_hash(hashes, config(holdout=share), 4) for share in (0.1, 0.5))
    newly_held = (large == HOLDOUT) & (small != HOLDOUT)
    assert np.bincount(small[newly_held]) / newly_held.sum() == pytest.approx([0.25] * 4, abs=0.02)


def test_another_split_seed_is_another_split():
    hashes = mix(np.arange(1_000, dtype=np.uint64))
    same = by_hash(hashes, config(split_seed=1), 5) == by_hash(hashes, config(split_seed=2), 5)
    assert 0.1 < same.mean() < 0.3


def test_split_mix_gives_the_published_sequence():
    """First outputs of SplitMix64 from seed 1234567, as in the test vectors of Rosetta Code and java.util."""
    states = np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1234567)
    assert mix(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@settings(max_examples=60, deadline=None)
@given(times=st.lists(st.integers(0, 60), min_size=2, max_size=80), folds=st.integers(2, 6))
def test_by_time_no_row_is_trained_on_that_is_newer_than_one_it_is_scored_on(times, folds):
    moments = np.array(times, dtype=np.float64)
    fold = by_time(moments, config(time="t"), folds)
    blocks = [moments[fold == k] for k in range(folds + 1) if (fold == k).any()]
    blocks += [moments[fold == HOLDOUT]]
    assert all(older.max() < newer.min() for older, newer in pairwise(blocks))


def test_by_time_the_newest_share_is_held_out_and_blocks_are_even():
    fold = by_time(np.random.default_rng(0).permutation(1_000).astype(float), config(time="t", holdout=0.25), 4)
    assert np.bincount(fold + 1).tolist() == [250] + [150] * 5
