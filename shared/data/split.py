"""Which rows tuning sees and which only the gate: pure functions of the rows, so that growth moves none of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shared.config import DataConfig

HOLDOUT = -1


def by_hash(hashes: npt.NDArray[np.uint64], config: DataConfig, folds: int) -> npt.NDArray[np.int64]:
    """Fold `0 … folds-1` of each row, or `HOLDOUT`; a row's place depends on its own hash and `split_seed` alone.

    Args:
        hashes: `(n_rows,)`, of the features only, so that rows that differ in their target alone stay together.
    """
    drawn = mix(hashes ^ mix(np.array([config.split_seed], dtype=np.uint64)))
    uniform = (drawn >> np.uint64(11)) / 2.0**53
    fold = (mix(drawn) % np.uint64(folds)).astype(np.int64)
    return np.where(uniform < config.holdout, HOLDOUT, fold)


def by_time(times: npt.NDArray[np.floating], config: DataConfig, folds: int) -> npt.NDArray[np.int64]:
    """Time block `0 … folds` of each row, or `HOLDOUT` for the newest share; rows of one moment stay together.

    Args:
        times: `(n_rows,)`, anything that grows with time, without missing values.
    """
    order = np.sort(times)
    older = np.searchsorted(order, times, side="left")
    n_development = int(np.searchsorted(order, order[_cut(len(order), config.holdout)], side="left"))
    block = older * (folds + 1) // max(n_development, 1)
    return np.where(older < n_development, block, HOLDOUT).astype(np.int64)


def mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """One step of SplitMix64: neighboring inputs give unrelated outputs, different inputs different ones.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, with the constants of
    https://prng.di.unimi.it/splitmix64.c (public domain).
    """
    z = x + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _cut(n_rows: int, holdout: float) -> int:
    """Position of the oldest holdout row among the rows in order of time; at least one row is held out."""
    return min(round(n_rows * (1 - holdout)), n_rows - 1)
