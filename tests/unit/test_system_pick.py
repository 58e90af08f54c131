"""Which trial of a system study is retrained."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import TrialSummary
from shared.errors import StudyFailed
from shared.training.pick import front, pick

VALUES = st.lists(st.tuples(st.floats(-5, 0), st.floats(0.1, 50)), min_size=1, max_size=12)


def trials(*values: tuple[float, float]) -> list[TrialSummary]:
    return [TrialSummary(number=i, values=v, params={}) for i, v in enumerate(values)]


CASES = [
    ("the best metric wins", [(-0.3, 1.0), (-0.1, 9.0), (-0.2, 2.0)], 1, True),
    ("a better metric over the budget doesn't count", [(-0.3, 1.0), (-0.1, 10.1), (-0.2, 2.0)], 2, True),
    ("the budget itself is within", [(-0.3, 1.0), (-0.1, 10.0)], 1, True),
    ("of equal metrics the faster", [(-0.1, 3.0), (-0.1, 2.0), (-0.1, 4.0)], 1, True),
    ("none within the budget: the fastest", [(-0.1, 30.0), (-0.9, 20.0)], 1, False),
    ("of equally fast ones the better", [(-0.9, 20.0), (-0.1, 20.0)], 1, False),
]


@pytest.mark.parametrize(("why", "values", "number", "feasible"), CASES, ids=[c[0] for c in CASES])
def test_the_pick(why, values, number, feasible):
    picked = pick(trials(*values), latency_budget_ms=10.0)
    assert (picked.trial.number, picked.feasible) == (number, feasible), why


def test_the_reason_says_when_none_keeps_the_budget():
    reason = pick(trials((-0.1, 30.0), (-0.9, 20.0)), 10.0).reason
    assert reason == "the fastest of 2 trials, with 20 ms per row, since none keeps the budget of 10 ms"
    assert pick(trials((-0.1, 3.0)), 10.0).reason == "the best metric of the 1 trials within 10 ms per row"


def test_no_trials_is_an_error_that_says_where_to_look():
    with pytest.raises(StudyFailed, match="none finished; see the trials' errors"):
        pick([], 10.0)


@given(VALUES)
def test_a_trial_is_on_the_front_if_and_only_if_nothing_dominates_it(values):
    def dominates(a: TrialSummary, b: TrialSummary) -> bool:
        return a.values != b.values and a.values[0] >= b.values[0] and a.values[1] <= b.values[1]

    all_trials = trials(*values)
    best = {t.values for t in all_trials if not any(dominates(o, t) for o in all_trials)}
    found = front(all_trials)
    assert {t.values for t in found} == best
    assert [t.values[1] for t in found] == sorted(t.values[1] for t in found)


@given(VALUES)
def test_the_pick_is_on_the_front(values):
    assert pick(trials(*values), 10.0).trial.values in {t.values for t in front(trials(*values))}
