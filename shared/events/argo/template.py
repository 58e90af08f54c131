"""What a WorkflowTemplate says of its flow, and in which fields two of them differ. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from shared.errors import FlowError
from shared.events.graph import Graph

CODE, SENSOR, CRON = "code and config", "starts on", "schedule"
# Differ with each compilation, say where the code was checked out, or stand in the fields CODE, SENSOR and CRON.
IGNORED = re.compile(
    r"metadata\.annotations\.metaflow/(deployment_timestamp|production_token|triggers|cron)$"
    r"|.*\.env\.METAFLOW_(VERSION|CODE_METADATA)\."
    r"|spec\.(workflowMetadata|podMetadata)\."  # what metadata says, once more
)
PARAMETER_FILE = re.compile(r"metaflow\.plugins\.argo\.set_parameters ([a-z]{10}) ")
LISTENS = re.compile(r"name == '(.+)'")


@dataclass(frozen=True)
class Template:
    """A WorkflowTemplate, compiled or deployed, as Kubernetes' API has it."""

    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def flow(self) -> str:
        return self._annotation("flow_name")

    @property
    def scope(self) -> tuple[str, str]:
        """Metaflow's project and branch. Empty names: the template is none of a project."""
        return self._annotation("project_name"), self._annotation("branch_name")

    @property
    def emits(self) -> str:
        """Name of the event that the flow's end publishes."""
        return f"metaflow.{self._annotation('project_flow_name')}.end"

    @property
    def events(self) -> frozenset[str]:
        """Names of the events that its Sensor is to listen for."""
        return frozenset(event["name"] for event in json.loads(self._annotation("triggers") or "[]"))

    @property
    def parameters(self) -> frozenset[str]:
        """Names of the flow's Parameters."""
        return frozenset(p["name"] for p in self.manifest["spec"].get("arguments", {}).get("parameters", []))

    @property
    def sensor(self) -> tuple[str, str] | None:
        """Namespace and name of its Sensor; None: it has none."""
        name = self._annotation("sensor_name")
        return (self._annotation("sensor_namespace"), name) if name else None

    @property
    def cron(self) -> str:
        """When it is scheduled: five fields and the time zone. Empty: never."""
        cron = json.loads(self._annotation("cron") or "{}")
        return f"{cron['schedule']} {cron['tz']}".strip() if cron else ""

    def fields(self) -> dict[str, str]:
        """All that it says, by path; what differs with each compilation has one name in all of them."""
        text, code = json.dumps(self.manifest), self._variables().get("METAFLOW_CODE_SHA", "")
        random = PARAMETER_FILE.search(text)
        for found, constant in (
            (code and f"{code[:2]}/{code}", "<code>"),  # in the path of the code package
            (code, "<code>"),
            (self._annotation("production_token"), "<token>"),
            (random and random.group(1), "<parameters>"),
        ):
            text = text.replace(found, constant) if found else text
        said = dict(_leaves({key: json.loads(text).get(key, {}) for key in ("metadata", "spec")}))
        kept = {path: value for path, value in said.items() if not IGNORED.match(path) and _is_ours(path)}
        return kept | {CODE: code[:12]}

    def _variables(self) -> dict[str, str]:
        """The environment of the steps' containers."""
        containers = [template.get("container", {}) for template in self.manifest["spec"]["templates"]]
        return {e["name"]: e.get("value", "") for container in containers for e in container.get("env", [])}

    def _annotation(self, name: str) -> str:
        return str(self.manifest["metadata"].get("annotations", {}).get(f"metaflow/{name}", ""))


@dataclass(frozen=True)
class Deployed:
    """A template on the cluster, with the names that its Sensor listens for and the cron of its CronWorkflow."""

    template: Template
    events: frozenset[str]
    cron: str


@dataclass(frozen=True)
class Change:
    """What becomes of a flow on the cluster. fields: by name the old value and the new one; None: there is none."""

    template: Template
    kind: Literal["created", "changed", "unchanged", "deleted"]
    fields: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)


def change(wanted: Template, deployed: Deployed | None) -> Change:
    """What differs, the Sensor and the CronWorkflow included, so that one that got lost is made again."""
    if deployed is None:
        return Change(wanted, "created")
    new = wanted.fields() | _shown(wanted.events, wanted.cron)
    old = deployed.template.fields() | _shown(deployed.events, deployed.cron)
    paths = [path for path in sorted(new.keys() | old.keys()) if new.get(path) != old.get(path)]
    fields = {path: (old.get(path), new.get(path)) for path in paths}
    return Change(wanted, "changed" if fields else "unchanged", fields)


def check_events(graph: Graph, templates: Mapping[str, Template]) -> None:
    """Each flow must be started by what its upstreams emit: their events carry project and branch, as its Sensor does.

    templates: by the flow's name.

    Raises:
        FlowError: a flow would wait for ever.
    """
    for flow in graph.flows.values():
        emitted = frozenset(templates[upstream].emits for upstream in flow.upstreams)
        if flow.upstreams and templates[flow.name].events != emitted:
            raise FlowError(
                f"{flow.name} must be started by what {', '.join(sorted(flow.upstreams))} emit "
                f"({', '.join(sorted(emitted))}), but listens for {_listed(templates[flow.name].events)}; "
                "name the flows alone in its @trigger_on_finish, without project and branch"
            )


def sensor_events(sensor: Mapping[str, Any] | None) -> frozenset[str]:
    """The names that a Sensor listens for."""
    dependencies = (sensor or {}).get("spec", {}).get("dependencies", [])
    expressions = [e["expr"] for d in dependencies for e in d.get("filters", {}).get("exprs", [])]
    return frozenset(found.group(1) for text in expressions if (found := LISTENS.fullmatch(text)))


def cron_line(cron: Mapping[str, Any] | None) -> str:
    """When a CronWorkflow starts its template: five fields and the time zone. Empty: never."""
    spec = (cron or {}).get("spec", {})
    schedules = spec.get("schedules") or [spec.get("schedule")]
    return "" if spec.get("suspend", True) else f"{schedules[0]} {spec.get('timezone') or ''}".strip()


def _shown(events: frozenset[str], cron: str) -> dict[str, str]:
    return {SENSOR: _listed(events), CRON: cron or "none"}


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _is_ours(path: str) -> bool:
    """Whether a compilation says it; the rest of the metadata is Kubernetes' own."""
    return path.startswith(("spec.", "metadata.labels.", "metadata.annotations."))


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Path and value of all that is said; entries of a list go by their `name`, where they have one."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            name = value.get("name", i) if isinstance(value, Mapping) else i
            yield from _leaves(value, f"{path}.{name}")
    elif node is not None:
        yield path, str(node)
