"""Whether one model is better than another on the same rows, or may seem so by chance. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, nan
from zlib import crc32

import numpy as np
from scipy.stats import bootstrap, permutation_test

from shared.domain import Measure

MOST_SWAPS = 19_999
DRAWS = 999  # of the bootstrap
_CELLS = 2_000_000  # that a batch of draws may have, which bounds its memory


def smallest_p(n_groups: int) -> float:
    """What p is where one model is better in all of so many rows, or groups; a single one shows nothing."""
    return max(0.5**n_groups, 1 / (MOST_SWAPS + 1)) if n_groups > 1 else 1.0


@dataclass(frozen=True)
class Pair:
    """Challenger and champion on the same rows.

    y: `(n_rows,)`; challenger, champion: their predictions, `(n_rows,)` or `(n_rows, n_classes)`.
    groups: `(n_rows,)`, rows that belong together, such as those of one patient; by default each is its own.
    """

    measure: Measure
    y: np.ndarray
    challenger: np.ndarray
    champion: np.ndarray
    groups: np.ndarray | None = None

    @cached_property
    def _said(self) -> tuple[np.ndarray, np.ndarray]:
        return self.measure.rows(self.y, self.challenger), self.measure.rows(self.y, self.champion)

    @cached_property
    def _group(self) -> np.ndarray:
        """`(n_rows,)`: number of each row's group."""
        n_rows = np.arange(len(self.y))
        return n_rows if self.groups is None else np.unique(self.groups, return_inverse=True)[1]

    @cached_property
    def _rows(self) -> list[np.ndarray]:
        """The rows of each group."""
        order = np.argsort(self._group, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self._group))[:-1])

    def p_value(self, level: float, margin: float = 0.0) -> float:
        """How often chance alone would show such a gain: a paired permutation test, one-sided.

        Each row's, or group's, two predictions are swapped by a coin. If the models are equally good, either could as
        well have been the other's, so the gain found is one of those that swapping gives, and p, the share of all swaps
        that gain as much, is at most α with a probability of at most α, whatever the tails. Where there are more swaps
        than can be made, some are drawn, and that without a swap is one more: p = (1 + drawn that gain as much) /
        (1 + drawn) (Phipson and Smyth, "Permutation p-values should never be zero", 2010).

        With a margin, the gain plus the margin is set against them. Two models of which one is worse by the margin
        aren't each other's equals, so the swaps alone are no exact test, and where a few rows cost the worse one much
        they find it harmless too often (`docs/gate.md`). So the bootstrap has to agree: p is the larger of both.

        level: what p is compared with. There are 20 swaps for each that may gain as much, and 19,999 at most.
        """
        n = min(ceil(20 / level), MOST_SWAPS)
        p = self._p_of_swaps(n, margin)
        return max(p, self._p_of_draws(n, margin)) if margin else p

    def _p_of_swaps(self, n: int, margin: float) -> float:
        test = permutation_test(
            (np.ones(len(self._rows)),),
            self._swapped_gain,
            permutation_type="samples",
            vectorized=True,
            alternative="greater",
            n_resamples=n,
            batch=max(1, _CELLS // self._said[0].size),
            rng=self._rng(),
        )
        found = test.statistic + margin
        as_much = test.null_distribution >= found - 1e-12 * max(1.0, abs(found))
        drawn = len(as_much) < 2 ** len(self._rows)
        apart = drawn or margin > 0  # what was found isn't among what the swaps gave
        return float((apart + as_much.sum()) / (drawn + len(as_much)))

    def _p_of_draws(self, n: int, margin: float) -> float:
        """In how many draws the loss is the margin or more; those without a score count as such."""
        harmless = self._drawn_gains(n) > -margin
        return float((1 + (~harmless).sum()) / (1 + len(harmless)))

    def interval(self, share: float = 0.95) -> tuple[float, float]:
        """Where the gain lies in this share of bootstrap draws of the rows, or groups; NaN for fewer than two."""
        gains = self._drawn_gains(DRAWS)
        if np.isnan(gains).all():
            return nan, nan
        low, high = np.nanquantile(gains, [(1 - share) / 2, (1 + share) / 2])
        return float(low), float(high)

    def _drawn_gains(self, n: int) -> np.ndarray:
        """`(n,)`: the gain in bootstrap draws of the rows, or groups; NaN for fewer than two."""
        if len(self._rows) < 2:
            return np.array([nan])
        drawn: np.ndarray = bootstrap(
            (np.arange(len(self._rows)),),
            self._drawn_gain,
            vectorized=self.groups is None,
            method="percentile",
            n_resamples=n,
            batch=max(1, _CELLS // self._said[0].size),
            rng=self._rng(),
        ).bootstrap_distribution
        return drawn

    def _rng(self) -> np.random.Generator:
        """The same for the same predictions, so that a gate asked again answers the same; another one for others."""
        return np.random.default_rng(crc32(np.ascontiguousarray(self.challenger).tobytes()))

    def _swapped_gain(self, signs: np.ndarray, axis: int = -1) -> np.ndarray:
        """signs: `(…, n_groups)`, -1 where a group's predictions are swapped. scipy wants to name the axis."""
        del axis
        one, other = self._said
        swap = (signs < 0)[..., self._group].reshape(*signs.shape[:-1], len(self.y), *[1] * (one.ndim - 1))
        over, y = self.measure.over, self.y
        return np.asarray(over(y, np.where(swap, other, one)) - over(y, np.where(swap, one, other)))

    def _drawn_gain(self, groups: np.ndarray, axis: int = -1) -> np.ndarray:
        """groups: `(…, n_groups)`, those that are drawn."""
        del axis
        rows = groups if self.groups is None else np.concatenate([self._rows[g] for g in groups])
        one, other = self._said
        over, y = self.measure.over, self.y[rows]
        return np.asarray(over(y, one[rows]) - over(y, other[rows]))
