"""Which trial of a system study is retrained."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import TrialSummary
from shared.errors import StudyFailed
from shared.training.pick import pick

VALUES = st.lists(st.tuples(st.floats(-5, 0), st.floats(0.1, 50)), min_size=1, max_size=12)


def trials(*values: tuple[float, float]) -> list[TrialSummary]:
    return [TrialSummary(number=i, values=v, params={}) for i, v in enumerate(values)]


CASES = [
    ("the best metric wins", [(-0.3, 1.0), (-0.1, 9.0), (-0.2, 2.0)], 1),
    ("a better metric over the budget doesn't count", [(-0.3, 1.0), (-0.1, 10.1), (-0.2, 2.0)], 2),
    ("the budget itself is within", [(-0.3, 1.0), (-0.1, 10.0)], 1),
    ("of equal metrics the faster", [(-0.1, 3.0), (-0.1, 2.0), (-0.1, 4.0)], 1),
    ("none within the budget: the fastest", [(-0.1, 30.0), (-0.9, 20.0)], 1),
    ("of equally fast ones the better", [(-0.9, 20.0), (-0.1, 20.0)], 1),
]


@pytest.mark.parametrize(("why", "values", "number"), CASES, ids=[c[0] for c in CASES])
def test_the_pick(why, values, number):
    assert pick(trials(*values), latency_budget_ms=10.0).number == number, why


def test_no_trials_is_an_error_that_says_where_to_look():
    with pytest.raises(StudyFailed, match="none finished; see the trials' errors"):
        pick([], 10.0)


@given(VALUES)
def test_no_trial_dominates_the_pick(values):
    metric, latency = pick(trials(*values), 10.0).values
    assert not any(m >= metric and ms <= latency and (m, ms) != (metric, latency) for m, ms in values)
