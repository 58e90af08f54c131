"""What commands print of chains, studies and champions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shared.events.live import MARKS, duration
from shared.events.summary import Summary, summarize

if TYPE_CHECKING:
    from shared.domain import TrialSummary
    from shared.events.chain import Chain
    from shared.events.due import Due
    from shared.flow.retention import Holdings
    from shared.storage.ledger import LedgerEntry, Promotion
    from shared.storage.progress import Progress


HOW = {
    "gate": "",
    "hand": ", promoted by {}",
    "rollback": ", rolled back to by {}",
    "found": ", moved there by {}",
}


def show_summary(console: Console, chain: Chain) -> None:
    """What a finished chain has led to, and what to type next."""
    from shared.registry import aliases
    from shared.storage.ledger import Ledger

    ledger, name = Ledger(), chain.use_case
    summary = summarize(ledger.entries(name), ledger.promotions(name), aliases.champion(name))
    elapsed = duration(((chain.finished_at or chain.started_at) - chain.started_at).total_seconds())
    unchanged = "" if summary.finished_by(chain) else ": nothing was due, data and config are unchanged"
    console.print(f"[green]done[/green] in {elapsed}{unchanged}", highlight=False)
    show_lines(console, summary_lines(summary, chain.use_case))


def show_lines(console: Console, lines: Sequence[tuple[str, str]]) -> None:
    """Labels in a column, and a text for each."""
    grid = _grid()
    for label, text in lines:
        grid.add_row(f"[dim]{label}[/dim]", escape(text))
    if lines:
        console.print(grid)


def summary_lines(summary: Summary, use_case: str) -> list[tuple[str, str]]:
    """Label and text of each line of a summary."""
    studies = [(str(study.variant), study_line(study)) for study in summary.studies]
    return [*studies, *live_lines(summary, use_case)]


def live_lines(summary: Summary, use_case: str) -> list[tuple[str, str]]:
    """Label and text of each line on what is live: the gate's last decision, the champion, what to type next."""
    lines = []
    if summary.decision:
        lines.append(("gate", decision_line(summary.decision)))
    if summary.decision or summary.live:
        lines.append(("champion", champion_line(summary, use_case)))
    return [*lines, ("next", f"`evertune best {use_case}`, `evertune cards {use_case}`, `evertune dashboard`")]


def study_line(study: LedgerEntry) -> str:
    """`trial 17, neg_log_loss -0.0412 → digits-classical version 3`."""
    outcome = study.outcome
    model = f" → {outcome['model']} version {outcome['version']}" if outcome.get("model") else ""
    return f"trial {outcome.get('trial')}, {outcome.get('metric', 'score')} {number(outcome.get('value'))}{model}"


def trial_line(trial: TrialSummary) -> str:
    """`trial 17, -0.0412, C=3.2, family='svm'`."""
    values = ", ".join(map(number, trial.values))
    return ", ".join([f"trial {trial.number}", values, *(f"{k}={v!r}" for k, v in trial.params.items())])


def decision_line(decision: Promotion) -> str:
    verdict = "promoted" if decision.promoted else "not promoted"
    if decision.outcome == "overtaken":
        verdict = "not promoted, since somebody has moved the alias meanwhile"
    return f"version {decision.version} {verdict}: {decision.reason}"


def champion_line(summary: Summary, use_case: str) -> str:
    """`digits version 3, neg_log_loss -0.0398 on the holdout, since 2026-11-24 06:30`, and by whom if not the gate."""
    if summary.live is None:
        return "none"
    champion, version = summary.champion, f"{use_case} version {summary.live}"
    if champion is None:
        return f"{version}, by its alias in the registry: the gate hasn't logged that"
    on_holdout = f", {summary.metric} {number(summary.score)} on the holdout" if summary.score is not None else ""
    return f"{version}{on_holdout}, since {local_time(champion.decided_at)}{HOW[champion.kind].format(champion.actor)}"


def show_end(console: Console, chain: Chain) -> None:
    """Why a chain ended early: the message of each failed flow, its log, and how to go on."""
    for name in chain.names("failed"):
        console.print(f"[red]{name} failed:[/red]", highlight=False)
        console.print(chain.flows[name].note or "it left no message", markup=False, highlight=False, soft_wrap=True)
        console.print(f"[dim]all of its output: {escape(str(chain.log(name)))}[/dim]", highlight=False, soft_wrap=True)
    if stopped := chain.names("stopped"):
        console.print(f"[yellow]stopped[/yellow]: {', '.join(stopped)}", highlight=False)
    console.print(f"`evertune run {chain.use_case}` goes on where it stopped", highlight=False)


def show_chain(console: Console, chain: Chain) -> None:
    """The flows of a chain, with their runs."""
    state = "died" if chain.died else chain.state
    console.print(
        f"[bold]chain[/bold] {chain.id} of {chain.use_case}: {state}, begun {local_time(chain.started_at)}",
        highlight=False,
    )
    grid = _grid()
    for flow in chain.flows.values():
        mark, style = MARKS[flow.state]
        elapsed = flow.elapsed_s(chain.finished_at or chain.started_at) if flow.finished_at else None
        grid.add_row(
            f"[{style}]{mark}[/{style}] {flow.flow}",
            duration(elapsed) if elapsed is not None else flow.state,
            flow.run or "",
            escape(flow.note.splitlines()[0]) if flow.note else "",
        )
    console.print(grid)


def show_studies(console: Console, entries: Sequence[LedgerEntry], progress: dict[str, Progress]) -> None:
    """A row per study, the one asked for last first: its state, since when, by which run; then why it failed."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("study", "state", "since", "run", "trials", "best", "model"):
        table.add_column(column, justify="right" if column in ("trials", "best") else "left", no_wrap=True)
    for entry in sorted(entries, key=lambda e: e.asked_at, reverse=True):
        found = progress.get(entry.study)
        model = f"{entry.outcome['model']} {entry.outcome['version']}" if entry.outcome.get("model") else ""
        trials = f"{found.finished}/{found.budget}" if found else ""
        since = local_time(entry.finished_at if entry.state == "done" and entry.finished_at else entry.asked_at)
        table.add_row(entry.study, entry.state, since, entry.run or "", trials, _best(entry, found), model)
    console.print(table)
    for entry in entries:
        if entry.note:
            console.print(f"[red]{entry.state}[/red] {entry.study}: {_first_line(entry.note)}", highlight=False)


def show_due(console: Console, due: Sequence[Due]) -> None:
    """A line for each flow that has something to do, and why."""
    for one in due:
        study = f" {one.study}:" if one.study else ""
        console.print(f"[yellow]due[/yellow] {one.flow.name}:{study} {_first_line(one.why)}", highlight=False)


def show_surplus(console: Console, use_case: str, found: Holdings, *, dry_run: bool) -> None:
    """What was pruned of a use case, or would be: a line for each kind, with the names."""
    kinds = [
        ("dataset versions", [ref.fingerprint[:12] for ref in found.datasets]),
        ("studies", [entry.study for entry in found.studies]),
        ("model versions", [f"{version.name} {version.version}" for version in found.versions]),
        ("objective sources", [source.hash[:12] for source in found.sources]),
        ("runs", [run.pathspec for run in found.runs]),
        ("chains", [chain.id for chain in found.chains]),
    ]
    lines = [(f"{len(names)} {kind}", ", ".join(names)) for kind, names in kinds if names]
    verdict = ("would be deleted" if dry_run else "deleted") if lines else "nothing to prune"
    console.print(f"[bold]{use_case}[/bold]: {verdict}", highlight=False)
    show_lines(console, lines)


def _best(entry: LedgerEntry, progress: Progress | None) -> str:
    if entry.state == "done":
        return number(entry.outcome.get("value"))
    return number(progress.best) if progress and progress.best is not None else ""


def _first_line(text: str) -> str:
    return escape(text.partition("\n")[0])


def local_time(time: datetime) -> str:
    """A time on the clock of this machine's time zone."""
    return f"{time.astimezone():%Y-%m-%d %H:%M}"


def number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, int | float) else str(value)


def _grid() -> Table:
    return Table.grid(padding=(0, 2, 0, 0))
