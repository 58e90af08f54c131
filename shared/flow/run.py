"""The run that a step belongs to."""

from metaflow import current


def pathspec() -> str:
    """`Flow/run_id`, by which the ledger, the registry and Metaflow's client know the run."""
    return f"{current.flow_name}/{current.run_id}"
