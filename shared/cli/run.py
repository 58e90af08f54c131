"""`evertune run`: the whole chain on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from shared.cli.options import Overrides, UseCaseName

if TYPE_CHECKING:
    from rich.console import Console

    from shared.config import UseCase
    from shared.events.chain import Chain
    from shared.events.graph import Flow

EXIT_STATUS = {"done": 0, "failed": 1, "stopped": 130}


def run(
    use_case: UseCaseName = "digits",
    overrides: Overrides = None,
    force: Annotated[bool, typer.Option("--force", help="Start the studies anew, even if they are done.")] = False,
) -> None:
    """Prepare the data, tune, and promote: everything that is due. Run it again to go on where it stopped."""
    from shared.cli import show
    from shared.cli.console import stderr, stdout
    from shared.config import load_use_case

    config = load_use_case(use_case, overrides or ())
    console = stdout()
    chain = run_chain(config, console, force=force)
    if chain.state == "done":
        show.show_summary(console, chain)
    else:
        show.show_end(stderr(), chain)
    raise typer.Exit(EXIT_STATUS[chain.state])


def run_chain(use_case: UseCase, console: Console, *, force: bool = False, prepare: bool = True) -> Chain:
    """Run the chain on this machine, and show it. prepare: look for new data first.

    Raises:
        FlowError: another chain of the use case is running.
        ObjectiveError, ConfigError: a flow would refuse to start.
    """
    import asyncio

    from shared.events.chain import refuse_a_second_chain
    from shared.events.due import check_members, idle_reason
    from shared.events.graph import ROOT_FLOW, read_graph
    from shared.events.live import display_for
    from shared.events.runner import ChainRunner
    from shared.events.watch import run_and_watch
    from shared.settings import project_root

    refuse_a_second_chain(use_case.name)
    root = project_root()
    graph = read_graph(root).chain(ROOT_FLOW)
    check_members(use_case, graph)
    variants = " and ".join(use_case.members)
    console.print(
        f"{use_case.title} ({use_case.name}): {variants} by {use_case.tuning.metric}", markup=False, highlight=False
    )
    with display_for(console) as display:

        def idle(flow: Flow) -> str:
            if flow.variant is None and not prepare:
                return "the newest dataset version is caught up on"
            return idle_reason(use_case, flow, force=force)

        parameters = {"force": True} if force else {}
        runner = ChainRunner(use_case, graph, root=root, parameters=parameters, idle=idle, on_change=display.changed)
        return asyncio.run(run_and_watch(runner, display))
