"""What Evertune's flows, deployments and command line have in common. Imports nothing heavy."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared.client import HPORunner as HPORunner

METAFLOW_PACKAGE_POLICY = "include"


def __getattr__(name: str) -> Any:
    """`HPORunner` imports Metaflow, so it is imported where it's used."""
    if name == "HPORunner":
        from shared.client import HPORunner

        return HPORunner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
