"""How much of α a gate may spend, so that many gates on one holdout promote by luck no more often than one may. Pure.

Alpha-spending with recycling, "online fallback" (Tian and Ramdas, "Online control of the familywise error rate",
Statistical Methods in Medical Research 30, 2021): the k-th gate of a series is at the level

    level_k = α / (k (k + 1)) + (level_{k-1} if gate k-1 found its challenger better, else 0)

The first gets α/2, then α/6, α/12, …, which never sum to more than α: however long the series is, a champion gives way
to an equal model in at most α of all series. That holds however the gates depend on each other, as those on the same
rows do; rules that promise more power (LORD, ADDIS) need independent gates, and control the share of wrong promotions
only. What found a better model isn't used up, so a champion that was beaten can be beaten again. As long as α stays,
the first k levels never hand on more than α k / (k + 1); where it was lowered, that of the new one is the most.

A turn is taken before its gate looks at the targets (`shared/storage/turns.py`). A gate that never decides, since its
process died or the champion moved on meanwhile, has spent it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Turn:
    """A gate's turn at a holdout: the `number`-th, from 1, of the series that began with version `series`.

    rows: of the holdout when the series began. level: what its p-value may be at most.
    """

    number: int
    series: int
    rows: int
    level: float

    @property
    def figures(self) -> dict[str, float]:
        """As the promotion log keeps them."""
        return {"turn": self.number, "series": self.series, "series_rows": self.rows, "level": self.level}


def first_turn(version: int, rows: int, alpha: float) -> Turn:
    """A new series, at a holdout of so many rows."""
    return Turn(1, version, rows, alpha / 2)


def next_turn(last: Mapping[str, Any], alpha: float) -> Turn:
    """The series goes on. last: figures of the gate before; without its `p`, if it hasn't decided."""
    number = int(last["turn"]) + 1
    recycled = min(last["level"], alpha * (number - 1) / number) if last.get("p", 1.0) <= last["level"] else 0.0
    return Turn(number, int(last["series"]), int(last["series_rows"]), alpha / (number * (number + 1)) + recycled)


def with_decision(turn: Mapping[str, Any], log: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """A turn's figures with those of the decision that was made in it, if one was.

    log: figures of all decisions, oldest first. One that is made later hands nothing on: the turn after it is taken.
    """
    return next((figures for figures in reversed(log) if turn.items() <= figures.items()), turn)
