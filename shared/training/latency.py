"""How long a prediction takes: of one raw row, the way a served model is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import pandas as pd

    from shared.model import System

T = TypeVar("T")
_WARM_UP = 3


def latency_ms(system: System, X: pd.DataFrame, repeats: int = 15) -> float:
    """Median milliseconds of a prediction for one raw row, each for another row of `X` while there are some."""
    return median_ms(system.scores, (X.iloc[[i % len(X)]] for i in range(repeats + _WARM_UP)))


def median_ms(call: Callable[[T], object], arguments: Iterable[T]) -> float:
    """Median milliseconds of the calls with each of the arguments, without the first three, which warm up."""
    return median([_elapsed_ms(call, argument) for argument in arguments][_WARM_UP:])


def _elapsed_ms(call: Callable[[T], object], argument: T) -> float:
    start = perf_counter()
    call(argument)
    return (perf_counter() - start) * 1000
