"""What a study took over from earlier ones, and what that brought: the words and rows of the card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from shared.flow.charts.theme import figure
from shared.flow.charts.trials import Goal, ended, ranked
from shared.tuning.stopping import WARM_START

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from shared.domain import Transfer

HEADERS = ["Earlier study", "Dataset version", "Run again", "Trials to learn from", "Ranking holds"]


def is_warm(trial: FrozenTrial) -> bool:
    """Whether it repeats a trial of an earlier study."""
    return WARM_START in trial.user_attrs


def source_rows(transfers: Iterable[Transfer], trials: Iterable[FrozenTrial]) -> list[list[str]]:
    """A row per earlier study, as `HEADERS` say."""
    again = Counter(t.user_attrs[WARM_START]["study"] for t in ended(trials) if is_warm(t))
    return [
        [
            source.study,
            source.fingerprint[:12],
            str(again[source.study]),
            str(source.trials) if source.trials else "deleted",
            f"{source.weight:.0%}",
        ]
        for source in transfers
    ]


def gain(trials: Sequence[FrozenTrial], goal: Goal) -> str:
    """The best warm start against the best of the other trials; empty where there is none of either."""
    order = ranked(trials, goal)
    warm, others = [t for t in order if is_warm(t)], [t for t in order if not is_warm(t)]
    if not warm or not others:
        return ""
    level, best = goal.value(warm[0]) or 0.0, goal.value(others[0]) or 0.0
    first = f"The best warm start is trial {warm[0].number}, with {figure(level)}"
    second = f"The best of the others is trial {others[0].number}, with {figure(best)}"
    if order[0] is warm[0]:
        return f"{first}, and it is the best of all. {second}."
    as_good = [t.number for t in others if goal.loss(goal.value(t) or 0.0) <= goal.loss(level)]
    before = sum(t.number <= min(as_good) for t in ended(trials) if not is_warm(t))
    return f"{first}. {second}; to be as good as the warm start took {before} of them."


def mappings(trials: Iterable[FrozenTrial]) -> list[str]:
    """What had to be changed in the warm starts since the search space is another one: a line per trial."""
    from shared.tuning.mapping import changed

    warm = [t for t in ended(trials) if is_warm(t) and t.state.name != "FAIL"]
    found = [(t.number, changed(t.user_attrs[WARM_START]["params"], t.params)) for t in warm]
    return [f"Trial {number}: {words}." for number, words in found if words]
