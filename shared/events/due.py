"""Whether a flow of the chain has something to do, asked before it is started."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from shared.errors import EvertuneError
from shared.flow import hpo, system

if TYPE_CHECKING:
    from shared.config import UseCase
    from shared.domain import Variant
    from shared.events.graph import Flow, Graph


def idle_reason(use_case: UseCase, flow: Flow, *, force: bool = False) -> str:
    """Why a flow that tunes has nothing to do, in the words of its own plan; empty where it has, or can't tell."""
    if flow.variant is None:
        return ""
    try:
        if flow.variant == "system":
            return system.due(use_case, force=force).idle
        found = hpo.due(use_case, cast("Variant", flow.variant), flow.path.parent, force=force)
        return hpo.confirmed(found).idle if found.idle else ""
    except EvertuneError:  # the flow says it better, in its log
        return ""


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
            check_objective(use_case, variant, config, Objective.load(flow.path.parent / config.objective))
            check_strategies(use_case, variant, config)
