"""What `[compute.<part>]` of a config gives to the steps of a flow, where they run as pods of a cluster."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from metaflow import FlowMutator

if TYPE_CHECKING:
    from shared.config import ComputeConfig

HEAVY = frozenset({"prepare", "tune", "retrain", "promote"})  # the other steps plan, compare and report
LAUNCHERS = frozenset({"argo-workflows", "kubernetes"})  # as commands, and the latter as `--with kubernetes`, too
MB_PER_MIB = 1.048576  # Metaflow asks for memory in MB


class compute(FlowMutator):  # type: ignore[misc]  # metaflow publishes no types
    """Class decorator `@compute("classical")`: the flow's pods get what `[compute.classical]` says.

    Steps on one machine stay as they are: nothing is retried or timed out there.
    """

    def init(self, part: str) -> None:
        self._part = part

    def mutate(self, mutable_flow: Any) -> None:
        if not on_cluster():
            return
        from shared.config import ComputeConfig

        tables = dict(mutable_flow.configs)["use_case"].to_dict().get("compute", {})
        config = ComputeConfig.model_validate(tables.get(self._part, {}))
        for name, step in mutable_flow.steps:
            for decorator, attributes in decorators(config, heavy=name in HEAVY).items():
                step.add_decorator(decorator, deco_kwargs=attributes, duplicates=step.OVERRIDE)


def on_cluster() -> bool:
    """Whether this process is a pod's, or the command that describes or starts pods.

    The pod decorates its steps once more, since Metaflow hands on only decorators that a command line has named.
    """
    remote = os.environ.get("METAFLOW_RUNTIME_ENVIRONMENT", "local") != "local"
    return remote or not LAUNCHERS.isdisjoint(argument.partition(":")[0] for argument in sys.argv)


def decorators(config: ComputeConfig, *, heavy: bool) -> dict[str, dict[str, Any]]:
    """Metaflow's decorators of a step, with their attributes.

    heavy: it reads, trains or scores. The other steps have the same memory, since they see the same models and trials,
    but one core at most, and no GPU to keep idle.
    """
    cpu = config.cpu if heavy else min(config.cpu, 1.0)
    found: dict[str, dict[str, Any]] = {
        "kubernetes": {
            "cpu": f"{cpu:g}",
            "memory": str(round(config.memory_mib * MB_PER_MIB)),
            "gpu": config.gpu if heavy and config.gpu else None,
            "image": config.image,
            "compute_pool": config.compute_pool,
            "secrets": list(config.secrets),
        },
        # A pod asks for cores and sees those of its node.
        "environment": {"vars": {"EVERTUNE_CORES": str(max(1, int(cpu)))}},
        "timeout": {"seconds": config.timeout_s},
    }
    return found | ({"retry": {"times": config.retries}} if config.retries else {})
