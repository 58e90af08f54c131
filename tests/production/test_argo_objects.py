"""What `argo-workflows create` makes of the flows, validated as strictly as Argo does or more so."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hera.events.models import Sensor
from hera.workflows.models import CronWorkflow, WorkflowTemplate
from huey import crontab

from shared.config import ComputeConfig, load_use_case
from shared.events.argo.template import Template, cron_line, sensor_events
from shared.events.configs import write_configs
from shared.events.graph import Flow, read_graph
from tests.flows.conftest import ROOT, execute
from tests.production.conftest import PASSWORD, SETTINGS
from tests.production.kubernetes_api import KubernetesAPI

pytestmark = pytest.mark.usefixtures("forked")
PARTS = {"DataPrepFlow": "data", "ClassicalHPOFlow": "classical", "DeepHPOFlow": "deep", "SystemTuneFlow": "system"}
HEAVY = ("prepare", "tune", "retrain", "promote")
PRODUCTION, BRANCH = ("--production",), ("--branch", "x")
SCOPES = {PRODUCTION: "prod", BRANCH: "test.x"}

FULL = """
[compute.classical]
cpu = 4
memory_mib = 1000
gpu = 1
image = "registry.example/gpu:2"
compute_pool = "gpus"
secrets = ["evertune-db", "evertune-mlflow"]
retries = 0
timeout_s = 600
"""


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who deploy have them in their environment."""
    monkeypatch.setenv("EVERTUNE_DATABASE_URL", f"postgresql://evertune:{PASSWORD}@postgres/evertune")


def create(flow: Flow, configs: dict[str, Path], options: tuple[str, ...]) -> None:
    given = [part for name, path in configs.items() for part in ("--config", name, str(path))]
    execute(sys.executable, str(flow.path), "--no-pylint", *given, *options, "argo-workflows", "create", ok=True)


# Each config once, each kind of branch with and without a deep variant and a GPU.
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("breast_cancer", PRODUCTION),
        ("diabetes", BRANCH),
        ("digits", PRODUCTION),
        ("digits", BRANCH),
        ("fashion_mnist", PRODUCTION),
    ],
)
def test_the_flows_of_a_use_case_land_on_argo(kubernetes: KubernetesAPI, tmp_path: Path, name, options):
    use_case = load_use_case(name)
    graph = read_graph(ROOT)

    for flow in graph.flows.values():
        create(flow, write_configs(use_case, tmp_path), options)

    templates = {t.flow: t for t in map(Template, kubernetes.all("workflowtemplates"))}
    assert templates.keys() == graph.flows.keys()
    assert {t.scope for t in templates.values()} == {(use_case.project, SCOPES[options])}
    check_models(kubernetes)
    for template in templates.values():
        check_references(template)
        check_compute(template, use_case.compute.get(PARTS[template.flow], ComputeConfig()))
    check_events(kubernetes, templates)
    check_schedule(kubernetes, templates["DataPrepFlow"])
    assert PASSWORD not in json.dumps([*kubernetes.objects.values()])


def test_a_step_gets_all_that_its_compute_table_says(kubernetes: KubernetesAPI, tmp_path: Path):
    config = tmp_path / "digits.toml"
    shipped = (ROOT / "configs/digits.toml").read_text().partition("[compute.classical]")[0]
    config.write_text(shipped + FULL)

    create(read_graph(ROOT).flows["ClassicalHPOFlow"], {"use_case": config}, ())

    template = Template(kubernetes.all("workflowtemplates")[0])
    steps = {t["name"]: t for t in template.manifest["spec"]["templates"] if is_step(t)}
    check_compute(template, load_use_case(config).compute["classical"])
    assert steps["tune"]["container"]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert steps["tune"]["container"]["resources"]["requests"]["memory"] == "1049M"  # of 1000 MiB
    assert {name for name, step in steps.items() if step["container"]["resources"]["limits"]} == {"tune", "retrain"}
    assert all(step["nodeSelector"] == {"outerbounds.co/compute-pool": "gpus"} for step in steps.values())
    assert all("retryStrategy" not in step for step in steps.values())


def check_models(kubernetes: KubernetesAPI) -> None:
    """Argo's own schemas, in which an unknown key is an error."""
    for manifest in kubernetes.all("workflowtemplates"):
        WorkflowTemplate.model_validate(without_nulls(manifest), extra="forbid")
    for manifest in kubernetes.all("cronworkflows"):
        CronWorkflow.model_validate(without_nulls(manifest), extra="forbid")
    for manifest in kubernetes.all("sensors"):
        Sensor.model_validate(without_nulls(manifest))


def check_references(template: Template) -> None:
    """Every template that is named is there."""
    spec = template.manifest["spec"]
    names = {t["name"] for t in spec["templates"]}
    tasks = [task["template"] for t in spec["templates"] for task in t.get("dag", {}).get("tasks", [])]
    steps = [step["template"] for t in spec["templates"] for group in t.get("steps", []) for step in flat(group)]
    hooks = [hook["template"] for hook in spec.get("hooks", {}).values()]
    assert {spec["entrypoint"], spec["onExit"], *tasks, *steps, *hooks} <= names


def check_events(kubernetes: KubernetesAPI, templates: dict[str, Template]) -> None:
    """A flow's Sensor listens for what its upstreams emit, and starts that flow; the first one's, for new data."""
    sensors = {s["metadata"]["annotations"]["metaflow/flow_name"]: s for s in kubernetes.all("sensors")}
    project, branch = templates["DataPrepFlow"].scope
    for name, flow in read_graph(ROOT).flows.items():
        upstream = {f"metaflow.{project}.{branch}.{other}.end" for other in flow.upstreams}
        assert sensor_events(sensors[name]) == (upstream or {f"mfns.{project}.{branch}.new_data"})
        assert [*started_by(sensors[name])] == [templates[name].name]
        assert {*payload_keys(sensors[name])} == {"body.payload"}, "a shell would run what is mapped to a Parameter"
        assert templates[name].emits == f"metaflow.{project}.{branch}.{name}.end"
        assert "argo_workflows_internal:auto-emit-argo-events=1" in command(templates[name], "end")


def check_schedule(kubernetes: KubernetesAPI, first: Template) -> None:
    """The first flow alone is scheduled, as the config says."""
    (cron,) = kubernetes.all("cronworkflows")
    (line,) = cron["spec"]["schedules"]
    crontab(*line.split(), strict=True)  # parses, or raises
    assert cron["spec"]["workflowSpec"] == {"workflowTemplateRef": {"name": first.name}}
    assert cron_line(cron) == first.cron == "0 2 * * * UTC"


def check_compute(template: Template, config: ComputeConfig) -> None:
    for step in filter(is_step, template.manifest["spec"]["templates"]):
        container, heavy = step["container"], step["name"] in HEAVY
        cpu = config.cpu if heavy else min(config.cpu, 1)
        assert float(container["resources"]["requests"]["cpu"]) == cpu
        assert container["resources"]["limits"] == ({"nvidia.com/gpu": str(config.gpu)} if heavy and config.gpu else {})
        assert container["image"] == (config.image or SETTINGS["METAFLOW_KUBERNETES_CONTAINER_IMAGE"])
        secrets = [source["secretRef"]["name"] for source in container["envFrom"]]
        assert secrets == [*config.secrets, SETTINGS["METAFLOW_KUBERNETES_SECRETS"]]
        assert step["activeDeadlineSeconds"] == config.timeout_s
        assert step.get("retryStrategy", {}).get("limit", 0) == config.retries
        assert {"name": "EVERTUNE_CORES", "value": str(max(1, int(cpu)))} in without_nulls(container["env"])


def is_step(template: dict[str, Any]) -> bool:
    return "metaflow/step_name" in template.get("metadata", {}).get("annotations", {})


def command(template: Template, step: str) -> str:
    (found,) = [t for t in template.manifest["spec"]["templates"] if t["name"] == step]
    return " ".join(found["container"]["command"])


def started_by(sensor: dict[str, Any]) -> Iterator[str]:
    for trigger in sensor["spec"]["triggers"]:
        yield trigger["template"]["k8s"]["source"]["resource"]["spec"]["workflowTemplateRef"]["name"]


def payload_keys(sensor: dict[str, Any]) -> Iterator[str]:
    for trigger in sensor["spec"]["triggers"]:
        for parameter in trigger["template"]["k8s"]["parameters"]:
            yield parameter["src"].get("dataTemplate") or parameter["src"]["dataKey"]


def flat(group: Any) -> list[dict[str, Any]]:
    return group if isinstance(group, list) else [group]


def without_nulls(node: Any) -> Any:
    """As Kubernetes keeps it."""
    if isinstance(node, dict):
        return {key: without_nulls(value) for key, value in node.items() if value is not None}
    return [*map(without_nulls, node)] if isinstance(node, list) else node
