"""Starts what is deployed: a flow by its template, or the chain by the event `new_data`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.errors import FlowError, ServiceError

if TYPE_CHECKING:
    from shared.events.argo.cluster import Target

NEW_DATA = "new_data"
PENDING = "Pending"
ENDED = {"Succeeded": "done", "Failed": "failed", "Error": "failed"}


@dataclass(frozen=True)
class Triggered:
    """What was submitted. name: of the Workflow, or id of the event. run: Metaflow's pathspec; None: of an event."""

    name: str
    run: str | None

    @property
    def status(self) -> str:
        """running, done, failed; `published` of an event, and `gone` once Argo has cleaned the Workflow away.

        Raises:
            ServiceError: the cluster can't be reached.
        """
        if self.run is None:
            return "published"
        from shared.events.argo import cluster

        found = cluster.workflow(self.name)
        if found is None:
            return "gone"
        return ENDED.get(found.get("status", {}).get("phase", PENDING), "running")


def submit(target: Target, flow: str, parameters: Mapping[str, str]) -> Triggered:
    """Start a deployed flow; returns without waiting for it.

    Raises:
        FlowError: it isn't deployed.
        ServiceError: the cluster can't be reached.
    """
    from shared.events.argo import cluster

    template = cluster.templates(target.scope).get(flow)
    if template is None:
        raise FlowError(
            f"a flow that is triggered must be deployed, but {flow} isn't in {'/'.join(target.scope)}; "
            f"deploy it with `evertune deploy --use-case {target.use_case.name}`, or name its branch"
        )
    if unknown := parameters.keys() - template.parameters:
        raise FlowError(
            f"{flow} takes the Parameters {', '.join(sorted(template.parameters))} where it is deployed, but not "
            f"{', '.join(sorted(unknown))}; deploy it anew with `evertune deploy --use-case {target.use_case.name}`"
        )
    name = cluster.submit(template, parameters)
    return Triggered(name, f"{flow}/argo-{name}")


def publish(target: Target, payload: Mapping[str, Any]) -> Triggered:
    """Publish that there is new data, which starts the deployed chain.

    Raises:
        ServiceError: the webhook of Argo Events isn't known, or doesn't answer.
    """
    from metaflow.integrations import ArgoEvent
    from metaflow.plugins.argo.argo_events import ArgoEventException

    url = webhook()
    if not url:
        raise ServiceError(
            "an event goes to the webhook of Argo Events, but METAFLOW_ARGO_EVENTS_WEBHOOK_URL isn't set; set it, or "
            "use `kubectl port-forward` to bring the webhook's service here"
        )
    name = ".".join(("mfns", *target.scope, NEW_DATA))
    try:
        event = ArgoEvent(name, url=url).publish(dict(payload), ignore_errors=False)
    except ArgoEventException as err:
        raise ServiceError(f"the webhook of Argo Events must answer, but: {err}; see whether it is reachable") from err
    return Triggered(str(event), None)


def webhook() -> str | None:
    """URL of the webhook of Argo Events, as Metaflow is configured."""
    from metaflow.metaflow_config import ARGO_EVENTS_WEBHOOK_URL

    return str(ARGO_EVENTS_WEBHOOK_URL) if ARGO_EVENTS_WEBHOOK_URL else None
