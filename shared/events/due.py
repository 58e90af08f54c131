"""What is due, asked without an event and before a flow is started: it follows from the config and the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from shared.errors import EvertuneError
from shared.flow import hpo, system

if TYPE_CHECKING:
    from shared.config import UseCase
    from shared.domain import Variant
    from shared.events.graph import Flow, Graph
    from shared.flow.plan import Plan


@dataclass(frozen=True)
class Due:
    """A flow that has something to do, and why. study: what it would tune; empty where that can't be told."""

    flow: Flow
    study: str
    why: str


def due_flows(use_case: UseCase, graph: Graph) -> list[Due]:
    """The flows that tune and have something to do now, in the order of the chain. Reads only.

    Whatever is to start what a lost event left behind starts these, and those that wait for them.
    """
    found = []
    for flow in graph.flows.values():
        if flow.variant is None:
            continue
        try:
            plan = plan_of(use_case, flow)
        except EvertuneError as err:  # without data, or with an objective that is broken
            found.append(Due(flow, "", str(err)))
        else:
            if not plan.idle:
                found.append(Due(flow, plan.study.name, plan.why))
    return found


def startable(due: Sequence[Due]) -> list[Due]:
    """Those whose study is known: the others wait for one of these, or for a person."""
    return [one for one in due if one.study]


def first_flows(due: Sequence[Due], graph: Graph) -> list[Flow]:
    """The flows to start by hand, for the rest of what is due to be started by their events.

    A flow that waits for several is started when all of them have finished. So what else it waits for is started, too,
    and finds nothing to do.
    """
    names = {one.flow.name for one in due}
    woken = {later for name in names for later in graph.downstream_of(name)}
    partners = {upstream for name in woken for upstream in graph.flows[name].upstreams}
    return [graph.flows[name] for name in graph.flows if name in (names | partners) - woken]


def plan_of(use_case: UseCase, flow: Flow, dataset: str = "latest", *, force: bool = False) -> Plan:
    """What a flow that tunes would do now. dataset: `latest`, or the beginning of a fingerprint.

    Raises:
        EvertuneError: it would fail.
    """
    if flow.variant == "system":
        return system.due(use_case, dataset, force=force)
    return hpo.due(use_case, cast("Variant", flow.variant), flow.path.parent, dataset, force=force)


def idle_reason(use_case: UseCase, flow: Flow, *, force: bool = False) -> str:
    """Why a flow that tunes has nothing to do, in the words of its own plan; empty where it has, or can't tell."""
    if flow.variant is None:
        return ""
    try:
        plan = plan_of(use_case, flow, force=force)
    except EvertuneError:  # the flow says it better, in its log
        return ""
    return hpo.confirmed(plan).idle if plan.idle else ""


def check_members(use_case: UseCase, graph: Graph) -> None:
    """Refuse, before anything runs, what the flows would refuse at their start.

    Raises:
        ObjectiveError: an objective is missing, breaks the contract, or isn't made for what the config asks of it.
        ConfigError: Optuna has no such sampler or pruner.
    """
    from shared.tuning.objective import Objective
    from shared.tuning.study import check_objective, check_strategies

    for flow in graph.flows.values():
        if flow.variant in use_case.members:
            variant: Variant = flow.variant
            config = getattr(use_case, variant)
            check_objective(use_case, variant, config, Objective.find(config.objective, flow.path.parent))
            check_strategies(use_case, variant, config)
