"""What a flow says of itself: its Config's parser, its Parameter `request`, and the run that a step belongs to."""

from metaflow import current

PARSER = "shared.config.parse_use_case"  # by name: only the flow's own process parses, its tasks don't import it

REQUEST_HELP = 'JSON, such as {"classical": {"n_trials": 10}}: what this run is asked for beside its config'


def pathspec() -> str:
    """`Flow/run_id`, by which the ledger, the registry and Metaflow's client know the run."""
    return f"{current.flow_name}/{current.run_id}"
