"""How every chart of Evertune looks: colors that the color-blind tell apart (Okabe and Ito), one font, quiet axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

BLUE, ORANGE, RED, GREEN, INK, GRAY = "#0072B2", "#E69F00", "#D55E00", "#009E73", "#222222", "#9A9A9A"
MAX_POINTS = 2_000
_FONT = "Roboto, Helvetica Neue, Helvetica, Arial, sans-serif"
_CONFIG: dict[str, Any] = {
    "font": _FONT,
    "view": {"stroke": None},
    "title": {"anchor": "start", "fontSize": 15, "fontWeight": 600, "color": INK, "offset": 14,
              "subtitleFontSize": 12, "subtitleColor": "#666666", "subtitlePadding": 5},
    "axis": {"labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal", "labelColor": "#555555",
             "titleColor": "#444444", "gridColor": "#ECECEC", "domainColor": "#BBBBBB", "tickColor": "#BBBBBB",
             "titlePadding": 8, "labelLimit": 180},
    "legend": {"orient": "top", "direction": "horizontal", "title": None, "labelFontSize": 12, "symbolSize": 80,
               "labelColor": "#444444", "offset": 6, "columnPadding": 18},
}  # fmt: skip

# d3's `g` writes 0.00001 in full
SHORT = (
    "datum.value && (abs(datum.value) < 1e-3 || abs(datum.value) >= 1e5) "
    "? format(datum.value, '~e') : format(datum.value, '~g')"
)

Spec = dict[str, Any]
Row = TypeVar("Row")


def themed(chart: Any, title: str, notes: Sequence[str] = ()) -> Any:
    """The outermost chart, with a title that says what one sees, the notes below it, and Evertune's look."""
    import altair as alt

    lines = {"subtitle": [note for note in notes if note]} if any(notes) else {}
    return chart.properties(title=alt.TitleParams(text=title, **lines), config=_CONFIG)


def rows(name: str) -> Any:
    """An empty chart of the rows that `finished` puts in under a name."""
    import altair as alt

    return alt.Chart(alt.NamedData(name))


def finished(chart: Any, title: str, notes: Sequence[str] = (), **datasets: Sequence[Any]) -> Spec:
    """The themed chart as a specification, with its rows put in last: Altair would copy and validate each of them."""
    return {**as_spec(themed(chart, title, notes)), "datasets": {name: list(found) for name, found in datasets.items()}}


def as_spec(chart: Any) -> Spec:
    """The Vega-Lite specification as `VegaChart` takes it. Not validated: that costs more than building it."""
    spec: Spec = chart.to_dict(validate=False)
    return spec


def by_kind(field: str, looks: Mapping[str, tuple[str, str]], points: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Color and shape by a field, in the order of `looks` (kind → color, shape), for the kinds that are there."""
    import altair as alt

    present = {point[field] for point in points}
    kinds = [kind for kind in looks if kind in present]
    color = alt.Scale(domain=kinds, range=[looks[kind][0] for kind in kinds])
    shape = alt.Scale(domain=kinds, range=[looks[kind][1] for kind in kinds])
    return {"color": alt.Color(f"{field}:N", scale=color), "shape": alt.Shape(f"{field}:N", scale=shape)}


def tooltips(*fields: str) -> list[Any]:
    """What a point says of itself. Altair takes names of fields, too, but makes a channel of one in 10 ms."""
    import altair as alt

    return [alt.Tooltip(field) for field in fields]


def thin(rows: Sequence[Row], limit: int = MAX_POINTS) -> list[Row]:
    """At most `limit` of the rows, evenly spaced, the first and the last among them."""
    if len(rows) <= limit:
        return list(rows)
    if limit < 2:
        return list(rows[:limit])
    step = (len(rows) - 1) / (limit - 1)
    return [rows[round(i * step)] for i in range(limit)]


def decades(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis: 1, 2 and 5 of every decade, or its beginning only where that would be many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high <= 1000 * low else (1,)
    return [tick for k in powers for step in steps if low <= (tick := float(f"{step}e{k}")) <= high]


def figure(value: float) -> str:
    """A number for the eye: four significant digits."""
    return f"{value:.4g}"


def seconds(value: float) -> str:
    """A duration for the eye: `84 ms`, `8.41 s`, `3 min 07 s`, `2 h 05 min`."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.3g} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
