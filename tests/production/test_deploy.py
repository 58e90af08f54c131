"""`evertune deploy` and `undeploy` on a cluster in memory."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from shared.config import load_use_case
from shared.events.configs import write_configs
from tests.flows.conftest import ROOT, execute
from tests.production.conftest import PASSWORD, Command
from tests.production.kubernetes_api import KubernetesAPI

pytestmark = pytest.mark.usefixtures("forked")
FLOWS = ("DataPrepFlow", "ClassicalHPOFlow", "DeepHPOFlow", "SystemTuneFlow")
KINDS = ("created", "changed", "unchanged", "deleted")
REPORT = """
from metaflow import step
from obproject import ProjectFlow

class ReportFlow(ProjectFlow):
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    ReportFlow()
"""


def kinds(output: str) -> dict[str, str]:
    """What became of each flow, by its name."""
    words = [line.split() for line in output.splitlines()]
    return {line[1]: line[0] for line in words if line and line[0] in KINDS}


def test_a_deployment_is_made_once_compared_and_taken_away(
    evertune: Command, kubernetes: KubernetesAPI, monkeypatch: pytest.MonkeyPatch
):
    mine = ("--use-case", "diabetes", "--branch", "x")

    assert kinds(evertune("deploy", *mine).stdout) == dict.fromkeys(FLOWS, "created")
    assert kubernetes.changes[0].endswith(".dataprepflow")
    assert kubernetes.changes[-1].endswith("-systemtuneflow")

    kubernetes.changes.clear()
    assert kinds(evertune("deploy", *mine).stdout) == dict.fromkeys(FLOWS, "unchanged")

    kubernetes.forget("cronworkflows")  # by hand
    monkeypatch.setenv("METAFLOW_KUBERNETES_CONTAINER_IMAGE", "registry.example/evertune:2")
    told = evertune("deploy", *mine, "--dry-run").stdout
    assert kinds(told) == dict.fromkeys(FLOWS, "changed")
    assert "schedule: none → 0 2 * * * UTC" in told
    assert "spec.templates.tune.container.image: registry.example/evertune:1 → registry.example/evertune:2" in told
    assert ".command" not in told  # which names the code package, but only that

    for others in (("--use-case", "diabetes", "--production"), ("--use-case", "digits", "--branch", "x")):
        assert "nothing is deployed" in evertune("undeploy", *others).stdout
    assert kubernetes.changes == []

    assert kinds(evertune("undeploy", *mine).stdout) == dict.fromkeys(FLOWS, "deleted")
    assert kubernetes.objects == {}


def test_what_was_renamed_goes_once_its_successor_is_there_and_flows_beside_the_chain_stay(
    evertune: Command, kubernetes: KubernetesAPI, tmp_path: Path
):
    project, mine = tmp_path / "project", ("--use-case", "diabetes", "--branch", "x")
    for name in ("flows", "configs"):
        shutil.copytree(ROOT / name, project / name)
    shutil.copy(ROOT / "obproject.toml", project)
    evertune("deploy", *mine, cwd=project)
    (report := project / "flows/report/flow.py").parent.mkdir()
    report.write_text(REPORT)
    config = str(write_configs(load_use_case("diabetes"), tmp_path)["project_config"])
    beside = (str(report), "--no-pylint", "--branch", "x", "--config", "project_config", config)
    execute(sys.executable, *beside, "argo-workflows", "create", ok=True, cwd=project)
    (system := project / "flows/system_tune/flow.py").write_text(system.read_text().replace("SystemTune", "WholeTune"))
    renamed = dict.fromkeys(FLOWS[:3], "unchanged") | {"WholeTuneFlow": "created", "SystemTuneFlow": "deleted"}

    kubernetes.changes.clear()
    assert kinds(evertune("deploy", *mine, "--dry-run", cwd=project).stdout) == renamed
    assert kubernetes.changes == []

    assert kinds(evertune("deploy", *mine, cwd=project).stdout) == renamed
    made, gone = ["POST"] * 2, ["DELETE"] * 3  # template and Sensor; and a CronWorkflow, if there were one
    assert [change.split()[0] for change in kubernetes.changes] == made + gone
    left = {found["metadata"]["annotations"]["metaflow/flow_name"] for found in kubernetes.all("workflowtemplates")}
    assert left == {*FLOWS[:3], "WholeTuneFlow", "ReportFlow"}


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("METAFLOW_DEFAULT_DATASTORE", "local", "METAFLOW_DEFAULT_DATASTORE must be one of s3, azure, gs"),
        ("METAFLOW_KUBERNETES_CONTAINER_IMAGE", None, "[compute.system] name no `image`"),
        ("METAFLOW_KUBERNETES_SECRETS", None, "[compute.system] name no `secrets`"),
        ("METAFLOW_ARGO_EVENTS_EVENT", None, "but METAFLOW_ARGO_EVENTS_EVENT is not set"),
        ("METAFLOW_SERVICE_AUTH_KEY", PASSWORD, "secrets must not stand in templates"),
        ("EVERTUNE_DATABASE_URL", None, "the embedded PostgreSQL of this machine can't be reached from a cluster"),
        ("EVERTUNE_DATABASE_URL", f"postgresql://e:{PASSWORD}@127.0.0.1:1/e", "127.0.0.1:1/e doesn't; start it"),
        ("KUBECONFIG", "/nowhere", "see whether `kubectl get wftmpl` works"),
    ],
)
def test_what_would_fail_on_the_cluster_is_refused_before_anything_changes(
    evertune: Command, kubernetes: KubernetesAPI, monkeypatch: pytest.MonkeyPatch, variable, value, message
):
    monkeypatch.setenv(variable, value) if value else monkeypatch.delenv(variable)

    told = evertune("deploy", "--use-case", "diabetes", ok=False).stderr

    assert message in told
    assert PASSWORD not in told
    assert "Traceback" not in told
    assert kubernetes.changes == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--branch", "x", "--production"), "of a branch or of production, but both are asked for"),
        (("--branch", "My-Branch"), "lowercase letters, digits and underscores, but is 'My-Branch'"),
    ],
)
def test_a_branch_that_metaflow_would_not_take_is_refused(evertune: Command, options, message):
    assert message in evertune("deploy", *options, ok=False).stderr
