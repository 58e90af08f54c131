"""A chain that runs on this machine beside its caller, in a thread: what it is at, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future, wait
from threading import Thread
from typing import TYPE_CHECKING

from shared.errors import FlowError
from shared.events.watch import look

if TYPE_CHECKING:
    from pathlib import Path

    from shared.events.chain import Chain, ChainState
    from shared.events.runner import ChainRunner
    from shared.storage.progress import Progress

POLL_S = 0.1


class Background:
    """A chain of one flow, which has been started. It ends with this process, however that ends.

    runner: must not watch signals, since it runs in a thread.
    """

    def __init__(self, runner: ChainRunner) -> None:
        self._runner = runner
        self._ended: Future[Chain] = Future()
        self._seen: Progress | None = None
        (self.flow,) = runner.chain.flows
        self._start()

    def _start(self) -> None:
        """Returns once the chain is on record, or has failed to be."""
        Thread(target=self._run, name=f"evertune-{self.flow}", daemon=True).start()
        while not (self._runner.begun.wait(POLL_S) or self._ended.done()):
            pass

    @property
    def status(self) -> ChainState:
        """running, done, failed or stopped."""
        state = self._runner.chain.state
        return "failed" if state == "running" and self._ended.done() else state

    @property
    def run(self) -> str | None:
        """Metaflow's pathspec of the run; None before it has begun."""
        return self._runner.chain.flows[self.flow].run

    @property
    def progress(self) -> Progress | None:
        """Trials and best value, as they were when the run was last seen tuning; None where it wasn't yet.

        Each time the database is asked, which takes some milliseconds.
        """
        self._seen = look(self._runner.chain).get(self.flow) or self._seen
        return self._seen

    async def log(self) -> AsyncIterator[str]:
        """Each line that the run prints, from its first to its last."""
        path: Path = self._runner.chain.log(self.flow)
        while not (path.exists() or self._ended.done()):
            await asyncio.sleep(POLL_S)
        if not path.exists():
            return
        with path.open(encoding="utf-8", errors="replace") as file:
            line, last = "", False
            while not last:
                last = self._ended.done()  # before the file is read, so that nothing is missed
                while part := file.readline():
                    line += part
                    if line.endswith("\n"):
                        yield line.rstrip("\n")
                        line = ""
                if not last:
                    await asyncio.sleep(POLL_S)
            if line:
                yield line

    def cancel(self) -> None:
        """Ask the run to stop, and kill it the second time. What its trials have found stays, for the next run."""
        self._runner.stop()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; returns whether it has come. Ctrl-C cancels the run.

        Raises:
            FlowError: it failed, or was cancelled.
        """
        try:
            self._check(self._ended.result(timeout_s))
        except TimeoutError:
            if self._ended.done():  # it is the run's own
                raise
            return False
        except KeyboardInterrupt:
            self.stop()
            raise
        return True

    def stop(self) -> None:
        """`cancel`, and wait until nothing runs any more."""
        self.cancel()
        wait([self._ended])

    async def ended(self) -> None:
        """Wait for the end. Cancelling the waiting cancels the run.

        Raises:
            FlowError: it failed, or was cancelled.
        """
        try:
            self._check(await asyncio.shield(asyncio.wrap_future(self._ended)))
        except asyncio.CancelledError:
            self.cancel()
            await asyncio.wait([asyncio.wrap_future(self._ended)])
            raise

    def _run(self) -> None:
        try:
            self._ended.set_result(asyncio.run(self._runner.run()))
        except BaseException as err:  # noqa: BLE001  # it is for who waits
            self._ended.set_exception(err)

    def _check(self, chain: Chain) -> None:
        flow = chain.flows[self.flow]
        if chain.state != "done":
            why = f": {flow.note}" if flow.note else ""
            raise FlowError(f"{flow.run or self.flow} {chain.state}{why}\nits log: {chain.log(self.flow)}")
