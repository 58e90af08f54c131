"""Charts of a study: how the search went, what mattered, how the trials learned, how long they took."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from shared.flow.charts.theme import (
    BLUE,
    GRAY,
    GREEN,
    INK,
    MAX_POINTS,
    ORANGE,
    RED,
    SHORT,
    Spec,
    by_kind,
    decades,
    figure,
    finished,
    rows,
    seconds,
    thin,
    tooltips,
)
from shared.flow.charts.transfer import is_warm
from shared.flow.charts.trials import Goal, clamp, compact, ended, ranked, view

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

Row = dict[str, Any]
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
# state → color, shape
LOOKS = {"complete": (BLUE, "circle"), "pruned": (ORANGE, "diamond"), "failed": (RED, "cross")}
HISTORY_LOOKS = {"warm start": (GREEN, "square"), **LOOKS}
MAX_BARS = 12
LEAST_SHARE = 0.01
BEST = "best trial"


def history(trials: Iterable[FrozenTrial], goal: Goal) -> Spec | None:
    """Value by trial, the best so far as a line, states by color and shape; the best trial is labeled.

    What has no value, or one beyond the axis (`trials.view`), is drawn at its worse edge. None without trials.
    """
    import altair as alt

    over = ended(trials)
    if not over:
        return None
    points = history_rows(over, goal)
    steps = best_so_far(points)
    domain = _domain(points, goal)
    y = alt.Y(
        "shown:Q", title=goal.axis, scale=alt.Scale(domain=list(domain), nice=False), axis=alt.Axis(labelExpr=SHORT)
    )
    place = {"x": _trial_axis(), "y": y}
    line = rows("best_so_far").mark_line(color=INK, interpolate="step-after", strokeWidth=1.8).encode(**place)
    dots = (
        rows("trials")
        .mark_point(filled=True, size=55)
        .encode(
            **place,
            **by_kind("state", HISTORY_LOOKS, points),
            opacity=alt.condition("datum.beyond", alt.value(0.35), alt.value(0.85)),
            tooltip=tooltips("trial:Q", "state:N", "value:Q", "params:N"),
        )
    )
    layers = [line, dots, *_best_label(steps, points, goal, place)] if steps else [dots]
    return finished(
        alt.layer(*layers).properties(height=300),
        f"{goal.metric} by trial",
        _history_notes(points, steps),
        trials=thin(points),
        best_so_far=thin(steps),
        best=steps[-2:-1],
    )


def history_rows(trials: Iterable[FrozenTrial], goal: Goal) -> list[Row]:
    """One row per ended trial: its value or None, where it is drawn, if beyond the axis, the best so far."""
    over = ended(trials)
    values = [goal.value(t) for t in over]
    domain = view((v for v in values if v is not None), goal)
    return [
        {
            "trial": t.number,
            "state": "warm start" if is_warm(t) and t.state.name == "COMPLETE" else STATES[t.state.name],
            "value": v,
            "shown": goal.worse(domain) if v is None else clamp(v, domain),
            "beyond": v is not None and clamp(v, domain) != v,
            "best": best,
            "params": compact(t.params),
        }
        for t, v, best in zip(over, values, _running_best(over, goal), strict=True)
    ]


def best_so_far(points: Sequence[Row]) -> list[Row]:
    """The corners of the best-so-far line, from the first complete trial to the last trial."""
    corners: list[Row] = []
    for point in points:
        if point["best"] is not None and (not corners or point["best"] != corners[-1]["value"]):
            corners.append({"trial": point["trial"], "value": point["best"], "shown": point["shown"]})
    return [*corners, {**corners[-1], "trial": points[-1]["trial"]}] if corners else []


def importance(shares: Mapping[str, float]) -> Spec | None:
    """Bars of `trials.importances`, the largest first. None where no parameter explains anything."""
    import altair as alt

    large = {name: share for name, share in list(shares.items())[:MAX_BARS] if share >= LEAST_SHARE}
    if not large:
        return None
    bars = [{"parameter": name, "share": share, "label": f"{share:.0%}"} for name, share in large.items()]
    scale = alt.Scale(domain=[0, 1.12 * max(large.values())], nice=False)
    base = rows("parameters").encode(
        x=alt.X("share:Q", title="Share of the ranking explained", scale=scale, axis=alt.Axis(format="%", tickCount=6)),
        y=alt.Y("parameter:N", sort=None, title=None, axis=alt.Axis(domain=False, ticks=False)),
    )
    text = base.mark_text(align="left", dx=5, color="#444444").encode(text=alt.Text("label:N"))
    chart = alt.layer(base.mark_bar(color=BLUE, height={"band": 0.65}), text).properties(height={"step": 26})
    less = len(shares) - len(large)
    notes = [
        "How much of the differences between the ranks of the finished trials each parameter explains on its own, "
        "less chance.",
        "A conditional parameter is judged among the trials that have it."
        + (f" {less} more explain less." if less else ""),
    ]
    return finished(chart, f"What matters most: {bars[0]['parameter']}", notes, parameters=bars)


def curves(trials: Iterable[FrozenTrial], goal: Goal, step: str = "Step") -> Spec | None:
    """Intermediate values of each trial by step, the best trial on top. None where no trial reported twice."""
    import altair as alt

    points = curve_rows(trials, goal)
    if not points:
        return None
    domain = _domain(points, goal)
    present = {point["kind"] for point in points}
    colors = {k: c for k, c in ((BEST, INK), *((k, look[0]) for k, look in LOOKS.items())) if k in present}
    is_best = f"datum.kind == '{BEST}'"
    x_axis = alt.Axis(format="d", tickMinStep=1, grid=False)
    chart = (
        rows("curves")
        .mark_line(clip=True, point={"size": 14, "filled": True})
        .encode(
            x=alt.X("step:Q", title=step, axis=x_axis, scale=alt.Scale(nice=False, zero=False)),
            y=alt.Y(
                "value:Q",
                title=goal.axis,
                scale=alt.Scale(domain=list(domain), nice=False),
                axis=alt.Axis(labelExpr=SHORT),
            ),
            detail=alt.Detail("trial:N"),
            color=alt.Color("kind:N", scale=alt.Scale(domain=list(colors), range=list(colors.values()))),
            strokeWidth=alt.condition(is_best, alt.value(2.6), alt.value(1.1)),
            opacity=alt.condition(is_best, alt.value(1), alt.value(0.5)),
            tooltip=tooltips("trial:Q", "step:Q", "value:Q"),
        )
        .properties(height=280)
    )
    cut = any(clamp(point["value"], domain) != point["value"] for point in points)
    notes = ["What is far worse than the better half is cut off."] if cut else []
    return finished(chart, f"{goal.metric} by {step.lower()}, as the trials reported it", notes, curves=points)


def curve_rows(trials: Iterable[FrozenTrial], goal: Goal) -> list[Row]:
    """Finite intermediate values by trial and step; the best trial last, so that it is drawn on top."""
    over = ended(trials)
    best = next(iter(ranked(over, goal)), None)
    reported = [(t, _finite(t.intermediate_values)) for t in over]
    drawn = [(t, points) for t, points in reported if points]
    if not any(len(points) > 1 for _, points in drawn):
        return []
    some = [pair for pair in thin(drawn, MAX_POINTS // 10) if pair[0] is not best]
    some += [pair for pair in drawn if pair[0] is best]
    limit = max(2, MAX_POINTS // len(some))
    return [
        {"trial": t.number, "step": s, "value": v, "kind": BEST if t is best else STATES[t.state.name]}
        for t, points in some
        for s, v in thin(points, limit)
    ]


def durations(trials: Iterable[FrozenTrial]) -> Spec | None:
    """Time of each trial by state; a logarithmic axis where times differ thirtyfold. None without times."""
    import altair as alt

    points: list[Row] = [
        {"trial": t.number, "state": STATES[t.state.name], "seconds": max(took, 1e-3), "params": compact(t.params)}
        for t in ended(trials)
        if (took := duration_s(t)) is not None
    ]
    if not points:
        return None
    times = [point["seconds"] for point in points]
    log = max(times) > 30 * min(times)
    y = alt.Y("seconds:Q", title="Seconds", scale=alt.Scale(zero=True), axis=alt.Axis(labelExpr=SHORT, tickCount=6))
    if log:
        low, high = min(times) / 1.4, max(times) * 1.4
        y.scale = alt.Scale(type="log", domain=[low, high], nice=False)
        y.axis = alt.Axis(labelExpr=SHORT, values=decades(low, high))
    dots = (
        rows("trials")
        .mark_point(filled=True, size=45, opacity=0.85)
        .encode(
            x=_trial_axis(),
            y=y,
            **by_kind("state", LOOKS, points),
            tooltip=tooltips("trial:Q", "state:N", "seconds:Q", "params:N"),
        )
    )
    middle = rows("median").mark_rule(color=GRAY, strokeDash=[5, 4]).encode(y=y)
    notes = [
        f"{seconds(sum(times))} in all, the longest {seconds(max(times))}, the median dashed."
        f"{' Logarithmic axis.' if log else ''}"
    ]
    chart = alt.layer(middle, dots).properties(height=200)
    title = f"A trial takes {seconds(median(times))} (median)"
    return finished(chart, title, notes, trials=thin(points), median=[{"seconds": median(times)}])


def duration_s(trial: FrozenTrial) -> float | None:
    """Seconds from a trial's start to its end, where both are known."""
    return trial.duration.total_seconds() if trial.duration is not None else None


def best_table(
    trials: Iterable[FrozenTrial], goal: Goal, second: Goal | None = None, limit: int = 10
) -> list[list[str]]:
    """The best complete trials, a row of strings each: rank, trial, value, (the second goal's,) time, parameters."""
    return [
        [
            str(rank),
            str(t.number),
            *(figure(g.value(t) or 0.0) for g in (goal, second) if g),
            seconds(duration_s(t) or 0.0),
            compact(t.params),
        ]
        for rank, t in enumerate(ranked(trials, goal)[:limit], start=1)
    ]


def _running_best(over: Sequence[FrozenTrial], goal: Goal) -> list[float | None]:
    best: float | None = None
    running = []
    for trial in over:
        value = goal.value(trial) if trial.state.name == "COMPLETE" else None
        if value is not None and (best is None or goal.loss(value) < goal.loss(best)):
            best = value
        running.append(best)
    return running


def _finite(intermediate: Mapping[int, float]) -> list[tuple[int, float]]:
    return [(step, float(v)) for step, v in sorted(intermediate.items()) if math.isfinite(v)]


def _domain(points: Iterable[Row], goal: Goal) -> tuple[float, float]:
    return view((point["value"] for point in points if point["value"] is not None), goal)


def _best_label(steps: Sequence[Row], points: Sequence[Row], goal: Goal, place: Mapping[str, Any]) -> list[Any]:
    """A ring around the best trial, its number and its value beside it, on the side where there is room."""
    import altair as alt

    best = steps[-2]
    label = f"trial {best['trial']}: {figure(best['value'])}"
    left = best["trial"] > (points[0]["trial"] + points[-1]["trial"]) / 2
    base = rows("best").encode(**place)
    text = base.mark_text(
        align="right" if left else "left", dx=6 if left else -6, dy=-12 if goal.direction == "maximize" else 14,
        fontSize=12, fontWeight=600, color=INK,
    )  # fmt: skip
    ring = base.mark_point(size=170, color=INK, strokeWidth=1.8, filled=False)
    return [ring, text.encode(text=alt.value(label))]


def _history_notes(points: Sequence[Row], steps: Sequence[Row]) -> list[str]:
    beyond = sum(point["beyond"] for point in points)
    lost = sum(point["value"] is None for point in points)
    notes = [
        "The line is the best complete trial so far." if steps else "No trial is complete.",
        f"{beyond} far worse than the better half, pale at the edge." if beyond else "",
        f"{lost} without a value, at the edge." if lost else "",
    ]
    return [" ".join(note for note in notes if note)]


def _trial_axis() -> Any:
    import altair as alt

    axis = alt.Axis(format="d", tickMinStep=1, grid=False)
    return alt.X("trial:Q", title="Trial", axis=axis, scale=alt.Scale(nice=False, zero=False, padding=8))
