"""One flow as a process: started by Metaflow's Runner, in a process group of its own, all its output in one file.

It ends with the process that started it, however that ends: see `guard`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from shared.events.graph import Flow
from shared.events.metaflow_api import CommandManager, Runner, SubprocessManager, signals_kept

GUARD = (sys.executable, "-IS", str(Path(__file__).with_name("guard.py")))


class FlowProcess:
    """One run of a flow.

    root: the working directory. log: where its output goes. configs: a file by the name of the flow's Config.
    triggers: pathspecs of the upstream runs. options: more of the flow's, by Metaflow's names, such as `decospecs` for
    `--with`. Created where an event loop runs in the main thread, it takes the loop's SIGINT: set yours afterwards.
    """

    def __init__(
        self,
        flow: Flow,
        *,
        root: Path,
        log: Path,
        configs: Mapping[str, Path] | None = None,
        triggers: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        files = [(name, str(path)) for name, path in (configs or {}).items() if name in flow.configs]
        asked: dict[str, Any] = {"trigger": list(triggers), "config": files, **(options or {})}
        declared = {name: value for name, value in asked.items() if value}  # a flow has an option only if it uses it
        with signals_kept():
            self._runner = Runner(
                str(flow.path), show_output=False, env=dict(env or {}), cwd=str(root), pylint=False, **declared
            )
        self._runner.spm = self._group = _OwnGroup(log)

    async def run(self, on_started: Callable[[str], None], **parameters: Any) -> int:
        """Run the flow; returns its exit status. `on_started` gets the run's pathspec. Cancelling ends the flow."""
        starting = asyncio.ensure_future(self._runner.async_run(**parameters))
        try:
            with suppress(RuntimeError):  # it ended before it had a run; its log says why
                on_started((await asyncio.shield(starting)).run.pathspec)
            return await self._group.wait()
        except asyncio.CancelledError:
            await self._group.stop()
            await asyncio.wait([starting])
            await self._group.stop()  # it may have started only now
            raise

    def kill(self) -> None:
        """End the flow and all that it started, at once."""
        self._group.signal(signal.SIGKILL)


class _OwnGroup(SubprocessManager):  # type: ignore[misc]  # metaflow publishes no types
    """Starts a Runner's command as leader of a process group, so that its tasks and their children end with it.

    A Runner's own manager leaves the command in our group, and its output in temporary files.
    """

    def __init__(self, log: Path) -> None:
        self.commands: dict[int, CommandManager] = {}
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def async_run_command(
        self, command: list[str], env: dict[str, str] | None = None, cwd: str | None = None
    ) -> int:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *GUARD, *command, env=env, cwd=cwd, stdin=PIPE, stdout=log, stderr=log, start_new_session=True
            )
        started = self.commands[self._process.pid] = CommandManager(command, env, cwd)
        started.process, started.run_called = self._process, True
        started.log_files = {"stdout": str(self._log), "stderr": str(self._log)}
        return self._process.pid

    async def wait(self) -> int:
        """The exit status. What the flow has left running is killed."""
        assert self._process, "wait after start"
        status = await self._process.wait()
        self.signal(signal.SIGKILL)
        return status

    async def stop(self) -> None:
        """Let the guard end the flow."""
        if self._process and self._process.stdin:
            self._process.stdin.close()
            await self.wait()

    def signal(self, signum: signal.Signals) -> None:
        if self._process:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signum)
