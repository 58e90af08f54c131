"""Whether a flow of the chain has something to do, asked before it is started."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from shared.errors import EvertuneError
from shared.flow import hpo, system

if TYPE_CHECKING:
    from shared.config import UseCase
    from shared.domain import Variant
    from shared.events.graph import Flow


def idle_reason(use_case: UseCase, flow: Flow, *, force: bool = False) -> str:
    """Why a flow that tunes has nothing to do, in the words of its own plan; empty where it has, or can't tell."""
    if flow.variant is None:
        return ""
    try:
        if flow.variant == "system":
            return system.due(use_case, force=force).idle
        return hpo.due(use_case, cast("Variant", flow.variant), flow.path.parent, force=force).idle
    except EvertuneError:  # the flow says it better, in its log
        return ""
