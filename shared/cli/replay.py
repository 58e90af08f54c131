"""`evertune replay`: a trial once more, beside what was recorded of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from shared.cli.options import UseCaseName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.flow.replay import Outcome, Replay

REASONS = (
    "a trial repeats if all random numbers of its objective come from a seed or from the trial's number, with the same "
    "versions of the packages"
)


def replay(
    use_case: UseCaseName,
    variant: Annotated[str | None, typer.Option(help="classical, deep or system; default: the last of them.")] = None,
    trial: Annotated[int | None, typer.Option(help="Its number; by default the best one's.")] = None,
    study: Annotated[str | None, typer.Option(help="By default the newest; `evertune status` lists all.")] = None,
) -> None:
    """Run a trial of a study once more, and compare. The exit status is 1 where it isn't the same."""
    import optuna

    from shared.cli.console import stdout
    from shared.cli.show import show_lines
    from shared.config import load_use_case
    from shared.flow import replay as replays

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = replays.replay(load_use_case(use_case), variant, trial, study)
    show_lines(stdout(), lines(found))
    if found.replayed.error:
        typer.echo(found.replayed.error)
    typer.echo(f"not the same: {found.difference}; {REASONS}" if found.difference else _the_same(found))
    raise typer.Exit(int(bool(found.difference)))


def lines(replay: Replay) -> list[tuple[str, str]]:
    """Label and text of each line: the trial, how it ended then and now, and what it reported if it wasn't complete."""
    params = ", ".join(f"{name}={value!r}" for name, value in replay.params.items())
    head = [("trial", f"{replay.number} of {replay.study}"), ("parameters", params or "none")]
    ended = [(label, _ended(outcome, replay.names)) for label, outcome in _both(replay)]
    incomplete = "COMPLETE" not in (replay.recorded.state, replay.replayed.state)
    steps = sorted(replay.recorded.reports.keys() | replay.replayed.reports.keys())
    return [*head, *ended, *((f"step {step}", _step(replay, step)) for step in steps if incomplete)]


def _the_same(replay: Replay) -> str:
    return "the same; the latency is measured anew, and isn't compared" if replay.timed else "the same"


def _both(replay: Replay) -> Sequence[tuple[str, Outcome]]:
    return ("recorded", replay.recorded), ("replayed", replay.replayed)


def _ended(outcome: Outcome, names: Sequence[str]) -> str:
    values = ", ".join(f"{name} {value!r}" for name, value in zip(names, outcome.values, strict=False))
    return " ".join(part for part in (outcome.state, values, outcome.reason) if part)


def _step(replay: Replay, step: int) -> str:
    return ", ".join(f"{label} {outcome.reports.get(step, 'nothing')!r}" for label, outcome in _both(replay))
