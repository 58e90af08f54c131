"""`evertune status` and `evertune best`: what was tuned, and what is live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from shared.cli.options import OptionalUseCase, UseCaseName
from shared.errors import FlowError

if TYPE_CHECKING:
    from rich.console import Console

    from shared.events.due import Due
    from shared.storage.ledger import LedgerEntry


def status(use_case: OptionalUseCase = None) -> None:
    """The last chain, the studies with what is due of them and why, and the champion."""
    from shared.cli.console import stdout
    from shared.cli.show import show_chain
    from shared.config import load_use_case, use_cases
    from shared.events.chain import newest_chain

    console = stdout()
    if use_case:
        load_use_case(use_case)
    if chain := newest_chain(use_case):
        show_chain(console, chain)
    subject = use_case or (chain.use_case if chain else None)
    names = [subject] if subject else use_cases()
    shown = [_show_use_case(console, name) for name in names]
    if not chain and not any(shown):
        console.print(f"nothing has run yet; start with `evertune run {names[0] if names else 'digits'}`")


def best(
    use_case: UseCaseName,
    variant: Annotated[
        str | None, typer.Option(help="classical, deep or system; by default the last of them that is done.")
    ] = None,
) -> None:
    """The best parameters, as a snippet of Python."""
    from shared.config import load_use_case
    from shared.flow.plan import newest_done
    from shared.storage.ledger import Ledger

    load_use_case(use_case)
    done = {str(name): entry for name, entry in newest_done(Ledger().entries(use_case)).items()}
    if not done or (variant and variant not in done):
        raise FlowError(
            f"the best parameters come from a study that is done, but {use_case!r} has {', '.join(done) or 'none'}; "
            f"run `evertune run {use_case}`"
        )
    typer.echo(_snippet(done[variant or next(reversed(done))]))


def _snippet(entry: LedgerEntry) -> str:
    """The best trial of a finished study. Only the members have an objective file."""
    from shared.domain import TrialSummary
    from shared.storage.ledger import Ledger
    from shared.tuning.objective import Objective
    from shared.tuning.snippet import as_python

    outcome = entry.outcome
    trial = TrialSummary.model_validate(outcome["top"][0])
    if entry.variant == "system":
        return as_python(entry.variant, "", trial, outcome["metric"])
    objective = Objective.from_source(Ledger().source(outcome["objective_hash"]), outcome["objective"])
    return as_python(entry.variant, objective.label, trial, outcome["metric"], objective.kind, objective.deep)


def _show_use_case(console: Console, name: str) -> bool:
    """Show what the ledger knows of a use case; False where it knows nothing."""
    from shared.cli.show import live_lines, show_due, show_lines, show_studies
    from shared.events.summary import summarize
    from shared.registry import aliases, promotion
    from shared.storage.ledger import Ledger
    from shared.storage.progress import progress

    ledger = Ledger()
    entries = ledger.entries(name)
    if not entries and ledger.newest_dataset(name) is None:
        return False
    show_studies(console, entries, progress([entry.study for entry in entries]))
    show_due(console, _due(name))
    promotion.log_champion(name)
    show_lines(console, live_lines(summarize(entries, ledger.promotions(name), aliases.champion(name)), name))
    return True


def _due(name: str) -> list[Due]:
    """What is due of a use case; nothing where it has no config any more."""
    from shared.config import load_use_case, use_cases
    from shared.events.due import due_flows
    from shared.events.graph import read_graph
    from shared.settings import project_root

    return due_flows(load_use_case(name), read_graph(project_root())) if name in use_cases() else []
