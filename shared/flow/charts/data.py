"""Pictures of a dataset version: target, features, missing values, sample images, and what moved since the last one."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shared.domain import DatasetRef
from shared.flow.charts.theme import BLUE, GRAY, INK, ORANGE, RED, as_spec, figure, themed

if TYPE_CHECKING:
    from metaflow.cards import MetaflowCardComponent

MOST_PANELS, MOST_PIXELS, MOST_BARS = 24, 12, 12
STABLE, SHIFTED = 0.1, 0.25
_PANEL = {"width": 150, "height": 90}

Described = Mapping[str, Any]


def card(
    title: str, ref: DatasetRef, profile: Described, drift: Described | None, *, unchanged: bool
) -> list[MetaflowCardComponent]:
    """The components of the data card, from the headline down."""
    from metaflow.cards import Markdown, Table, ValueBox, VegaChart

    order = [str(label) for label in ref.table.classes]
    missing = missing_rows(profile)
    charts = [target(profile["target"], ref.table.target, order)]
    if profile["samples"]:
        charts.insert(0, samples(profile["samples"], profile["shape"]))
    if drift:
        charts.append(shifts(drift))
    most = MOST_PIXELS if profile["samples"] else MOST_PANELS
    charts.append(features(profile["features"], drift["features"] if drift else {}, most))
    boxes = [ValueBox(title=name, value=value, subtitle=more) for name, value, more in facts(ref, profile, drift)]
    return [
        Markdown(f"# {title}"),
        Table([boxes]),
        Markdown(headline(ref, drift, unchanged=unchanged)),
        *([Markdown("### Missing values"), Table(missing, headers=["column", "rows", "share"])] if missing else []),
        *(VegaChart(as_spec(chart)) for chart in charts),
    ]


def headline(ref: DatasetRef, drift: Described | None, *, unchanged: bool) -> str:
    """What this run found, in sentences of Markdown."""
    when = f"{ref.created_at:%Y-%m-%d %H:%M} UTC"
    if unchanged:
        return f"Nothing changed: version `{ref.fingerprint[:12]}` of {when} holds the rows of {ref.source}."
    made = f"version `{ref.fingerprint[:12]}`, made of {ref.source} on {when}."
    if drift is None or ref.previous is None:
        return f"A new {made}"
    moved = sum(index > SHIFTED for index in drift["features"].values())
    shifted = f"{moved or 'none'} of {len(drift['features'])} features shifted"
    said = [f"A new {made} It follows `{ref.previous[:12]}`; {shifted}."]
    said += [f"Columns {word}: {', '.join(drift[word][:MOST_BARS])}." for word in ("added", "removed") if drift[word]]
    return " ".join(said)


def facts(ref: DatasetRef, profile: Described, drift: Described | None) -> list[tuple[str, str, str]]:
    """Boxes of figures: name, value, and what there is to add."""
    rows, columns, missing = profile["rows"], len(profile["columns"]), profile["missing"]
    cells = sum(missing.values()) / (rows["all"] * columns)
    shape = f"images of {' × '.join(map(str, profile['shape']))}, " if profile["samples"] else ""
    classes = len(ref.table.classes)
    return [
        ("Rows", f"{rows['all']:,}", f"{drift['rows']:+,} since the last version" if drift else "in all"),
        ("Development", f"{rows['development']:,}", f"in {ref.folds} folds; {rows['holdout']:,} held out"),
        ("Features", f"{columns:,}", shape + (f"{cells:.1%} missing" if missing else "none missing")),
        ("Classes", f"{classes:,}", f"of {ref.table.target}") if classes else ("Target", "numbers", ref.table.target),
    ]


def missing_rows(profile: Described) -> list[list[str]]:
    """Rows of the table of missing values, the emptiest column first."""
    worst = sorted(profile["missing"].items(), key=lambda item: -item[1])[:MOST_BARS]
    return [[name, f"{n:,}", f"{n / profile['rows']['all']:.1%}"] for name, n in worst]


def target(described: Described, name: str, order: Sequence[str] = ()) -> Any:
    """The target's distribution: a bar per class, in the order of their codes, or a histogram."""
    import altair as alt

    if described["kind"] == "numbers":
        spread = f"from {_number(described['min'])} to {_number(described['max'])}, mean {_number(described['mean'])}"
        return themed(_histogram(described).properties(width=660, height=200), f"Values of {name}: {spread}")
    counts = described["counts"]
    labels = [label for label in order if label in counts][:40] or list(counts)
    rows = [{"class": label, "rows": counts[label]} for label in labels]
    few = len(labels) <= 12
    x = alt.X("class:N", sort=labels, title=None, axis=alt.Axis(labelAngle=0 if few else -60))
    base = alt.Chart(alt.Data(values=rows)).encode(x=x, y=alt.Y("rows:Q", title="Rows"))
    bars = base.mark_bar(color=BLUE, width={"band": 0.7})
    text = base.mark_text(dy=-7, color=INK, fontSize=11 if few else 8).encode(text=alt.Text("rows:Q", format=","))
    least, most = min(counts.values()), max(counts.values())
    return themed(
        alt.layer(bars, text).properties(width={"step": 66 if few else 20}, height=200),
        f"Classes of {name}: {described['distinct']}",
        [f"The rarest has {least:,} rows, the most frequent {most:,}."],
    )


def features(described: Mapping[str, Described], shift: Mapping[str, float], most: int = MOST_PANELS) -> Any:
    """Small multiples of the features' distributions; of many features, those that moved most, else the first."""
    import altair as alt

    chosen = set(sorted(described, key=lambda name: -shift.get(name, 0.0))[:most])
    panels = [_panel(name, d, shift.get(name, 0.0)) for name, d in described.items() if name in chosen]
    notes = [f"{len(panels)} of {len(described)} profiled features."] if len(panels) < len(described) else []
    if any(shift.get(name, 0.0) > STABLE for name in chosen):
        notes.append("Orange: moved since the previous version; red: shifted.")
    return themed(
        alt.concat(*panels, columns=4, spacing={"row": 22, "column": 26}),
        "Distributions of the features",
        [" ".join(notes)],
    )


def shifts(drift: Described) -> Any:
    """How far target and features moved: population stability index, the largest first, with the usual limits."""
    import altair as alt

    top = sorted(drift["features"].items(), key=lambda item: -item[1])[:MOST_BARS]
    top.insert(0, ("target", drift["target"]))
    rows = [{"column": name, "index": i, "label": f"{i:.3f}", "color": _color(i)} for name, i in top]
    most = max(index for _, index in top)
    x = alt.X(
        "index:Q",
        title="Population stability index",
        scale=alt.Scale(domain=[0, max(0.3, 1.1 * most)]),
        axis=alt.Axis(tickCount=4),
    )
    y = alt.Y("column:N", sort=None, title=None, axis=alt.Axis(domain=False, ticks=False))
    base = alt.Chart(alt.Data(values=rows))
    limits = alt.Chart(alt.Data(values=[{"at": STABLE}, {"at": SHIFTED}]))
    rules = limits.mark_rule(color=GRAY, strokeDash=[5, 4]).encode(x=alt.X("at:Q"))
    bars = base.mark_bar(height={"band": 0.65}).encode(x=x, y=y, color=alt.Color("color:N", scale=None))
    text = base.mark_text(align="left", dx=5, color=INK).encode(x=x, y=y, text=alt.Text("label:N"))
    verdict = "shifted" if most > SHIFTED else "moved a little" if most > STABLE else "stable"
    return themed(
        alt.layer(rules, bars, text).properties(width=560, height={"step": 22}),
        f"Since the previous version: {verdict}",
        [f"Below {STABLE} stable, above {SHIFTED} shifted. The target, and the features that moved most."],
    )


def samples(images: Sequence[Described], shape: Sequence[int]) -> Any:
    """A few images of each class, a column per class."""
    import altair as alt

    labels = list(dict.fromkeys(image["label"] for image in images))
    seen: dict[str, int] = {}
    rows = []
    for image in images:
        seen[image["label"]] = row = seen.get(image["label"], -1) + 1
        rows.append({"class": image["label"], "row": row, "url": _png(image["pixels"], shape)})
    size = 56
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_image(width=size, height=size)
        .encode(
            x=alt.X(
                "class:N", sort=labels, title=None, axis=alt.Axis(orient="top", labelAngle=0, domain=False, ticks=False)
            ),
            y=alt.Y("row:O", axis=None),
            url=alt.Url("url:N"),
        )
        .properties(width={"step": size + 8}, height={"step": size + 8})
    )
    return themed(chart, "Samples of each class")


def _png(pixels: Sequence[int], shape: Sequence[int]) -> str:
    """An image `(channels, height, width)` as a data URL; one channel is drawn as ink on paper."""
    from PIL import Image

    channels, height, width = shape
    plane = height * width
    planes = [
        Image.frombytes("L", (width, height), bytes(pixels[c * plane : (c + 1) * plane])) for c in range(channels)
    ]
    image = Image.merge("RGB", planes) if channels == 3 else planes[0].point(lambda value: 255 - value)
    out = io.BytesIO()
    image.resize((width * 8, height * 8), Image.Resampling.NEAREST).save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def _panel(name: str, described: Described, shift: float) -> Any:
    import altair as alt

    numbers, color, missing = described["kind"] == "numbers", _color(shift), described["shares"][-1]
    chart = _histogram(described, color) if numbers else _bars(described, color)
    notes = [f"mean {_number(described['mean'])}"] if "mean" in described else []
    notes += [] if numbers else [f"{described['distinct']:,} values"]
    notes += [f"{missing:.0%} missing"] * (missing >= 0.005) + [f"moved {shift:.2f}"] * (shift > STABLE)
    heading = alt.TitleParams(
        text=name,
        subtitle=", ".join(notes) or " ",
        fontSize=12,
        subtitleFontSize=11,
        offset=8,
        frame="group",
        limit=_PANEL["width"],
    )
    return chart.properties(title=heading, **_PANEL)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else figure(value)


def _color(shift: float) -> str:
    return RED if shift > SHIFTED else ORANGE if shift > STABLE else BLUE


def _histogram(described: Described, color: str = BLUE) -> Any:
    import altair as alt

    edges, counts = described["edges"], described["counts"]
    room = alt.Scale(domain=[0, 1.08 * max(1, *counts)], nice=False)
    rows = [{"from": low, "to": high, "rows": n} for low, high, n in zip(edges, edges[1:], counts, strict=False)]
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(color=color, binSpacing=1)
        .encode(
            x=alt.X("from:Q", bin="binned", title=None, axis=alt.Axis(format=".6~g", tickCount=5, grid=False)),
            x2=alt.X2("to:Q"),
            y=alt.Y("rows:Q", title=None, scale=room, axis=alt.Axis(format="~s", tickCount=3)),
        )
    )


def _bars(described: Described, color: str) -> Any:
    import altair as alt

    rows = [{"value": value, "rows": n} for value, n in list(described["counts"].items())[:6]]
    x = alt.X("rows:Q", title=None, axis=alt.Axis(format="~s", tickCount=3))
    y = alt.Y("value:N", sort=None, title=None, axis=alt.Axis(labelLimit=70, domain=False, ticks=False))
    return alt.Chart(alt.Data(values=rows)).mark_bar(color=color).encode(x=x, y=y)
