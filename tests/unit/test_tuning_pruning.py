"""The fold rule: a trial is given up where its folds, beside the best trial's, say that it won't be the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import optuna
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shared.tuning.pruning import FoldPruner, falls_short

FOLDS = 5
HARD = (0.0, -3.0, 1.0, -9.0, 2.0)  # what the folds have in common: far more than what trials differ by


def course(level: float, *noise: float) -> list[float]:
    """The means so far of a trial that is `level` good, with something of its own in the first folds."""
    own = [*noise, *[0.0] * (FOLDS - len(noise))]
    folds = [level + hard + n for hard, n in zip(HARD, own, strict=True)]
    return [total / (k + 1) for k, total in enumerate(accumulate(folds))]


# The best has level 0; the two rivals' differences to it still change by 0.16 after the first fold, up and down.
COMPLETE = [course(0.0), course(-0.1, 0.2), course(-0.1, -0.2), course(-0.5, 0.1), course(-5.0), course(-7.0, 3.0)]


@pytest.mark.parametrize(
    ("trial", "folds", "pruned", "reason"),
    [
        (course(-0.5), 1, True, "far behind on the first fold already"),
        (course(-0.05), 1, False, "behind by less than half of what rivals have changed after one fold"),
        (course(-0.05), 3, True, "later there is less left to change"),
        (course(0.3, -0.35), 1, False, "unlucky at first"),
        (course(0.3), 1, False, "better"),
        (course(0.0), 4, False, "as good as the best"),
        (course(-5.0), 5, False, "all folds are paid for"),
        ([-math.inf], 1, True, "nothing makes up for -inf"),
        ([math.inf], 1, False, "nothing beats +inf"),
        ([math.nan], 1, False, "fails with a message of its own"),
    ],
)
def test_a_trial_is_given_up_where_it_cannot_catch_up(
    trial: Sequence[float], folds: int, pruned: bool, reason: str
) -> None:
    assert falls_short(trial[:folds], COMPLETE) == pruned, reason


def test_no_trial_is_given_up_before_four_different_ones_are_complete() -> None:
    assert falls_short([-9.0], COMPLETE[:4])
    assert not falls_short([-9.0], COMPLETE[:3])
    assert not falls_short([-9.0], [*COMPLETE[:3], COMPLETE[0], COMPLETE[1]])
    assert not falls_short([-9.0], [])


def test_trials_without_folds_or_with_an_infinite_one_are_no_measure() -> None:
    assert not falls_short([-9.0], [*COMPLETE[:3], [], [-math.inf] * FOLDS])
    assert falls_short([-9.0], [*COMPLETE, [], [math.inf] * FOLDS])


finite = st.floats(-100, 100, width=32)
courses = st.lists(st.lists(finite, min_size=FOLDS, max_size=FOLDS), min_size=1, max_size=9)


@given(courses, st.lists(finite, min_size=1, max_size=FOLDS))
def test_a_trial_that_is_not_behind_the_best_is_never_given_up(complete: list[list[float]], trial: list[float]) -> None:
    best = max(complete, key=lambda c: c[-1])
    assume(trial[-1] >= max(c[len(trial) - 1] for c in complete if c[-1] == best[-1]))
    assert not falls_short(trial, complete)


@given(courses, st.lists(finite, min_size=1, max_size=FOLDS), finite)
def test_a_trial_that_is_given_up_would_be_so_with_a_worse_score(
    complete: list[list[float]], trial: list[float], less: float
) -> None:
    if falls_short(trial, complete):
        assert falls_short([*trial[:-1], trial[-1] - abs(less)], complete)


@given(courses, st.lists(st.integers(-50, 50), min_size=1, max_size=FOLDS), st.integers(-50, 50))
def test_what_all_trials_have_in_common_does_not_matter(
    complete: list[list[float]], trial: list[int], common: int
) -> None:
    whole = [[float(round(v)) for v in c] for c in complete]
    moved = [[v + common for v in c] for c in whole]
    assert falls_short([v + common for v in trial], moved) == falls_short([float(v) for v in trial], whole)


def pruned_after(direction: str, sign: int, levels: Sequence[float]) -> list[int]:
    study = optuna.create_study(direction=direction, pruner=FoldPruner())
    for level in levels:
        trial = study.ask()
        for k, mean in enumerate(course(level)):
            trial.report(sign * mean, k)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, sign * mean)
    return [len(t.intermediate_values) for t in study.trials if t.state.name == "PRUNED"]


@pytest.mark.parametrize(("direction", "sign"), [("maximize", 1), ("minimize", -1)])
def test_in_both_directions_bad_trials_cost_one_fold(direction: str, sign: int) -> None:
    assert pruned_after(direction, sign, [-3, -2, -1, 0, -2.5, -4, 1, -0.5]) == [1, 1, 1]
