"""Whether a challenger is promoted."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from math import nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.config import PromotionConfig
from shared.domain import PromotionDecision
from shared.registry.constraints import Slice, calibration_error
from shared.registry.gate import Bout, Contender, decide
from shared.registry.spending import Turn, first_turn, next_turn
from tests.unit.test_training_measure import measure, table

N = 200
RNG = np.random.default_rng(0)
Y = RNG.normal(size=N)
SOME = np.arange(N) % 4 == 0
CHEAP = PromotionConfig(mode="non_inferiority", margin=0.6)


def off(by: float, seed: int = 1) -> np.ndarray:
    """Predictions that are wrong by so much, on average."""
    return Y + by * np.random.default_rng(seed).normal(size=N)


GOOD, FAIR, EQUAL, BAD = off(0.5), off(1.0, 2), off(1.0, 3), off(2.0, 4)
WORSE_FOR_SOME = np.where(SOME, off(1.4, 5), off(0.3, 6))


def judged(
    challenger: np.ndarray | Contender,
    champion: np.ndarray | Contender | None,
    rules: PromotionConfig | None = None,
    turn: Turn | None = None,
    **more: Any,
) -> PromotionDecision:
    met = None if champion is None else contender(champion)
    bout = Bout(measure("neg_mean_squared_error", table(0)), Y, contender(challenger), met, **more)
    return decide(bout, rules or PromotionConfig(), lambda: turn or first_turn(3, N, 0.05))


def contender(model: np.ndarray | Contender) -> Contender:
    return model if isinstance(model, Contender) else Contender(model)


def rules(**given: Any) -> PromotionConfig:
    return PromotionConfig.model_validate(given)


def late(number: int) -> Turn:
    """A turn after so many gates without a promotion, less one."""
    turn = first_turn(3, N, 0.05)
    while turn.number < number:
        turn = next_turn({**turn.figures, "p": 1.0}, 0.05)
    return turn


def some(tolerance: float) -> dict[str, Any]:
    return {"slices": [Slice("country (home)", "country = X", SOME, tolerance)]}


SLOW = {"latency_ms": 30.0, "latency_budget_ms": 20.0}
ON_TIME = {"latency_ms": 20.0, "latency_budget_ms": 20.0}
SMALL = {"rules": PromotionConfig(max_size_mb=5)}
CHEAPER = {"rules": CHEAP}
TABLE = [
    ("surely better", GOOD, FAIR, {}, True, "is better by 0.7"),
    ("surely worse", BAD, FAIR, {}, False, "is not better: neg_mean_squared_error -"),
    ("better, it seems", off(0.97, 2), EQUAL, {}, False, "which may be luck (p = "),
    ("the same", FAIR, FAIR, {}, False, f"predicts the same as the champion for all {N} rows"),
    ("too little", GOOD, FAIR, {"rules": rules(min_gain=5.0)}, False, "less than the 5 asked for"),
    ("enough", GOOD, FAIR, {"rules": rules(min_gain=0.1)}, True, "is better by 0.7"),
    ("a loss is never enough", BAD, FAIR, {"rules": rules(min_gain=-9.0, alpha=0.9)}, False, "is not better"),
    ("the first", BAD, None, {}, True, "there is no champion yet, and the challenger's neg_mean_squared_error is -3."),
    ("after one without a score", BAD, None, {"absent": "the champion has no score"}, True, "the champion has no"),
    ("no score", np.full(N, nan), FAIR, {}, False, "is nan, which is no score"),
    ("without a score", BAD, np.full(N, nan), {}, True, "the champion has no score on these rows, and the"),
    ("no score, the first", np.full(N, nan), None, {}, False, "is nan, which is no score"),
    ("too slow", GOOD, FAIR, SLOW, False, "30 ms a row, more than the 20 "),
    ("as slow as it may be", GOOD, FAIR, ON_TIME, True, "better"),
    ("too slow to be the first", GOOD, None, SLOW, False, "takes 30 ms"),
    ("of unknown speed", GOOD, None, {"latency_ms": nan, "latency_budget_ms": 20.0}, False, "takes nan ms a row"),
    ("without a budget", GOOD, FAIR, {"latency_ms": 30.0}, True, "better"),
    ("too large", Contender(GOOD, size_mb=9.0), FAIR, SMALL, False, "is of 9 MB, more than the"),
    ("of unknown size", GOOD, FAIR, SMALL, True, "better"),
    ("unfair", GOOD, FAIR, {"unfair": "few rows"}, False, "keeps its place, since it can't be compared fairly: few"),
    ("worse for some", WORSE_FOR_SOME, FAIR, some(0.3), False, "50 rows of the slice country = X, more than the 0.3"),
    ("worse for some, a little", WORSE_FOR_SOME, FAIR, some(3.0), True, "better"),
    ("worn out", GOOD, FAIR, {"turn": late(40)}, False, "worn out by 39 gates"),
    ("late, and surely better", GOOD, FAIR, {"turn": late(20)}, True, "in gate 20 on this holdout"),
    ("cheaper, and as good", Contender(EQUAL, 1.0), Contender(FAIR, 2.0), CHEAPER, True, "50% cheaper and worse"),
    ("smaller, and as good", Contender(EQUAL, 1.0, 1.0), Contender(FAIR, 1.0, 4.0), CHEAPER, True, "75% cheaper"),
    ("cheaper, and worse", Contender(BAD, 1.0), Contender(FAIR, 2.0), CHEAPER, False, "less than 0.6 isn't sure"),
    ("hardly cheaper", Contender(GOOD, 1.9), Contender(FAIR, 2.0), CHEAPER, False, "saves 5% of latency or"),
    ("dearer", Contender(GOOD, 3.0), Contender(FAIR, 2.0), CHEAPER, False, "saves neither latency nor size"),
    ("cheaper, and the same", Contender(FAIR, 1.0), Contender(FAIR, 2.0), CHEAPER, True, "and is 50% cheaper"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("why", "challenger", "champion", "more", "promoted", "reason"), TABLE, ids=[r[0] for r in TABLE]
)
def test_the_gate_decides_and_says_why(why, challenger, champion, more, promoted, reason):
    decision = judged(challenger, champion, **more)
    assert reason in decision.reason, why
    assert decision.promote is promoted


@settings(max_examples=30, deadline=None)
@given(
    quality=st.floats(0.1, 3), rival=st.floats(0.1, 3), alpha=st.floats(0.01, 0.99), min_gain=st.floats(-1, 1),
    latency=st.none() | st.floats(0, 30),
)  # fmt: skip
def test_the_worse_model_is_never_promoted(quality, rival, alpha, min_gain, latency):
    asked = rules(alpha=alpha, min_gain=min_gain)
    turn = first_turn(1, N, alpha)
    decision = judged(off(quality), off(rival, 2), asked, turn, latency_ms=latency, latency_budget_ms=20.0)
    if decision.promote:
        assert decision.figures["gain"] > 0
        assert decision.figures["gain"] >= min_gain
        assert decision.figures["p"] <= alpha / 2
        assert latency is None or latency <= 20


@settings(max_examples=30, deadline=None)
@given(quality=st.floats(0.1, 3), rival=st.floats(0.1, 3))
def test_two_models_never_take_the_place_of_each_other(quality, rival):
    one, other = off(quality), off(rival, 2)
    assert not (judged(one, other).promote and judged(other, one).promote)


@pytest.mark.parametrize("champion", [None, FAIR, np.full(N, nan)])
def test_the_figures_are_numbers_that_json_has(champion):
    figures = judged(GOOD, champion, latency_ms=1.0).figures
    assert json.loads(json.dumps(dict(figures), allow_nan=False)) == dict(figures)


def test_the_figures_are_those_behind_the_decision():
    decision = judged(Contender(WORSE_FOR_SOME, size_mb=1.5), FAIR, latency_ms=3.0, latency_budget_ms=20.0, **some(0.5))
    figures = decision.figures
    assert figures["gain"] == figures["challenger"] - figures["champion"]
    assert figures["gain_low"] < figures["gain"] < figures["gain_high"]
    assert figures["slice.country _home_"] > 0
    known = {
        "rows": N, "min_gain": 0.0, "margin": 0.0, "saving": 0.0, "latency_ms": 3.0, "latency_budget_ms": 20.0,
        "size_mb": 1.5, "turn": 1, "series": 3, "series_rows": N, "level": 0.025,
    }  # fmt: skip
    assert {key: figures[key] for key in known} == known
    assert figures.keys() - known == {
        "challenger", "champion", "gain", "gain_low", "gain_high", "p", "slice.country _home_",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("why", "decision"),
    [
        ("it was refused for its costs", judged(GOOD, FAIR, **SLOW)),
        ("it predicts the same", judged(FAIR, FAIR)),
        ("it isn't cheaper", judged(GOOD, FAIR, CHEAP)),
        ("it is the first", judged(GOOD, None)),
        ("the rows are unfair", judged(GOOD, FAIR, unfair="few rows")),
        ("the holdout is worn out", judged(GOOD, FAIR, turn=late(40))),
        ("it has too few groups", judged(GOOD, FAIR, groups=np.arange(N) % 5)),
    ],
)
def test_a_gate_without_a_test_spends_nothing(why, decision):
    assert not decision.figures.keys() & {"level", "p"}, why


def test_a_gate_with_a_test_spends_its_level_whatever_comes_out():
    for decision in (judged(GOOD, FAIR), judged(BAD, FAIR), judged(WORSE_FOR_SOME, FAIR, **some(0.0))):
        assert {"level", "p"} <= decision.figures.keys()


def test_rows_that_belong_together_are_one_piece_of_evidence():
    slightly = off(0.8)
    pairs = np.arange(N) // 50
    assert judged(slightly, FAIR).promote
    assert not judged(slightly, FAIR, groups=pairs).promote


@pytest.mark.parametrize(("turn", "needed"), [(1, 6), (2, 7), (3, 8), (20, 14)])
def test_so_many_groups_are_needed_to_show_that_a_model_is_better(turn, needed):
    enough, few = (
        judged(Y, BAD, rules(group="day"), groups=np.arange(N) % n, turn=late(turn)) for n in (needed, needed - 1)
    )
    assert enough.promote
    assert not few.promote
    assert few.reason.startswith(
        f"the holdout's {needed - 1} groups of 'day' are too few: a model that is better on all"
    )
    assert "hold out more of them" in few.reason


def test_a_single_group_shows_nothing_at_any_level():
    assert "1 groups of" in judged(Y, BAD, groups=np.zeros(N), turn=Turn(2, 3, N, 0.9)).reason


CONFIDENT = np.random.default_rng(7).uniform(0.5, 1.0, 4000)


def by_confidence(right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Targets of two classes and probabilities of the second; `right` is how often each row's likelier one is it."""
    hit = np.random.default_rng(8).uniform(size=len(right)) < right
    return hit.astype(int), np.column_stack([1 - CONFIDENT, CONFIDENT])


def test_the_calibration_error_is_how_far_confidence_is_from_the_truth():
    assert calibration_error(*by_confidence(CONFIDENT)) < 0.04
    assert calibration_error(*by_confidence(CONFIDENT - 0.2)) == pytest.approx(0.2, abs=0.03)
    assert calibration_error(np.array([1, 1]), np.array([[0.0, 1.0], [0.0, 1.0]])) == 0.0


@pytest.mark.parametrize("has_champion", [True, False], ids=["a champion", "none yet"])
def test_a_challenger_that_is_too_sure_of_itself_is_not_promoted(has_champion):
    y, probabilities = by_confidence(CONFIDENT - 0.2)
    champion = Contender(np.full((len(y), 2), 0.5)) if has_champion else None
    bout = Bout(measure("roc_auc", table(2)), y, Contender(probabilities), champion)
    turn = partial(first_turn, 1, len(y), 0.05)

    assert decide(bout, rules(max_calibration_error=0.3), turn).promote
    refused = decide(bout, rules(max_calibration_error=0.1), turn)
    assert not refused.promote
    assert "has a calibration error of 0.2" in refused.reason
    assert "more than the 0.1 allowed" in refused.reason


def test_a_cheaper_model_that_is_as_sure_of_itself_as_the_champion_is_asked_for_its_calibration_too():
    y, probabilities = by_confidence(CONFIDENT - 0.2)
    bout = Bout(measure("roc_auc", table(2)), y, Contender(probabilities, 1.0), Contender(probabilities, 2.0))
    asked = CHEAP.model_copy(update={"max_calibration_error": 0.1})
    turn = partial(first_turn, 1, len(y), 0.05)

    assert decide(bout, CHEAP, turn).promote
    refused = decide(bout, asked, turn)
    assert not refused.promote
    assert "has a calibration error of 0.2" in refused.reason


SURE, UNSURE = (
    np.array([[0.1, 0.9], [0.8, 0.2], [0.7, 0.3]] * 20),
    np.array([[0.4, 0.6], [0.6, 0.4], [0.55, 0.45]] * 20),
)


@pytest.mark.parametrize(
    ("metric", "challenger", "spared"),
    [
        ("accuracy", SURE, True),  # the same hits
        ("f1", SURE, True),
        ("roc_auc", SURE, True),  # the same order
        ("roc_auc", UNSURE[::-1], False),
        ("accuracy", 1 - UNSURE, False),  # no hit is the same
        ("neg_log_loss", SURE, False),
    ],
)
def test_a_challenger_that_the_metric_cant_tell_from_the_champion_spends_nothing(metric, challenger, spared):
    y = np.random.default_rng(0).integers(0, 2, 60)
    bout = Bout(measure(metric, table(2)), y, Contender(challenger), Contender(UNSURE))
    taken: list[Turn] = []
    decision = decide(bout, rules(), lambda: taken.append(first_turn(1, 60, 0.05)) or taken[-1])
    assert (not taken) is spared
    assert (decision.reason == f"the challenger does the same for {metric} as the champion in all 60 rows") is spared


def test_a_cheaper_challenger_that_the_metric_cant_tell_from_the_champion_is_promoted_and_spends_nothing():
    y = np.random.default_rng(0).integers(0, 2, 4)
    bout = Bout(measure("accuracy", table(2)), y, Contender(SURE[:4], 1.0), Contender(UNSURE[:4], 2.0))
    decision = decide(bout, CHEAP, lambda: pytest.fail("it takes no turn"))
    assert decision.promote
    assert decision.reason.endswith("does the same for accuracy as the champion in all 4 rows, and is 50% cheaper")


def test_whether_the_metric_tells_two_models_apart_is_not_asked_of_the_targets():
    """Of three classes, two wrong ones are no hit both, but that is known by the targets alone."""
    codes = np.random.default_rng(0).integers(0, 2, 60)
    one, other = np.eye(3)[codes], np.eye(3)[1 - codes]
    bout = Bout(measure("accuracy", table(3)), np.full(60, 2), Contender(one), Contender(other))
    assert decide(bout, rules(), lambda: first_turn(1, 60, 0.05)).figures["level"] == 0.025


def test_a_slice_that_the_metric_is_not_defined_on_says_nothing():
    y, probabilities = by_confidence(CONFIDENT)
    bout = Bout(
        measure("roc_auc", table(2)), y, Contender(probabilities), Contender(np.full((len(y), 2), 0.5)),
        slices=[Slice("country", "country = X", y == 1, 0.0)],
    )  # fmt: skip
    turn = partial(first_turn, 1, len(y), 0.05)
    assert "slice.country" not in decide(bout, PromotionConfig(), turn).figures
    assert "slice.country" in decide(replace(bout, slices=[Slice("country", "", y < 2, 0.0)]), rules(), turn).figures
