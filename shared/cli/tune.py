"""`evertune tune`: one flow, on this machine or where it is deployed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shared.cli.deploy import Branch, Production
from shared.cli.options import UseCaseName
from shared.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from shared.client import HPORunner, Tuning
    from shared.events.argo.trigger import Triggered
    from shared.flow.results import Result

PERIOD_S = 1.0


class Mode(StrEnum):
    blocking = "blocking"
    asynchronous = "async"
    trigger = "trigger"


def tune(
    use_case: UseCaseName,
    flow: Annotated[str, typer.Option(help="Its folder in flows/.", metavar="FLOW")] = "classical_hpo",
    mode: Annotated[
        Mode,
        typer.Option(help="Wait for the end, show the log on the way, or start what is deployed and return at once."),
    ] = Mode.blocking,
    trials: Annotated[int | None, typer.Option(help="The budget, in place of the config's.", metavar="N")] = None,
    workers: Annotated[int | None, typer.Option(help="In place of the config's.", metavar="N")] = None,
    objective: Annotated[Path | None, typer.Option(help="A file, in place of the config's.", metavar="FILE")] = None,
    request: Annotated[
        str, typer.Option(help='More that is asked of this run, as JSON: {"system": {"n_trials": 5}}', metavar="JSON")
    ] = "",
    compute_pool: Annotated[str | None, typer.Option(help="Of the pods.", metavar="POOL")] = None,
    with_: Annotated[
        list[str] | None, typer.Option("--with", help="A decorator for all steps: kubernetes", metavar="DECORATOR")
    ] = None,
    resume: Annotated[str | None, typer.Option(help="Go on with this study.", metavar="STUDY")] = None,
    deploy: Annotated[bool, typer.Option("--deploy", help="With --mode trigger: deploy the chain first.")] = False,
    branch: Branch = None,
    production: Production = False,
    namespace: Annotated[
        str | None, typer.Option(help="Metaflow's, in which the run is looked up.", metavar="NAMESPACE")
    ] = None,
) -> None:
    """Tune one flow, with more trials, workers or another objective than the config says."""
    from shared.cli.console import stdout
    from shared.client import HPORunner
    from shared.flow.request import Request

    if mode is not Mode.trigger and (deploy or branch or production):
        raise ConfigError("--deploy, --branch and --production are of what is deployed; add --mode trigger")
    if mode is Mode.trigger and (with_ or namespace):
        raise ConfigError("--with and --namespace are of a run that this machine starts; leave out --mode trigger")
    runner = HPORunner(
        use_case,
        flow,
        objective=objective,
        n_trials=trials,
        workers=workers,
        request=Request.parse(request).model_dump(exclude_none=True),
        compute_pool=compute_pool,
        branch=branch,
        production=production,
        namespace=namespace,
    )
    console = stdout()
    if mode is Mode.trigger:
        _show_triggered(console, runner.trigger(deploy=deploy, study=resume), use_case)
        return
    try:
        if mode is Mode.asynchronous:
            result = asyncio.run(_follow(console, runner, with_ or (), resume))
        else:
            result = _wait(console, runner, with_ or (), resume)
    except KeyboardInterrupt:
        console.print("stopped; what its trials have found stays, and the same command goes on from there")
        raise
    _show_result(console, result)


def _wait(console: Console, runner: HPORunner, with_: Sequence[str], study: str | None) -> Result:
    """Show the run's progress until its end."""
    from shared.events.live import display_for

    with display_for(console) as display:
        tuning = runner.start(with_=with_, study=study, on_change=display.changed)
        try:
            while not tuning.wait(PERIOD_S):
                if progress := tuning.progress:
                    display.progressed({tuning.flow: progress})
        except KeyboardInterrupt:
            tuning.stop()
            raise
    return asyncio.run(tuning.result())


async def _follow(console: Console, runner: HPORunner, with_: Sequence[str], study: str | None) -> Result:
    """Show what the run prints, and how far it is, until its end."""
    tuning = await runner.run_async(with_=with_, study=study)
    shown = [asyncio.create_task(_show_log(console, tuning)), asyncio.create_task(_show_progress(console, tuning))]
    try:
        return await tuning.result()
    finally:
        await asyncio.gather(*shown, return_exceptions=True)


async def _show_log(console: Console, tuning: Tuning) -> None:
    async for line in tuning.log():
        console.print(line, markup=False, highlight=False, soft_wrap=True)


async def _show_progress(console: Console, tuning: Tuning) -> None:
    from shared.events.live import PlainDisplay

    display = PlainDisplay(console)
    while tuning.status == "running":
        if progress := await asyncio.to_thread(lambda: tuning.progress):
            display.progressed({tuning.flow: progress})
        await asyncio.sleep(PERIOD_S)


def _show_result(console: Console, result: Result) -> None:
    from shared.cli.show import show_lines, trial_line

    lines = {
        "run": result.run and result.run.pathspec,
        "study": result.study,
        "best": result.best and trial_line(result.best),
        "model": result.model,
        "note": result.idle and f"nothing was due, {result.tuned_by} has tuned it",
    }
    show_lines(console, [(label, text) for label, text in lines.items() if text])


def _show_triggered(console: Console, triggered: Triggered, use_case: str) -> None:
    from shared.cli.show import show_lines

    what = ("run", triggered.run) if triggered.run else ("event", triggered.name)
    show_lines(console, [what, ("next", f"`evertune status {use_case}`")])
