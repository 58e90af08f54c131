"""What is known of a run of the chain, kept as `<EVERTUNE_HOME>/chains/<id>/chain.json` beside its flows' logs."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from shared.domain import Frozen
from shared.errors import FlowError
from shared.events.graph import Graph
from shared.settings import make_folder, settings

FlowState = Literal["waiting", "running", "done", "idle", "failed", "skipped", "stopped"]
ChainState = Literal["running", "done", "failed", "stopped"]


class FlowRun(Frozen):
    """One flow in a chain. `run` is Metaflow's pathspec; `note` says why it failed, was skipped or idle."""

    flow: str
    state: FlowState = "waiting"
    run: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    note: str = ""

    def elapsed_s(self, now: datetime) -> float | None:
        """Seconds since it started, up to its end."""
        return ((self.finished_at or now) - self.started_at).total_seconds() if self.started_at else None


class Chain(Frozen):
    """A run of the chain: its flows, in the order in which they may start. `pid` is the process that runs it."""

    id: str
    use_case: str
    pid: int
    started_at: datetime
    finished_at: datetime | None = None
    flows: dict[str, FlowRun] = Field(default_factory=dict)

    @classmethod
    def begin(cls, use_case: str, graph: Graph, pid: int, now: datetime) -> Chain:
        """A chain in which every flow waits; its id tells when it began (UTC)."""
        flows = {name: FlowRun(flow=name) for name in graph.flows}
        return cls(id=f"{now:%Y%m%dT%H%M%S%f}-{pid}", use_case=use_case, pid=pid, started_at=now, flows=flows)

    @property
    def state(self) -> ChainState:
        states = {flow.state for flow in self.flows.values()}
        if "failed" in states:
            ended: ChainState = "failed"
        else:
            ended = "stopped" if states - {"done", "idle"} else "done"
        return ended if self.finished_at else "running"

    @property
    def died(self) -> bool:
        """Whether the process that ran it ended without recording so: nobody holds a chain that has no end."""
        if self.finished_at:
            return False
        try:
            with self._locked(fcntl.LOCK_SH):  # shared, so that two who look at a time don't see each other
                return True
        except BlockingIOError:
            return False
        except FileNotFoundError:  # pruned meanwhile
            return True

    @contextmanager
    def held(self) -> Iterator[None]:
        """The chain is alive as long as this process is in here. To be entered before it is first saved.

        A process id wouldn't tell: after a restart of the machine or the container it is somebody else's.
        """
        make_folder(self.folder)
        with self._locked(fcntl.LOCK_EX):
            yield

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        with (self.folder / "lock").open("a") as file:
            fcntl.flock(file, how | fcntl.LOCK_NB)
            yield

    def names(self, *states: FlowState) -> list[str]:
        """Names of the flows in one of these states."""
        return [name for name, flow in self.flows.items() if flow.state in states]

    def update(self, name: str, **changes: object) -> Chain:
        """The chain after something happened to one of its flows."""
        flow = self.flows[name].model_copy(update=changes)
        return self.model_copy(update={"flows": {**self.flows, name: flow}})

    @property
    def folder(self) -> Path:
        return _home() / self.id

    def log(self, name: str) -> Path:
        """The file with all that a flow printed."""
        return self.folder / f"{name}.log"

    def save(self) -> None:
        """Write the record, so that readers see the old one or the new one, never half of one.

        Raises:
            ServiceError: the home can't be written.
        """
        make_folder(self.folder)
        new = self.folder / "chain.json.new"
        new.write_text(self.model_dump_json(indent=2), encoding="utf-8")
        new.replace(self.folder / "chain.json")


def chains(use_case: str | None = None) -> Iterator[Chain]:
    """The chains of a use case, or of all, on this machine, the newest first."""
    for path in sorted(_home().glob("*/chain.json"), reverse=True):
        with suppress(FileNotFoundError):  # pruned meanwhile
            chain = Chain.model_validate_json(path.read_text(encoding="utf-8"))
            if use_case in (None, chain.use_case):
                yield chain


def newest_chain(use_case: str | None = None) -> Chain | None:
    """The chain of a use case, or of any, that began last on this machine."""
    return next(chains(use_case), None)


def delete_chain(id: str) -> None:
    """Delete a chain's record and its logs."""
    shutil.rmtree(_home() / id, ignore_errors=True)


def refuse_a_second_chain(use_case: str) -> None:
    """Two chains of one use case share the budgets, but not the cores.

    Raises:
        FlowError: another one is running on this machine.
    """
    other = newest_chain(use_case)
    if other and other.state == "running" and not other.died:
        raise FlowError(
            f"one chain of a use case runs at a time, but {other.id} of {use_case!r} does (process {other.pid}); "
            "wait for it, or stop it with Ctrl-C"
        )


def utc_now() -> datetime:
    return datetime.now(UTC)


def _home() -> Path:
    return settings().home.absolute() / "chains"
