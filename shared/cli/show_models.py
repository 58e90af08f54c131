"""What `evertune models` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shared.cli.show import decision_line, local_time, number, show_lines
from shared.registry import history

if TYPE_CHECKING:
    from shared.domain import ModelVersion
    from shared.flow.compare import Comparison
    from shared.registry.verify import Finding

WORD = 10  # the longest that a narrow terminal must not break: an alias, a date
BY = {"gate": "by the gate", "hand": "by {}", "rollback": "back by {}", "found": "by {}"}
DEVELOPMENT, GATE = "development_", "gate."
COLUMNS = ("version", "alias", "folds", "holdout", "size", "latency", "made", "study", "trial", "promoted")
WRAPPED = ("alias", "made", "promoted")


def show_versions(console: Console, versions: Sequence[ModelVersion], log: history.Log) -> None:
    """A row per version of a registered model. Of its study, only the end of the name is shown.

    folds: the metric in cross-validation.
    """
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in COLUMNS:
        if column in WRAPPED:
            table.add_column(column, min_width=WORD)
        else:
            table.add_column(column, justify="right", no_wrap=True)
    for version in versions:
        table.add_row(*map(escape, _row(version, log)))
    metrics = {key.removeprefix(DEVELOPMENT) for v in versions for key in v.metrics if key.startswith(DEVELOPMENT)}
    console.print(f"[bold]{versions[0].name}[/bold] {escape(', '.join(sorted(metrics)))}", highlight=False)
    console.print(table)


def show_version(console: Console, version: ModelVersion, params: Mapping[str, str], log: history.Log) -> None:
    """All that is known of a version."""
    aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
    console.print(f"[bold]{version.name}[/bold] version {version.version}{escape(aliases)}", highlight=False)
    made = [("made", local_time(version.created_at))] if version.created_at else []
    lineage = [(key.replace("_", " "), value) for key, value in version.lineage.items() if key != "use_case"]
    show_lines(console, [*made, *lineage])
    _section(console, "parameters", sorted(params.items()))
    own = {key: value for key, value in version.metrics.items() if not key.startswith(GATE)}
    _section(console, "metrics", [(key, number(value)) for key, value in sorted(own.items())])
    if gate := history.gate(log, version.version):
        figures = [(key, number(value)) for key, value in sorted(gate.figures.items())]
        _section(console, "gate", [("", decision_line(gate)), *figures])
    _section(console, "promotions", list(_promotions(version.version, log)))


def show_comparison(console: Console, found: Comparison) -> None:
    """Two versions side by side, what differs of them, and how they do on the same rows."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("", f"version {found.a.version}", f"version {found.b.version}"):
        table.add_column(column, overflow="fold")
    for label, a, b in _sides(found):
        table.add_row(f"[dim]{escape(label)}[/dim]", escape(a), escape(b))
    console.print(table)
    console.print(_difference(found), markup=False, highlight=False, soft_wrap=True)


def show_finding(console: Console, name: str, finding: Finding) -> None:
    mark, style = ("✗", "red") if finding.wrong else ("✓", "green")
    console.print(f"[{style}]{mark}[/{style}] {name}: {escape(finding.text)}", highlight=False, soft_wrap=True)


def _row(version: ModelVersion, log: history.Log) -> list[str]:
    return [
        str(version.version),
        ", ".join(version.aliases),
        *_costs(version).values(),
        local_time(version.created_at) if version.created_at else "",
        version.lineage.get("study", "").rpartition("/")[2],
        version.lineage.get("trial", ""),
        _promoted(version.version, log),
    ]


def _costs(version: ModelVersion) -> dict[str, str]:
    """How good it is, how large and how slow; what isn't known is empty."""
    found = version.metrics
    development = next((value for key, value in found.items() if key.startswith(DEVELOPMENT)), None)
    return {
        "folds": _shown(development),
        "holdout": _shown(found.get(f"{GATE}challenger")),
        "size": _shown(found.get("size_mb"), " MB"),
        "latency": _shown(found.get(f"{GATE}latency_ms"), " ms"),
    }


def _shown(value: float | None, unit: str = "") -> str:
    return "" if value is None else f"{value:.3g}{unit}" if unit else f"{value:.4g}"


def _promoted(version: int, log: history.Log) -> str:
    """When it became champion last, and by whom; or that the gate has refused it."""
    entries = [entry for entry in log if entry.version == version]
    if took := [entry for entry in entries if entry.took_place]:
        return f"{local_time(took[-1].decided_at)} {BY[took[-1].kind].format(took[-1].actor)}"
    return "refused by the gate" if entries and not entries[-1].promoted else ""


def _promotions(version: int, log: history.Log) -> Iterator[tuple[str, str]]:
    """When it became champion, and when it ceased to be."""
    for entry in log:
        if entry.took_place and version in (entry.version, entry.previous):
            instead = f" instead of {entry.previous}" if entry.previous else ""
            what = f"champion{instead}" if entry.version == version else f"version {entry.version} took its place"
            yield local_time(entry.decided_at), f"{what}, by {entry.actor} ({entry.kind}): {entry.reason}"


def _section(console: Console, title: str, lines: Sequence[tuple[str, str]]) -> None:
    if lines:
        console.print(f"[bold]{title}[/bold]")
        show_lines(console, lines)


def _sides(found: Comparison) -> Iterator[tuple[str, str, str]]:
    """Label, and what each of the two has: costs, dataset version, metrics, differing parameters."""
    a, b = found.a, found.b
    yield "aliases", ", ".join(a.aliases), ", ".join(b.aliases)
    yield "dataset", a.lineage.get("dataset", "")[:12], b.lineage.get("dataset", "")[:12]
    costs = _costs(a), _costs(b)
    yield from ((label, costs[0][label], costs[1][label]) for label in costs[0])
    yield from ((name, one, other) for name, (one, other) in found.params.items())


def _difference(found: Comparison) -> str:
    """What is to be thought of the two scores."""
    d = found.difference
    if isinstance(d, str):
        return f"they can't be compared on the holdout: {d}"
    some = "" if d.rows == d.of else f", those of {d.of} that are fair to both"
    a, b, gain, low, high = map(number, (d.a, d.b, d.gain, d.low, d.high))
    return (
        f"on {d.rows} holdout rows{some}: {d.metric} {a} against {b}, a gain of {gain}, in 95 % of draws of these rows "
        f"of {low} to {high}\n"
        "this is no test and spends nothing of the gate's α; who chooses by it often wears the holdout out all the same"
    )
