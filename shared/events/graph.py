"""The chain as the flows declare it: each flow's `@trigger_on_finish` names the flows that it waits for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from shared.errors import FlowError

ROOT_FLOW = "DataPrepFlow"


@dataclass(frozen=True)
class Flow:
    """One flow of the project. `variant` is what it tunes, where the class says so; the rest are names it declares."""

    name: str
    path: Path
    upstreams: frozenset[str] = frozenset()
    variant: str | None = None
    parameters: frozenset[str] = frozenset()
    configs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Graph:
    """The flows of a project by name, in an order in which each comes after its upstreams."""

    flows: Mapping[str, Flow]

    @classmethod
    def of(cls, *flows: Flow) -> Graph:
        """The graph of these flows.

        Raises:
            FlowError: there is none, names aren't unique, one waits for a flow that isn't there, or in a circle.
        """
        by_name = {flow.name: flow for flow in flows}
        if not flows:
            raise FlowError("a chain needs flows, but there is no flows/<name>/flow.py here; go to the project's root")
        for flow in flows:
            _check_names(flow, by_name)
        try:
            order = [*TopologicalSorter({f.name: sorted(f.upstreams) for f in flows}).static_order()]
        except CycleError as err:
            circle = " → ".join(reversed(err.args[1]))
            raise FlowError(f"flows must not wait for each other, but {circle}; drop one @trigger_on_finish") from err
        return cls({name: by_name[name] for name in order})

    def chain(self, root: str) -> Graph:
        """The flow `root` and all that its finish leads to; flows that also wait for others are left out.

        Raises:
            FlowError: there is no such flow.
        """
        if root not in self.flows:
            raise FlowError(f"the chain begins with {root}, but there are only {', '.join(self.flows)}; add that flow")
        kept = {root: self.flows[root]}
        for flow in self.flows.values():
            if flow.upstreams and flow.upstreams <= kept.keys():
                kept[flow.name] = flow
        return Graph(kept)

    def ready(self, finished: Collection[str], started: Collection[str]) -> list[Flow]:
        """Flows to start now: not started, and all that they wait for has finished."""
        return [f for f in self.flows.values() if f.name not in started and f.upstreams <= set(finished)]

    def downstream_of(self, name: str) -> list[str]:
        """Names of the flows that wait for this one, directly or through others."""
        found = {name}
        for flow in self.flows.values():
            if flow.upstreams & found:
                found.add(flow.name)
        return [n for n in self.flows if n in found - {name}]


def read_graph(root: Path) -> Graph:
    """The graph of the flows in `<root>/flows/*/flow.py`, read from their own declarations.

    Raises:
        FlowError: a flow can't be imported, or the declarations don't make a chain.
    """
    return Graph.of(*(_read_flow(path) for path in sorted((root / "flows").glob("*/flow.py"))))


def _read_flow(path: Path) -> Flow:
    from shared.events.metaflow_api import extract_flow_class_from_file

    try:
        cls = extract_flow_class_from_file(str(path))
    except Exception as err:
        raise FlowError(f"{path}: must import and hold one flow, but: {err}; try `python {path} check`") from err
    declared = [parameter for _, parameter in cls._get_parameters()]
    return Flow(
        name=cls.__name__,
        path=path,
        upstreams=frozenset(_upstreams(cls)),
        variant=getattr(cls, "variant", None),
        parameters=frozenset(p.name for p in declared if not p.IS_CONFIG_PARAMETER),
        configs=frozenset(p.name for p in declared if p.IS_CONFIG_PARAMETER),
    )


def _upstreams(cls: Any) -> list[str]:
    """Names in the class's `@trigger_on_finish`; those of a project or branch end in the flow's name."""
    from metaflow.flowspec import FlowStateItems

    declared = cls._flow_state[FlowStateItems.FLOW_DECORATORS].get("trigger_on_finish", [])
    named = [n for d in declared for n in (d.attributes["flow"], *(d.attributes["flows"] or [])) if n]
    return [(n["name"] if isinstance(n, Mapping) else n).rsplit(".", 1)[-1] for n in named]


def _check_names(flow: Flow, by_name: Mapping[str, Flow]) -> None:
    if by_name[flow.name] is not flow:
        raise FlowError(
            f"flow names must be unique, but {flow.name} is in {flow.path} and in {by_name[flow.name].path}; rename one"
        )
    if unknown := sorted(flow.upstreams - by_name.keys()):
        raise FlowError(
            f"{flow.path}: @trigger_on_finish must name flows of this project, but {', '.join(unknown)} is none; "
            f"it has: {', '.join(sorted(by_name))}"
        )
