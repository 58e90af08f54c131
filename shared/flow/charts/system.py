"""Charts of two goals at once: the Pareto front with its pick, what that is made of, how it met the champion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shared.flow.charts.theme import (
    BLUE,
    GRAY,
    INK,
    ORANGE,
    RED,
    SHORT,
    Spec,
    by_kind,
    decades,
    figure,
    finished,
    rows,
    thin,
    tooltips,
)
from shared.flow.charts.trials import Goal, clamp, compact, front, view

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from shared.domain import TrialSummary

Row = dict[str, Any]
FRONT, BEHIND, OVER = "on the front", "behind it", "over budget"
# kind → color, shape
LOOKS = {FRONT: (BLUE, "circle"), BEHIND: (GRAY, "circle"), OVER: (ORANGE, "diamond")}
STAR = "M0,-1 L0.25,-0.32 L0.95,-0.31 L0.4,0.12 L0.59,0.81 L0,0.4 L-0.59,0.81 L-0.4,0.12 L-0.95,-0.31 L-0.25,-0.32 Z"


def pareto(
    trials: Iterable[FrozenTrial], goal: Goal, cost: Goal, *, budget: float | None = None, pick: int | None = None
) -> Spec | None:
    """The complete trials in the plane of two goals, their front as a staircase, the pick labeled, the budget a line.

    goal is drawn upwards, cost to the right. budget: the largest cost that is feasible; the front is that of the
    feasible trials, where there are any. pick: number of the picked trial. None without a complete trial.
    """
    import altair as alt

    points = pareto_rows(trials, goal, cost, budget)
    if not points:
        return None
    domain = list(view((point["value"] for point in points), goal))
    y_axis, scale = alt.Axis(labelExpr=SHORT), alt.Scale(domain=domain, nice=False)
    y = alt.Y("shown:Q", title=goal.axis, scale=scale, axis=y_axis)
    place = {"x": _cost_axis(points, cost, budget), "y": y}
    step = "step-after" if cost.direction == "minimize" else "step-before"
    line = rows("front").mark_line(color=BLUE, interpolate=step, strokeWidth=1.6, opacity=0.6).encode(**place)
    dots = (
        rows("trials")
        .mark_point(filled=True, size=60, opacity=0.85)
        .encode(**place, **by_kind("kind", LOOKS, points), tooltip=tooltips("trial:Q", "value:Q", "cost:Q", "params:N"))
    )
    picked = [point for point in points if point["trial"] == pick]
    layers = [line, dots, *_limit(budget, cost, points), *_marked(picked, points, goal, cost, place)]
    return finished(
        alt.layer(*layers).properties(height=340),
        f"{goal.metric} against {cost.metric}: the front{', and the pick' if picked else ''}",
        _notes(points, budget, cost),
        trials=thin(points),
        front=thin(sorted((point for point in points if point["kind"] == FRONT), key=lambda point: point["cost"])),
        pick=picked,
        budget=[{}],
    )


def pareto_rows(trials: Iterable[FrozenTrial], goal: Goal, cost: Goal, budget: float | None) -> list[Row]:
    """A row per complete trial: both values, where it is drawn, and if on the front, behind it, or over budget."""
    complete = [t for t in trials if t.state.name == "COMPLETE" and None not in (goal.value(t), cost.value(t))]
    within = [t for t in complete if budget is None or (cost.value(t) or 0.0) <= budget]
    best = {t.number for t in front(within or complete, (goal, cost))}
    feasible = {t.number for t in within}
    domain = view((goal.value(t) or 0.0 for t in complete), goal)
    return [
        {
            "trial": t.number,
            "value": goal.value(t),
            "shown": clamp(goal.value(t) or 0.0, domain),
            "cost": cost.value(t),
            "kind": FRONT if t.number in best else BEHIND if t.number in feasible else OVER,
            "params": compact(t.params),
        }
        for t in complete
    ]


def holdout(
    figures: Mapping[str, float], metric: str, names: tuple[str, str] = ("challenger", "champion")
) -> Spec | None:
    """The two scores on the holdout, greater is better. None unless `figures` has `challenger` and `champion`."""
    import altair as alt

    if "challenger" not in figures or "champion" not in figures:
        return None
    challenger, champion = figures["challenger"], figures["champion"]
    gain = challenger - champion
    span = abs(gain) or abs(champion) * 0.05 or 1.0
    domain = [min(challenger, champion) - 0.5 * span, max(challenger, champion) + span]
    x_axis, scale = alt.Axis(labelExpr=SHORT, tickCount=6), alt.Scale(domain=domain, nice=False)
    base = rows("scores").encode(
        x=alt.X("score:Q", title=f"{metric} on the holdout (greater is better)", scale=scale, axis=x_axis),
        y=alt.Y("model:N", sort=None, title=None, axis=alt.Axis(grid=True, domain=False, ticks=False)),
    )
    color = alt.Color("model:N", scale=alt.Scale(domain=list(names), range=[BLUE, GRAY]), legend=None)
    text = base.mark_text(align="left", dx=12, fontSize=12, fontWeight=600, color=INK).encode(text=alt.Text("label:N"))
    how = f"{'better' if gain > 0 else 'worse'} by {figure(abs(gain))}" if gain else "as good as the champion"
    scores = [{"model": n, "score": s, "label": figure(s)} for n, s in zip(names, (challenger, champion), strict=True)]
    return finished(
        alt.layer(base.mark_point(filled=True, size=150, opacity=1).encode(color=color), text).properties(height=90),
        f"On the holdout the challenger is {how}",
        ["Both scored once, on the same rows, which no trial has seen.", *_evidence(figures)],
        scores=scores,
    )


def _evidence(figures: Mapping[str, float]) -> Iterable[str]:
    """How sure the gain is, where the gate has tested it."""
    if "gain_low" in figures:
        low, high = figure(figures["gain_low"]), figure(figures["gain_high"])
        yield f"On rows drawn anew the gain is between {low} and {high} in 95 % of draws."
    if "p" in figures:
        p, level, turn = figures["p"], figures["level"], figures["turn"]
        yield f"p = {p:.2g}, where gate {turn:.0f} on this holdout asks for {level:.2g} at most."


def blend_table(pick: TrialSummary) -> list[list[str]]:
    """What the pick is made of, a row of strings per member: name, weight, where its parameters are from, parameters.

    Read from the trial's user attribute `system`; empty where there is none.
    """
    members: Mapping[str, Mapping[str, Any]] = pick.user_attrs.get("system", {}).get("members", {})
    origins = {"around": "searched around the upstream best"}
    return [
        [name, f"{m['weight']:.0%}", origins.get(m["origin"], f"upstream {m['origin']}"), compact(m["params"])]
        for name, m in members.items()
    ]


def _cost_axis(points: Sequence[Row], cost: Goal, budget: float | None) -> Any:
    """From zero, or logarithmic where costs differ twentyfold."""
    import altair as alt

    costs = [point["cost"] for point in points]
    low, high = min(costs), max(costs)
    log = 0 < 20 * low < high
    if budget is not None and _has_line(budget, points):
        high = max(high, budget)
    domain = [low / 1.2, high * 1.2] if log else [min(0.0, low), high * 1.08 or 1.0]
    ticks = {"values": decades(*domain)} if log else {"tickCount": 8}
    scale = alt.Scale(type="log" if log else "linear", domain=domain, nice=False)
    return alt.X("cost:Q", title=cost.axis, scale=scale, axis=alt.Axis(labelExpr=SHORT, labelOverlap=True, **ticks))


def _has_line(budget: float, points: Sequence[Row]) -> bool:
    """A budget far beyond every trial isn't drawn: it would squash them."""
    return any(budget <= 2 * point["cost"] for point in points)


def _limit(budget: float | None, cost: Goal, points: Sequence[Row]) -> list[Any]:
    import altair as alt

    if budget is None or not _has_line(budget, points):
        return []
    label = alt.value(f"budget {budget:g} {cost.unit}".rstrip())
    base = rows("budget").encode(x=alt.datum(budget))
    text = base.mark_text(align="right", baseline="bottom", dx=-6, color=ORANGE, fontSize=12)
    rule = base.mark_rule(color=ORANGE, strokeDash=[6, 4], strokeWidth=1.5)
    return [rule, text.encode(y=alt.value(334), text=label)]


def _marked(
    picked: Sequence[Row], points: Sequence[Row], goal: Goal, cost: Goal, place: Mapping[str, Any]
) -> list[Any]:
    """A star on the pick, and its label: leftwards where there is room, since the budget's line is to the right."""
    import altair as alt

    if not picked:
        return []
    point = picked[0]
    label = f"pick: trial {point['trial']}, {figure(point['value'])} at {point['cost']:.3g} {cost.unit}".rstrip()
    left = point["cost"] > 0.3 * max(p["cost"] for p in points)
    base = rows("pick").encode(**place)
    text = base.mark_text(
        align="right" if left else "left", dx=6 if left else -6, dy=-16 if goal.direction == "maximize" else 18,
        fontSize=12, fontWeight=600, color=RED,
    )  # fmt: skip
    star = base.mark_point(shape=STAR, size=330, filled=True, opacity=1, color=RED, stroke="white", strokeWidth=0.5)
    return [star, text.encode(text=alt.value(label))]


def _notes(points: Sequence[Row], budget: float | None, cost: Goal) -> list[str]:
    over = sum(budget is not None and point["cost"] > budget for point in points)
    beyond = sum(point["value"] != point["shown"] for point in points)
    asked = "" if budget is None else f"the budget of {budget:g} {cost.unit}".rstrip() + "."
    kept = f"{over} of {len(points)} trials are over {asked}" if over else f"All {len(points)} trials keep {asked}"
    edge = f"{beyond} far worse than the better half are drawn at the edge." if beyond else ""
    return [" ".join(note for note in (kept if asked else "", edge) if note)]
