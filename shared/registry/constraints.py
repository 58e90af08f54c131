"""What a challenger must keep, however good it is: size, latency, calibration, no slice that pays for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from shared.domain import Measure

BINS = 10


@dataclass(frozen=True)
class Slice:
    """Some of the rows, such as those of one country. rows: `(n_rows,)`, whether each is of it.

    tolerance: by how much of the metric a challenger may be worse there.
    """

    column: str
    label: str
    rows: np.ndarray
    tolerance: float


def calibration_error(y: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error, 0 to 1: how far the confidence in the likeliest class is from how often it is right.

    The mean over ten bins of equal width, weighted by their rows (Guo et al., "On calibration of modern neural
    networks", ICML 2017). It errs upwards on few rows.
    """
    confidence, hit = probabilities.max(axis=1), probabilities.argmax(axis=1) == y
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(bins, weights=confidence - hit)).sum() / len(y))


def too_much(what: str, value: float | None, most: float | None, unit: str) -> Iterator[str]:
    """What a figure breaks, if it does. One that is NaN does."""
    if value is not None and most is not None and not value <= most:
        yield f"the challenger {what} {value:.3g}{unit}, more than the {most:g}{unit} allowed"


def losses(
    measure: Measure, y: np.ndarray, challenger: np.ndarray, champion: np.ndarray, slices: Sequence[Slice]
) -> Iterator[tuple[Slice, float]]:
    """By how much the challenger is worse on each slice; those that the metric isn't defined on are left out."""
    for part in slices:
        rows = part.rows
        loss = measure.score(y[rows], champion[rows]) - measure.score(y[rows], challenger[rows])
        if np.isfinite(loss):
            yield part, loss
