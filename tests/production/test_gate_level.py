"""The gate by simulation: how often luck is promoted, and how often a better model is.

`make test` tries a twentieth of the gates, `make soak` all. With `-rP` the power is printed, as in `docs/gate.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from math import sqrt

import numpy as np
import pytest

from shared.config import PromotionConfig
from shared.domain import Measure, Table
from shared.registry.gate import Bout, Contender, decide
from shared.registry.spending import Turn, first_turn, next_turn
from shared.training.measure import measure

pytestmark = pytest.mark.timeout(3600)

GATES = 2000
ROWS = 114
RULES = PromotionConfig()
ALPHA = RULES.alpha
WORSE = 0.5  # by what share the errors of a challenger are larger that is worse by exactly the margin
GROWTH = 1.02  # of the holdout in a night
BETTER = (0.25, 0.5)  # by what share a challenger's own errors are smaller

World = tuple[np.ndarray, Callable[[float], np.ndarray]]


@pytest.fixture
def gates(request: pytest.FixtureRequest) -> int:
    return min(GATES, GATES // 20 * request.config.getoption("repetitions"))


def probabilities(rng: np.random.Generator, n_rows: int = ROWS, *, heavy: bool = False) -> World:
    """Two classes, and models that know each row's log odds up to an error; heavy: one without variance."""
    odds = 2 * rng.normal(size=n_rows)
    y = (rng.uniform(size=n_rows) < 1 / (1 + np.exp(-odds))).astype(int)

    def model(better: float = 0.0) -> np.ndarray:
        error = 1.5 * rng.standard_t(2, n_rows) if heavy else rng.normal(size=n_rows)
        second = 1 / (1 + np.exp(-odds - (1 - better) * error))
        return np.column_stack([1 - second, second])

    return y, model


def values(rng: np.random.Generator, n_rows: int = ROWS, *, heavy: bool = False) -> World:
    """Values, and models with errors of their own; heavy: both of Student's t, the errors without variance."""
    y = rng.standard_t(3, n_rows) if heavy else rng.normal(size=n_rows)

    def model(better: float = 0.0) -> np.ndarray:
        error = rng.standard_t(2, n_rows) if heavy else rng.normal(size=n_rows)
        return y + 0.7 * (1 - better) * error

    return y, model


def table(n_classes: int) -> Table:
    return Table(
        features=("a",), dtypes=("float64",), target="t", task="classification" if n_classes else "regression",
        classes=tuple(range(n_classes)), shape=(1,),
    )  # fmt: skip


CASES = {
    "log loss": (measure("neg_log_loss", table(2)), probabilities),
    "log loss, heavy tails": (measure("neg_log_loss", table(2)), partial(probabilities, heavy=True)),
    "AUC": (measure("roc_auc", table(2)), probabilities),
    "AUC, heavy tails": (measure("roc_auc", table(2)), partial(probabilities, heavy=True)),
    "R²": (measure("r2", table(0)), values),
    "R², heavy tails": (measure("r2", table(0)), partial(values, heavy=True)),
}


def promotions(
    measured: Measure, world: Callable[..., World], better: float, n: int, rules: PromotionConfig = RULES
) -> float:
    """Share of first gates, each on rows of its own, that promote a challenger which is better by so much."""
    rng, promoted = np.random.default_rng(0), 0
    for _ in range(n):
        y, model = world(rng)
        promoted += meet(measured, y, model(better), model(), first_turn(1, ROWS, ALPHA), rules)[0]
    return promoted / n


def meet(
    measured: Measure,
    y: np.ndarray,
    challenger: np.ndarray,
    champion: np.ndarray,
    turn: Turn,
    rules: PromotionConfig = RULES,
) -> tuple[bool, float]:
    """Whether the challenger, which is half as large, is promoted, and the p-value."""
    bout = Bout(measured, y, Contender(challenger, size_mb=1.0), Contender(champion, size_mb=2.0))
    decision = decide(bout, rules, lambda: turn)
    return decision.promote, decision.figures["p"]


def loss(measured: Measure, world: Callable[..., World], worse: float) -> float:
    """By how much a model scores less whose own errors are larger by this share, on many rows."""
    y, model = world(np.random.default_rng(0), n_rows=400_000)
    good, bad = (measured.over(y, measured.rows(y, model(better))) for better in (0.0, -worse))
    return float(good - bad)


def most(share: float, n: int, errors: int = 2) -> float:
    """With so many Monte Carlo errors."""
    return share + errors * sqrt(share * (1 - share) / n)


@pytest.mark.parametrize("case", CASES)
def test_an_equal_model_is_promoted_no_more_often_than_the_level_says(case: str, gates: int) -> None:
    false = promotions(*CASES[case], better=0.0, n=gates)
    power = [promotions(*CASES[case], better=better, n=gates // 4) for better in BETTER]

    print(f"\n{case}: false promotions {false:.3f} of {gates}; power {power[0]:.2f}, {power[1]:.2f}")
    assert false <= min(most(ALPHA, gates), most(ALPHA / 2, gates, errors=3))
    assert false < power[1]


@pytest.mark.parametrize("case", ["log loss", "AUC", "R²"])
def test_a_cheaper_model_that_is_worse_by_the_margin_is_promoted_no_more_often_than_the_level_says(
    case: str, gates: int
) -> None:
    margin = loss(*CASES[case], WORSE)
    rules = PromotionConfig(mode="non_inferiority", margin=margin)
    false = promotions(*CASES[case], better=-WORSE, n=gates, rules=rules)
    equal = promotions(*CASES[case], better=0.0, n=gates // 4, rules=rules)

    print(f"\n{case}, margin {margin:.3g}: false promotions {false:.3f} of {gates}; of an equal model {equal:.2f}")
    assert false <= min(most(ALPHA, gates), most(ALPHA / 2, gates, errors=3))
    assert false < equal


def test_ten_gates_on_one_holdout_promote_an_equal_model_no_more_often_than_alpha(gates: int) -> None:
    measured, n_series, rng = CASES["log loss"][0], gates // 10, np.random.default_rng(0)
    fooled = 0
    for _ in range(n_series):
        y, model = probabilities(rng)
        champion = model()
        fooled += any(nights(measured, ((y, model(), champion) for _ in range(10))))

    print(f"\nten gates: {fooled} of {n_series} champions gave way to an equal model")
    assert fooled / n_series <= most(ALPHA, n_series)


def test_nightly_gates_on_a_growing_holdout_neither_promote_by_luck_nor_freeze_the_champion(gates: int) -> None:
    """Two months. From the 20th night on the challenger is better."""
    measured, n_runs, rng = CASES["log loss"][0], max(1, gates // 100), np.random.default_rng(0)
    n_nights, since = 60, 20
    lucky, waits = 0, []
    for _ in range(n_runs):
        y, model = probabilities(rng, int(ROWS * GROWTH**n_nights) + 1)
        champion, better = model(), model(0.75)
        rows = [slice(0, int(ROWS * GROWTH**night)) for night in range(n_nights)]
        told = [(y[r], (better if night >= since else model())[r], champion[r]) for night, r in enumerate(rows)]
        promoted = [night for night, promotes in enumerate(nights(measured, told)) if promotes]
        lucky += sum(night < since for night in promoted)
        waits.append(min((night - since for night in promoted if night >= since), default=n_nights))

    print(f"\nnightly: {lucky} promotions by luck in {n_runs} runs; a better model waited {sorted(waits)} nights")
    assert lucky / n_runs <= 3 * most(ALPHA, n_runs)  # series that the first 20 nights begin
    assert np.median(waits) < n_nights - since


def nights(measured: Measure, told: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Iterator[bool]:
    """Whether each of a sequence of gates promotes. told: targets, the challenger's predictions and the champion's."""
    rules, turn, p = PromotionConfig(), Turn(0, 0, 0, 0.0), 1.0
    for number, (y, challenger, champion) in enumerate(told):
        if len(y) >= (1 + rules.renew) * turn.rows:
            turn = first_turn(number, len(y), rules.alpha)
        else:
            turn = next_turn({**turn.figures, "p": p}, rules.alpha)
        promoted, p = meet(measured, y, challenger, champion, turn)
        yield promoted
