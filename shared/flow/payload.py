"""What the event brings that starts a deployed flow: its payload, which anybody may have written who can post one."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from metaflow import FlowMutator

VARIABLE = "METAFLOW_ARGO_EVENT_PAYLOAD_event_"  # and a name for the event; null: it isn't the one that came


class unmapped(FlowMutator):  # type: ignore[misc]  # metaflow publishes no types
    """Class decorator: the payload sets no Parameter of the flow where it is deployed; the flow reads it as data.

    Metaflow would map its fields to Parameters of the same names, whose values a shell of the pod reads: it would run
    what stands in `$(…)`, and break on an object.
    """

    def pre_mutate(self, mutable_flow: Any) -> None:
        if "argo-workflows" in sys.argv:
            for name, _ in list(mutable_flow.parameters):
                mutable_flow.remove_parameter(name)


def payload() -> dict[str, Any]:
    """That of the event which has started this run; empty where none has."""
    found = [json.loads(text) for name, text in os.environ.items() if name.startswith(VARIABLE)]
    return next((one for one in found if isinstance(one, dict)), {})
