"""Slices of a search space: small multiples, the value against one parameter each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from shared.flow.charts.theme import RED, SHORT, decades, rows, themed, thin
from shared.flow.charts.trials import Goal, clamp, is_categorical, ranked, shared_view

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

COLUMNS, WIDTH, HEIGHT = 3, 265, 150
MAX_PANELS = 12
MIN_TRIALS = 3


def slices(trials: Iterable[FrozenTrial], goal: Goal, order: Sequence[str] = ()) -> Any | None:
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
    return themed(
        alt.concat(*panels, columns=COLUMNS, spacing={"row": 26, "column": 24}),
        f"Where the good values of {goal.metric} are",
        _notes(points, [name for name in names if name not in shown]),
        trials=thin(points),
    )


def _worth_a_panel(name: str, complete: Sequence[FrozenTrial], goal: Goal, domain: tuple[float, float]) -> bool:
    """A parameter of some trials, one of them not far worse than the better half."""
    values = [goal.value(t) or 0.0 for t in complete if name in t.params]
    return len(values) >= min(MIN_TRIALS, len(complete)) and any(clamp(v, domain) == v for v in values)


def _notes(points: Sequence[dict[str, Any]], left_out: Sequence[str]) -> list[str]:
    beyond = sum(point["value"] != point["shown"] for point in points)
    edge = f" {beyond} far worse than the better half are drawn at the edge." if beyond else ""
    names = ", ".join(left_out[:MAX_PANELS]) + (", …" if len(left_out) > MAX_PANELS else "")
    return [
        f"Complete trials, the best ringed; each axis is the range that was searched.{edge}",
        f"Without a panel, too few or too poor: {names}." if left_out else "",
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
    return [
        {
            "trial": t.number,
            "value": v,
            "shown": clamp(v, domain),
            "size": 90 if t is complete[0] else 38,
            "ring": RED if t is complete[0] else None,
            "jitter": t.number * 0.618034 % 1,
            **{f"p{i}": _drawable(t, name) for i, name in enumerate(names) if name in t.params},
        }
        for t, v in zip(complete[::-1], values[::-1], strict=True)
    ]


def _drawable(trial: FrozenTrial, name: str) -> Any:
    value = trial.params[name]
    return str(value) if is_categorical(trial.distributions[name]) else value


def _panel(i: int, name: str, complete: Sequence[FrozenTrial], goal: Goal, domain: tuple[float, float]) -> Any:
    import altair as alt

    distributions = [t.distributions[name] for t in complete if name in t.distributions]
    jitter = {"xOffset": alt.XOffset("jitter:Q", scale=alt.Scale(domain=[-1, 2]))}
    chart = (
        rows("trials").mark_point(filled=True, opacity=0.9, strokeWidth=1.8).transform_filter(f"isValid(datum.p{i})")
    )
    return chart.encode(
        x=_x(f"p{i}", distributions),
        y=_y(goal, domain, labeled=i % COLUMNS == 0),
        fill=_by_trial(),
        stroke=alt.Stroke("ring:N", scale=None, legend=None),
        size=alt.Size("size:Q", scale=None, legend=None),
        tooltip=["trial:Q", alt.Tooltip(f"p{i}:N", title=name), "value:Q"],
        **(jitter if is_categorical(distributions[0]) else {}),
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


def _x(field: str, distributions: Sequence[Any]) -> Any:
    """The parameter's axis: its choices, or the range that was searched."""
    import altair as alt

    if is_categorical(distributions[0]):
        choices = list(dict.fromkeys(str(c) for d in distributions for c in d.choices))
        crowded = sum(map(len, choices)) > 34
        axis = alt.Axis(labelAngle=-35 if crowded else 0, labelLimit=90, grid=False)
        return alt.X(f"{field}:N", title=None, sort=None, scale=alt.Scale(domain=choices), axis=axis)
    low, high = min(d.low for d in distributions), max(d.high for d in distributions)
    log = all(d.log for d in distributions)
    scale = alt.Scale(type="log" if log else "linear", domain=[low, high], nice=False, zero=False, padding=6)
    few = isinstance(high, int) and high - low <= 8
    ticks = (
        {"values": decades(low, high)} if log else {"values": list(range(low, high + 1))} if few else {"tickCount": 5}
    )
    axis = alt.Axis(labelExpr=SHORT, grid=False, labelOverlap=True, **ticks)
    return alt.X(f"{field}:Q", title=None, scale=scale, axis=axis)
