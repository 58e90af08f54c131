"""The local event runner: starts each flow of the chain when all that it waits for has finished."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.config import UseCase
from shared.events.chain import Chain, utc_now
from shared.events.configs import import_path, write_configs
from shared.events.graph import Flow, Graph
from shared.events.logs import failure
from shared.flow.environment import prepare_environment
from shared.training import threads

if TYPE_CHECKING:
    from shared.events.process import FlowProcess

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ChainRunner:
    """Runs the chain of one use case on this machine.

    use_case: the effective config, which travels to the flows. root: the project's. parameters: of the flows; each gets
    those that it declares. options: of all flows, as Metaflow's Runner takes them. watch_signals: of the main thread.
    idle: why a flow has nothing to do, so that it needn't be started; empty where it has. Asked once for each flow.
    cores: counts the machine's, for flows that share them. on_change: called with the chain's record after each event.
    """

    def __init__(
        self,
        use_case: UseCase,
        graph: Graph,
        *,
        root: Path,
        parameters: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        watch_signals: bool = True,
        idle: Callable[[Flow], str] = lambda _: "",
        cores: Callable[[], int] = threads.cores,
        on_change: Callable[[Chain], None] = lambda _: None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.chain = Chain.begin(use_case.name, graph, os.getpid(), now())
        self._use_case, self._graph, self._root, self._count_cores = use_case, graph, root, cores
        self._parameters, self._options = dict(parameters or {}), dict(options or {})
        self._watches_signals = watch_signals
        self._idle, self._on_change, self._now = cache(idle), on_change, now
        self._processes: set[FlowProcess] = set()
        self._running: set[asyncio.Task[None]] = set()
        self.begun = threading.Event()  # it is on record
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[Chain] | None = None
        self._stopping = self._told_to_stop = False

    async def run(self) -> Chain:
        """Run the chain to its end and return its record.

        A failed flow stops what waits for it. SIGINT, SIGTERM and SIGHUP stop everything that was started, as `stop`
        does; a second one kills it.
        """
        self._main, self._loop = asyncio.current_task(), asyncio.get_running_loop()
        if self._told_to_stop:
            self._stop()
        prepare_environment()
        self._watch_signals()
        with self.chain.held():
            return await self._run_all()

    def stop(self) -> None:
        """Stop what runs, or what is about to, from any thread; kill it, if it was told before."""
        self._told_to_stop = True
        if self._loop:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._stop)

    async def _run_all(self) -> Chain:
        self._record(self.chain)
        self.begun.set()
        self._configs = write_configs(self._use_case, self.chain.folder)
        try:
            await asyncio.sleep(0)  # here it ends, if it was told to stop before
            await self._start_ready()
            while self._running:
                done, self._running = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
                for flow in done:
                    flow.result()
                await self._start_ready()
        except asyncio.CancelledError:
            logger.info("chain stopped", extra={"chain": self.chain.id})
        finally:
            await self._end()
        return self.chain

    async def _start_ready(self) -> None:
        """Start what is due. Flows side by side share the cores, so there are never more of them than cores."""
        flows, running, cores = self._due(), len(self.chain.names("running")), None
        if len(flows) + running > 1:
            available = await asyncio.to_thread(self._count_cores)
            flows = flows[: max(0, available - running)]
            cores = available // (len(flows) + running)
        for flow in flows:
            self._update(flow.name, state="running", started_at=self._now())
            self._running.add(asyncio.create_task(self._run_flow(flow, cores)))

    def _due(self) -> list[Flow]:
        """Flows to start now; one that has nothing to do counts as done, and what waits for it is looked at next."""
        while True:
            ready = self._graph.ready(
                self.chain.names("done", "idle"), self.chain.flows.keys() - self.chain.names("waiting")
            )
            idle = {flow.name: reason for flow in ready if (reason := self._idle(flow))}
            for name, reason in idle.items():
                self._update(name, state="idle", note=reason)
            if not idle:
                return ready

    async def _run_flow(self, flow: Flow, cores: int | None) -> None:
        from shared.events.process import FlowProcess

        process = FlowProcess(
            flow,
            root=self._root,
            log=self.chain.log(flow.name),
            configs=self._configs,
            triggers=[run for name in sorted(flow.upstreams) if (run := self.chain.flows[name].run)],
            env=self._environment(cores),
            options=self._options,
        )
        self._watch_signals()
        parameters = {name: value for name, value in self._parameters.items() if name in flow.parameters}
        self._processes.add(process)
        try:
            status = await process.run(
                lambda run: self._update(flow.name, run=run), tags=[f"chain:{self.chain.id}"], **parameters
            )
        finally:
            self._processes.remove(process)  # from now on its process id may be somebody else's
        self._finish(flow, status)

    def _finish(self, flow: Flow, status: int) -> None:
        if status == 0:
            self._update(flow.name, state="done", finished_at=self._now())
            return
        log = self.chain.log(flow.name).read_text(encoding="utf-8", errors="replace")
        self._update(flow.name, state="failed", finished_at=self._now(), note=failure(log))
        for later in self._graph.downstream_of(flow.name):
            self._update(later, state="skipped", note=f"{flow.name} failed")

    async def _end(self) -> None:
        """Stop what still runs, and record the end."""
        for flow in self._running:
            flow.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        for name in self.chain.names("running"):
            self._update(name, state="stopped", finished_at=self._now())
        self._record(self.chain.model_copy(update={"finished_at": self._now()}))

    def _watch_signals(self) -> None:
        """Metaflow's Runner sets its own handler of SIGINT for each flow: set ours again after each."""
        for signum in SIGNALS if self._watches_signals else ():
            asyncio.get_running_loop().add_signal_handler(signum, self._stop)

    def _stop(self) -> None:
        """The first time asks the flows to end, the second kills them."""
        if self._stopping:
            for process in self._processes:
                process.kill()
        elif self._main:
            self._stopping = True
            self._main.cancel()

    def _environment(self, cores: int | None) -> dict[str, str]:
        """Import path of the flow, and its share of the cores if it doesn't have the machine for itself."""
        return import_path(self._root) | ({"EVERTUNE_CORES": str(cores)} if cores else {})

    def _update(self, name: str, **changes: object) -> None:
        self._record(self.chain.update(name, **changes))

    def _record(self, chain: Chain) -> None:
        self.chain = chain
        chain.save()
        self._on_change(chain)
