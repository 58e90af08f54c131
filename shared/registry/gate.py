"""Whether a challenger becomes the champion: a decision on plain figures."""

from __future__ import annotations

from math import isfinite

from shared.domain import PromotionDecision


def decide(
    challenger: float,
    champion: float | None,
    *,
    min_gain: float = 0.0,
    metric: str = "score",
    latency_ms: float | None = None,
    latency_budget_ms: float | None = None,
    unfair: str = "",
) -> PromotionDecision:
    """Whether to promote a challenger. Scores are on the same rows, greater is better.

    challenger, champion: their scores; `champion=None`: nothing is live yet.
    min_gain: by how much the challenger must be better. A tie or a loss is never promoted, whatever it is.
    latency_ms, latency_budget_ms: what a single-row prediction of the challenger takes, and may take. The budget binds
    the first champion too: what is too slow to be served is better not served.
    unfair: why the champion's score is not to be compared with, such as rows that it was trained on. Then it keeps its
    place, until a person decides.
    """
    promote, reason = _judge(challenger, champion, min_gain, metric, latency_ms, latency_budget_ms, unfair)
    compared = None if unfair else champion
    figures = {
        "challenger": challenger,
        "champion": compared,
        "gain": None if compared is None else challenger - compared,
        "min_gain": min_gain,
        "latency_ms": latency_ms,
        "latency_budget_ms": latency_budget_ms,
    }
    return PromotionDecision(
        promote=promote,
        reason=reason,
        figures={key: float(value) for key, value in figures.items() if value is not None and isfinite(value)},
    )


def _judge(
    challenger: float,
    champion: float | None,
    min_gain: float,
    metric: str,
    latency_ms: float | None,
    latency_budget_ms: float | None,
    unfair: str,
) -> tuple[bool, str]:
    if not isfinite(challenger):
        return False, f"the challenger's {metric} is {challenger}, which is no score"
    if latency_ms is not None and latency_budget_ms is not None and not latency_ms <= latency_budget_ms:
        return False, f"the challenger takes {latency_ms:.3g} ms a row, more than the {latency_budget_ms:g} ms allowed"
    if champion is None:
        return True, f"there is no champion yet, and the challenger's {metric} is {challenger:.6g}"
    if champion != champion:
        return True, f"the champion has no score on these rows, and the challenger's {metric} is {challenger:.6g}"
    if unfair:
        return False, (
            f"the champion keeps its place, since it can't be compared fairly: {unfair}; to serve the challenger all "
            "the same, move the alias `champion` to it (`evertune dashboard`), and later ones are compared with it"
        )
    gain = challenger - champion
    scores = f"{metric} {challenger:.6g} against the champion's {champion:.6g}"
    if gain <= 0:
        return False, f"the challenger is not better: {scores}"
    if not gain >= min_gain:
        return False, f"the challenger is better by {gain:.3g}, less than the {min_gain:g} asked for: {scores}"
    return True, f"the challenger is better by {gain:.3g}: {scores}"
