"""Whether a challenger is promoted."""

from __future__ import annotations

import json
from math import inf, isfinite, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.registry.gate import decide

ANY = st.floats(allow_nan=True, allow_infinity=True)
FINITE = st.floats(-1e9, 1e9)
TABLE = [
    # challenger, champion, rules, promoted, what the reason says
    (0.9, 0.8, {}, True, "better by 0.1: score 0.9 against the champion's 0.8"),
    (-0.05, -0.06, {"metric": "neg_log_loss"}, True, "neg_log_loss -0.05 against the champion's -0.06"),
    (0.8, 0.8, {}, False, "not better"),
    (0.7, 0.8, {}, False, "not better"),
    (0.7, 0.8, {"min_gain": -1.0}, False, "not better"),
    (0.85, 0.8, {"min_gain": 0.1}, False, "better by 0.05, less than the 0.1 asked for"),
    (0.95, 0.8, {"min_gain": 0.1}, True, "better by 0.15"),
    (0.1, None, {"min_gain": 0.5}, True, "there is no champion yet"),
    (0.1, nan, {}, True, "the champion has no score on these rows"),
    (nan, None, {}, False, "score is nan, which is no score"),
    (nan, 0.1, {}, False, "score is nan, which is no score"),
    (inf, 0.1, {}, False, "score is inf, which is no score"),
    (0.9, 0.8, {"latency_ms": 30.0, "latency_budget_ms": 20.0}, False, "takes 30 ms a row, more than the 20 ms"),
    (0.9, 0.8, {"latency_ms": 20.0, "latency_budget_ms": 20.0}, True, "better"),
    (0.9, None, {"latency_ms": 30.0, "latency_budget_ms": 20.0}, False, "takes 30 ms a row, more than the 20 ms"),
    (0.9, None, {"latency_ms": nan, "latency_budget_ms": 20.0}, False, "takes nan ms a row"),
    (0.9, 0.8, {"latency_ms": 30.0}, True, "better"),
    (0.9, 0.8, {"unfair": "few rows"}, False, "keeps its place, since it can't be compared fairly: few rows; to serve"),
    (0.9, nan, {"unfair": "few rows"}, True, "the champion has no score on these rows"),
    (nan, 0.8, {"unfair": "few rows"}, False, "score is nan, which is no score"),
]


@pytest.mark.parametrize(("challenger", "champion", "rules", "promoted", "reason"), TABLE)
def test_the_gate_decides_and_says_why(challenger, champion, rules, promoted, reason):
    decision = decide(challenger, champion, **rules)
    assert decision.promote is promoted
    assert reason in decision.reason


@given(challenger=ANY, champion=ANY, min_gain=ANY, latency=st.none() | ANY, budget=st.none() | ANY)
def test_the_worse_model_is_never_promoted(challenger, champion, min_gain, latency, budget):
    decision = decide(challenger, champion, min_gain=min_gain, latency_ms=latency, latency_budget_ms=budget)
    if decision.promote:
        assert isfinite(challenger)
        assert not challenger <= champion
        assert latency is None or budget is None or latency <= budget


@given(first=FINITE, second=FINITE, min_gain=st.floats(0, 10))
def test_two_models_never_take_the_place_of_each_other(first, second, min_gain):
    there = decide(first, second, min_gain=min_gain).promote
    back = decide(second, first, min_gain=min_gain).promote
    assert not (there and back)


@given(challenger=ANY, champion=st.none() | ANY)
def test_the_figures_are_numbers_that_json_has(challenger, champion):
    figures = decide(challenger, champion, latency_ms=1.0).figures
    assert json.loads(json.dumps(dict(figures), allow_nan=False)) == dict(figures)


def test_the_figures_are_those_behind_the_decision():
    decision = decide(0.75, 0.5, min_gain=0.125, latency_ms=3.0, latency_budget_ms=20.0)
    assert decision.figures == {
        "challenger": 0.75,
        "champion": 0.5,
        "gain": 0.25,
        "min_gain": 0.125,
        "latency_ms": 3.0,
        "latency_budget_ms": 20.0,
    }


def test_a_score_that_is_not_to_be_compared_with_is_no_figure():
    assert decide(0.75, 0.5, unfair="few rows").figures == {"challenger": 0.75, "min_gain": 0.0}
