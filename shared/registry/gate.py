"""Whether a challenger becomes the champion: pure, of targets, both models' predictions, a metric and rules.

The rules in words, with what they cost and miss, are in `docs/gate.md`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import isfinite

import numpy as np

from shared.config import PromotionConfig
from shared.domain import Measure, PromotionDecision
from shared.registry.constraints import Slice, calibration_error, losses, too_much
from shared.registry.significance import MOST_SWAPS, Pair, smallest_p
from shared.registry.spending import Turn

Figures = Mapping[str, float | None]


@dataclass(frozen=True)
class Contender:
    """A model at the gate; what isn't known of its costs is None.

    predictions: for the rows, values `(n_rows,)` or probabilities `(n_rows, n_classes)` in code order.
    latency_ms: of a single-row prediction, measured beside the other's; only `non_inferiority` asks for it.
    """

    predictions: np.ndarray
    latency_ms: float | None = None
    size_mb: float | None = None


@dataclass(frozen=True)
class Bout:
    """A challenger, the champion, and the rows that they meet on.

    y: `(n_rows,)`, class codes or values; groups: `(n_rows,)`, rows that belong together, if some do.
    champion: None where `absent` says why there is none to be compared with.
    unfair: why the rows are no fair comparison, such as that the champion was trained on them. Then it keeps its place,
    until a person decides.
    latency_ms: of the challenger, as the search measured it, and what it may be.
    metric: what the reason calls the metric; by default its name.
    """

    measure: Measure
    y: np.ndarray
    challenger: Contender
    champion: Contender | None = None
    absent: str = "there is no champion yet"
    unfair: str = ""
    groups: np.ndarray | None = None
    slices: Sequence[Slice] = ()
    latency_ms: float | None = None
    latency_budget_ms: float | None = None
    metric: str = ""

    @property
    def n_groups(self) -> int:
        """Of rows that belong together; by default each row is one."""
        return len(self.y) if self.groups is None else len(np.unique(self.groups))

    @property
    def label(self) -> str:
        return self.metric or self.measure.name

    def score(self, contender: Contender) -> float:
        return self.measure.score(self.y, contender.predictions)


def decide(bout: Bout, rules: PromotionConfig, take_turn: Callable[[], Turn]) -> PromotionDecision:
    """Whether to promote the challenger, why, and every figure behind it.

    take_turn: which gate on this holdout it is, and its level. Called once, where the targets must say who is better;
    not where a challenger is refused for its costs, does as the champion does, or has no champion to meet, or no
    fair one: that spends nothing of α, and the turn is not among the figures.
    """
    figures = _of_challenger(bout)
    if (refusal := next(_unfit(bout, rules, figures), None)) is not None:
        return _decision(False, refusal, figures)
    if bout.champion is None or not isfinite(reference := bout.score(bout.champion)):
        return _unless(_miscalibrated(rules, figures), _unopposed(bout, figures), figures)
    if bout.unfair:
        return _decision(False, _keeps_its_place(bout.unfair), figures)
    figures = {
        **figures,
        "champion": reference,
        "gain": (figures["challenger"] or 0.0) - reference,
        "min_gain": rules.min_gain,
        "saving": _saving(bout.challenger, bout.champion),
    }
    undisputed = _without_a_test(bout, bout.champion, rules, figures)
    return undisputed or _in_turn(bout, bout.champion, rules, figures, take_turn())


def _without_a_test(
    bout: Bout, champion: Contender, rules: PromotionConfig, figures: Figures
) -> PromotionDecision | None:
    saving = figures["saving"] or 0.0
    cheaper = rules.mode == "non_inferiority"
    if cheaper and not saving >= rules.cheaper:
        return _decision(False, _not_cheaper(saving, rules), figures)
    if (same := _sameness(bout, champion)) is not None:
        if not cheaper:
            return _decision(False, same, figures)
        return _unless(_miscalibrated(rules, figures), f"{same}, and is {saving:.0%} cheaper", figures)
    return None


def _sameness(bout: Bout, champion: Contender) -> str | None:
    """How the challenger is neither better nor worse, whatever the targets; None where it may be."""
    if np.array_equal(bout.challenger.predictions, champion.predictions):
        return f"the challenger predicts the same as the champion for all {len(bout.y)} rows"
    if _is_the_same(bout, champion):
        return f"the challenger does the same for {bout.label} as the champion in all {len(bout.y)} rows"
    return None


def _is_the_same(bout: Bout, champion: Contender) -> bool:
    """Whether the metric says the same of both in each row, whatever its class: other probabilities, the same hits.

    Such a challenger can't be better. The targets aren't asked: a turn that is spared by what they say was a look.
    """
    one, other, rows = bout.challenger.predictions, champion.predictions, bout.measure.rows
    if one.ndim == 1:
        return False  # another value is another error, but for targets in the middle of both
    same_class = (np.full(len(bout.y), code) for code in range(one.shape[1]))
    return all(np.array_equal(rows(y, one), rows(y, other)) for y in same_class)


def is_out_of_reach(turn: Turn, n_groups: int) -> bool:
    """Whether no model could be better enough, on so few groups of rows or after so many gates: nothing is spent."""
    return turn.level < smallest_p(n_groups)


def _in_turn(
    bout: Bout, champion: Contender, rules: PromotionConfig, figures: Figures, turn: Turn
) -> PromotionDecision:
    if is_out_of_reach(turn, bout.n_groups):
        worn_out = is_out_of_reach(turn, MOST_SWAPS)
        return _decision(False, _worn_out(turn, rules) if worn_out else _too_few(bout, rules, turn), figures)
    return _tested(bout, champion, rules, turn, figures)


def _tested(bout: Bout, champion: Contender, rules: PromotionConfig, turn: Turn, figures: Figures) -> PromotionDecision:
    pair = Pair(bout.measure, bout.y, bout.challenger.predictions, champion.predictions, bout.groups)
    low, high = pair.interval()
    lost = list(losses(bout.measure, bout.y, bout.challenger.predictions, champion.predictions, bout.slices))
    figures = {
        **figures,
        **turn.figures,
        "p": pair.p_value(turn.level, rules.margin),
        "margin": rules.margin,
        "gain_low": low,
        "gain_high": high,
        **_worst(lost),
    }
    refusals = chain(_not_better(bout, rules, figures), _miscalibrated(rules, figures), _sliced(lost, bout.label))
    return _unless(refusals, _better(bout, rules, figures), figures)


def _of_challenger(bout: Bout) -> Figures:
    probabilities = bout.challenger.predictions
    return {
        "challenger": bout.score(bout.challenger),
        "rows": len(bout.y),
        "latency_ms": bout.latency_ms,
        "latency_budget_ms": bout.latency_budget_ms,
        "size_mb": bout.challenger.size_mb,
        "calibration_error": calibration_error(bout.y, probabilities) if probabilities.ndim == 2 else None,
    }


def _unfit(bout: Bout, rules: PromotionConfig, figures: Figures) -> Iterator[str]:
    """Why a challenger isn't to be served, whoever the champion is."""
    score = figures["challenger"]
    if score is None or not isfinite(score):
        yield f"the challenger's {bout.label} is {score}, which is no score"
    yield from too_much("takes", bout.latency_ms, bout.latency_budget_ms, " ms a row")
    yield from too_much("is of", bout.challenger.size_mb, rules.max_size_mb, " MB")


def _miscalibrated(rules: PromotionConfig, figures: Figures) -> Iterator[str]:
    yield from too_much("has a calibration error of", figures["calibration_error"], rules.max_calibration_error, "")


def _sliced(lost: Sequence[tuple[Slice, float]], metric: str) -> Iterator[str]:
    for part, loss in lost:
        if loss > part.tolerance:
            yield (
                f"the challenger is worse by {loss:.3g} on the {int(part.rows.sum())} rows of the slice {part.label}, "
                f"more than the {part.tolerance:g} of {metric} that `promotion.slices` allows there"
            )


def _not_better(bout: Bout, rules: PromotionConfig, figures: Figures) -> Iterator[str]:
    gain, p, level = (figures[key] or 0.0 for key in ("gain", "p", "level"))
    scores, asked = _scores(bout, figures), f"p = {p:.2g}, where {_ordinal(figures)} asks for {level:.2g} at most"
    if rules.mode == "non_inferiority":
        if not p <= level:
            yield f"that the challenger is worse by less than {rules.margin:g} isn't sure ({asked}): {scores}"
    elif gain <= 0:
        yield f"the challenger is not better: {scores}"
    elif not p <= level:
        yield f"the challenger is better by {gain:.3g}, which may be luck ({asked}): {scores}"
    elif gain < rules.min_gain:
        yield f"the challenger is better by {gain:.3g}, less than the {rules.min_gain:g} asked for: {scores}"


def _better(bout: Bout, rules: PromotionConfig, figures: Figures) -> str:
    gain, p, saving = (figures[key] or 0.0 for key in ("gain", "p", "saving"))
    if rules.mode == "non_inferiority":
        how = f"{saving:.0%} cheaper and worse by less than {rules.margin:g}"
    else:
        how = f"better by {gain:.3g}"
    return f"the challenger is {how} (p = {p:.2g} in {_ordinal(figures)}): {_scores(bout, figures)}"


def _scores(bout: Bout, figures: Figures) -> str:
    return f"{bout.label} {figures['challenger']:.6g} against the champion's {figures['champion']:.6g}"


def _ordinal(figures: Figures) -> str:
    return f"gate {figures['turn']:.0f} on this holdout"


def _unopposed(bout: Bout, figures: Figures) -> str:
    why = bout.absent if bout.champion is None else "the champion has no score on these rows"
    return f"{why}, and the challenger's {bout.label} is {figures['challenger']:.6g}"


def _keeps_its_place(unfair: str) -> str:
    return (
        f"the champion keeps its place, since it can't be compared fairly: {unfair}; to serve the challenger all "
        "the same, promote it by hand (`evertune models promote`), and later ones are compared with it"
    )


def _not_cheaper(saving: float, rules: PromotionConfig) -> str:
    by = f"saves {saving:.0%} of latency or size at best" if saving > 0 else "saves neither latency nor size"
    return f"the challenger {by}, where `mode = {rules.mode!r}` asks for {rules.cheaper:.0%} (`promotion.cheaper`)"


def _worn_out(turn: Turn, rules: PromotionConfig) -> str:
    wanted = int(np.ceil(turn.rows * rules.renew))
    return (
        f"the holdout is worn out by {turn.number - 1} gates, and one more would have to ask for p = {turn.level:.1g}; "
        f"it is renewed by {wanted} rows that weren't there at the first (`promotion.renew`, {rules.renew:.0%})"
    )


def _too_few(bout: Bout, rules: PromotionConfig, turn: Turn) -> str:
    of, p = "rows" if bout.groups is None else f"groups of {rules.group!r}", smallest_p(bout.n_groups)
    return (
        f"the holdout's {bout.n_groups} {of} are too few: a model that is better on all of them has p = {p:.2g}, where "
        f"{_ordinal(turn.figures)} asks for {turn.level:.2g} at most; hold out more of them "
        "(`data.holdout`), or raise `promotion.alpha`"
    )


def _saving(challenger: Contender, champion: Contender) -> float:
    """The larger share saved, of latency and size; 0 where neither is known."""
    costs = [(challenger.latency_ms, champion.latency_ms), (challenger.size_mb, champion.size_mb)]
    return max((1 - new / old for new, old in costs if new is not None and old), default=0.0)


def _worst(lost: Sequence[tuple[Slice, float]]) -> dict[str, float]:
    """The loss on the worst slice of each column, by a name that MLflow takes."""
    worst: dict[str, float] = {}
    for part, loss in lost:
        key = "slice." + re.sub(r"[^\w\-. :/]", "_", part.column)
        worst[key] = max(loss, worst.get(key, loss))
    return worst


def _unless(refusals: Iterator[str], reason: str, figures: Figures) -> PromotionDecision:
    """To promote for a reason, if nothing speaks against it."""
    refusal = next(refusals, None)
    return _decision(refusal is None, refusal or reason, figures)


def _decision(promote: bool, reason: str, figures: Figures) -> PromotionDecision:
    kept = {key: float(value) for key, value in figures.items() if value is not None and isfinite(value)}
    return PromotionDecision(promote=promote, reason=reason, figures=kept)
