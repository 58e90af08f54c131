"""docs/production.md: what it says to type starts what is deployed, and shows nobody the key of Metaflow's service."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shared.config import load_use_case
from shared.events.configs import write_configs
from tests.flows.conftest import ROOT, execute
from tests.production.argo_events import ArgoEvents
from tests.production.conftest import PASSWORD
from tests.production.kubernetes_api import KubernetesAPI

PAGE = (ROOT / "docs/production.md").read_text()
FLOWS = {"digits": ("data_prep", "classical_hpo"), "diabetes": ("data_prep",)}
HEADERS = "METAFLOW_SERVICE_HEADERS"
DIGITS = "evertunedigits.prod.dataprepflow"


def block(word: str) -> str:
    """The commands among which a word stands."""
    (found,) = [text for text in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) if word in text]
    return found


def bash(commands: str, **environment: str) -> None:
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"} | environment
    done = subprocess.run(["bash", "-ec", commands], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def deployed(
    kubernetes: KubernetesAPI, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> KubernetesAPI:
    """Flows of two use cases in production, by somebody who has a key for Metaflow's service and obeys the page."""
    del database  # the pods' one, which the environment names
    monkeypatch.setenv("METAFLOW_SERVICE_AUTH_KEY", PASSWORD)
    (skip,) = re.findall(r"METAFLOW_ARGO_WORKFLOWS_ENV_VARS_TO_SKIP=(\w+)\n", PAGE)
    monkeypatch.setenv("METAFLOW_ARGO_WORKFLOWS_ENV_VARS_TO_SKIP", skip)
    for name, folders in FLOWS.items():
        configs = [
            part
            for item in write_configs(load_use_case(name), tmp_path).items()
            for part in ("--config", *map(str, item))
        ]
        for folder in folders:
            flow = (sys.executable, f"flows/{folder}/flow.py", "--no-pylint", *configs, "--production")
            execute(*flow, "argo-workflows", "create", ok=True)
    return kubernetes


def started(kubernetes: KubernetesAPI) -> list[str]:
    """The templates of the Workflows that there are, in their order."""
    return [found["spec"]["workflowTemplateRef"]["name"] for found in kubernetes.all("workflows")]


def test_by_hand_and_by_an_event_the_flows_of_the_page_start(deployed: KubernetesAPI):
    bash(block("argo-workflows trigger"))
    assert started(deployed) == [
        DIGITS,
        "evertunediabetes.prod.dataprepflow",
        "evertunedigits.prod.classicalhpoflow",
    ]

    created = []
    events = ArgoEvents(lambda: deployed.all("sensors"), created.append)
    with events.serving() as url:
        bash(block("curl --fail"), METAFLOW_ARGO_EVENTS_WEBHOOK_URL=url)
        bash(block("evertune tune"), METAFLOW_ARGO_EVENTS_WEBHOOK_URL=url)
    (said, asked) = events.published
    assert said.name == said.body["name"] == asked.name == "mfns.evertune_digits.prod.new_data"
    assert json.loads(asked.body["payload"]["request"]) == {"deep": {"n_trials": 5}, "system": {"workers": 4}}
    assert [workflow["spec"]["workflowTemplateRef"]["name"] for workflow in created] == [DIGITS] * 2
    assert started(deployed)[3:] == ["evertunedigits.prod.classicalhpoflow"]
    (request,) = deployed.all("workflows")[-1]["spec"]["arguments"]["parameters"]
    assert json.loads(json.loads(request["value"])) == {"classical": {"n_trials": 60}}

    assert PASSWORD not in json.dumps([*deployed.objects.values()])


def test_the_secret_of_the_page_holds_the_headers_as_metaflow_reads_them(tmp_path: Path):
    kubectl = tmp_path / "kubectl"
    kubectl.write_text('#!/bin/sh\necho "$5" > created\n')
    kubectl.chmod(0o755)
    commands = block("kubectl create secret generic metaflow-service")
    bash(f"cd {tmp_path}; PATH=.:$PATH; {commands}", METAFLOW_SERVICE_AUTH_KEY=PASSWORD)
    option, _, value = (tmp_path / "created").read_text().strip().partition(f"{HEADERS}=")
    assert (option, json.loads(value)) == ("--from-literal=", {"x-api-key": PASSWORD})
