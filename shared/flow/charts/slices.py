"""Slices of a search space: small multiples, the value against one parameter each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from shared.flow.charts.theme import RED, SHORT, Spec, decades, finished, rows, thin, tooltips
from shared.flow.charts.trials import Goal, clamp, compact, is_categorical, ranked, shared_view

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

COLUMNS, WIDTH, HEIGHT = 3, 265, 150
MAX_PANELS = 12
MIN_TRIALS = 3


def slices(trials: Iterable[FrozenTrial], goal: Goal, order: Sequence[str] = ()) -> Spec | None:
    """One panel per parameter over the range that was searched, logarithmic where the search was.

    order: names of parameters, the most important first; the others follow. None where no complete trial has a choice.
    """
    import altair as alt

    over = list(trials)
    complete, domain = ranked(over, goal), shared_view(over, goal)
    names = varied(complete, order)
    shown = [name for name in names if _worth_a_panel(name, complete, goal, domain)][:MAX_PANELS]
    if not shown:
        return None
    points = slice_rows(complete, shown, goal, domain)
    panels = [_panel(i, name, complete, goal, domain) for i, name in enumerate(shown)]
    return finished(
        alt.concat(*panels, columns=COLUMNS, spacing={"row": 26, "column": 24}),
        f"Where the good values of {goal.metric} are",
        _notes(points, [name for name in names if name not in shown]),
        trials=thin(points),
    )


def _worth_a_panel(name: str, complete: Sequence[FrozenTrial], goal: Goal, domain: tuple[float, float]) -> bool:
    """A parameter of some trials, one of them not far worse than the better half."""
    values = [goal.value(t) or 0.0 for t in complete if name in t.params]
    return len(values) >= min(MIN_TRIALS, len(complete)) and any(clamp(v, domain) == v for v in values)


# Characters of a subtitle that fit over the widest chart; a longer line would widen the chart and the whole card.
LINE_WIDTH = 110


def _notes(points: Sequence[dict[str, Any]], left_out: Sequence[str]) -> list[str]:
    beyond = sum(point["value"] != point["shown"] for point in points)
    edge = f" {beyond} far worse than the better half are drawn at the edge." if beyond else ""
    names = ", ".join(left_out[:MAX_PANELS]) + (", …" if len(left_out) > MAX_PANELS else "")
    return [
        f"Complete trials, the best ringed; each axis is the range that was searched.{edge}",
        *(wrap(f"Without a panel, too few or too poor: {names}.", LINE_WIDTH) if left_out else ()),
    ]


def varied(complete: Sequence[FrozenTrial], order: Sequence[str]) -> list[str]:
    """Parameters that could take more than one value: first those of `order`, then the rest as suggested."""
    free = {name for t in complete for name, d in t.distributions.items() if not d.single()}
    return [name for name in dict.fromkeys([*order, *(n for t in complete for n in t.params)]) if name in free]


def slice_rows(
    complete: Sequence[FrozenTrial], names: Sequence[str], goal: Goal, domain: tuple[float, float]
) -> list[dict[str, Any]]:
    """A row per complete trial, worst first: its value, where it is drawn, the parameters that it has as p0, p1, …"""
    values = [goal.value(t) or 0.0 for t in complete]
    options = {name: choices(complete, name) for name in names}
    return [
        {
            "trial": t.number,
            "value": v,
            "shown": clamp(v, domain),
            "size": 90 if t is complete[0] else 38,
            "ring": RED if t is complete[0] else None,
            "params": compact(t.params),
            **{f"p{i}": _place(t, name, options[name]) for i, name in enumerate(names) if name in t.params},
        }
        for t, v in zip(complete[::-1], values[::-1], strict=True)
    ]


def choices(complete: Sequence[FrozenTrial], name: str) -> list[str]:
    """What a categorical parameter could be, in the order of its distribution; empty for a numeric one."""
    distributions: list[Any] = [t.distributions[name] for t in complete if name in t.distributions]
    return list(dict.fromkeys(str(c) for d in distributions if is_categorical(d) for c in d.choices))


def _place(trial: FrozenTrial, name: str, options: Sequence[str]) -> Any:
    """Where a trial is on a parameter's axis: its value, or around its choice's number, lest points hide points."""
    if not options:
        return trial.params[name]
    return options.index(str(trial.params[name])) + 0.4 * (trial.number * 0.618034 % 1 - 0.5)


def _panel(i: int, name: str, complete: Sequence[FrozenTrial], goal: Goal, domain: tuple[float, float]) -> Any:
    import altair as alt

    distributions = [t.distributions[name] for t in complete if name in t.distributions]
    chart = (
        rows("trials").mark_point(filled=True, opacity=0.9, strokeWidth=1.8).transform_filter(f"isValid(datum.p{i})")
    )
    return chart.encode(
        x=_x(f"p{i}", distributions, choices(complete, name)),
        y=_y(goal, domain, labeled=i % COLUMNS == 0),
        fill=_by_trial(),
        stroke=alt.Stroke("ring:N", scale=None, legend=None),
        size=alt.Size("size:Q", scale=None, legend=None),
        tooltip=tooltips("trial:Q", "value:Q", "params:N"),
    ).properties(title=_heading(name, len(distributions), len(complete)), width=WIDTH, height=HEIGHT)


def _heading(name: str, having: int, complete: int) -> Any:
    import altair as alt

    text = name if having == complete else f"{name} (of {having} trials)"
    return alt.TitleParams(text=text, fontSize=12, offset=6, limit=WIDTH)


def _y(goal: Goal, domain: tuple[float, float], *, labeled: bool) -> Any:
    import altair as alt

    axis = alt.Axis(labels=labeled, ticks=labeled, format="~g", tickCount=5)
    return alt.Y(
        "shown:Q", title=goal.metric if labeled else None, scale=alt.Scale(domain=domain, nice=False), axis=axis
    )


def _by_trial() -> Any:
    import altair as alt

    legend = alt.Legend(title="Trial", titleOrient="left", gradientLength=160, format="d", tickMinStep=1)
    scale = alt.Scale(scheme=alt.SchemeParams(name="viridis", extent=[0, 0.85]), reverse=True)
    return alt.Fill("trial:Q", scale=scale, legend=legend)


def _x(field: str, distributions: Sequence[Any], options: Sequence[str]) -> Any:
    """The parameter's axis: its choices, or the range that was searched."""
    import altair as alt

    if options:
        names, angle = f"{json.dumps(options)}[datum.value]", -35 if sum(map(len, options)) > 34 else 0
        axis = alt.Axis(values=list(range(len(options))), labelExpr=names, labelAngle=angle, labelLimit=90, grid=False)
        return alt.X(
            f"{field}:Q", title=None, scale=alt.Scale(domain=[-0.5, len(options) - 0.5], nice=False), axis=axis
        )
    low, high = min(d.low for d in distributions), max(d.high for d in distributions)
    log = all(d.log for d in distributions)
    scale = alt.Scale(type="log" if log else "linear", domain=[low, high], nice=False, zero=False, padding=6)
    few = isinstance(high, int) and high - low <= 8
    ticks = (
        {"values": decades(low, high)} if log else {"values": list(range(low, high + 1))} if few else {"tickCount": 5}
    )
    axis = alt.Axis(labelExpr=SHORT, grid=False, labelOverlap=True, **ticks)
    return alt.X(f"{field}:Q", title=None, scale=scale, axis=axis)
