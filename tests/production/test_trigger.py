"""`HPORunner.trigger`: what it publishes, and what it refuses before anything is started."""

from __future__ import annotations

import json
import os

import pytest

from shared import HPORunner
from shared.errors import ConfigError, FlowError, ServiceError
from shared.events.argo import trigger
from tests.production.argo_events import ArgoEvents
from tests.production.kubernetes_api import KubernetesAPI

# Where the environment leads is read once in a process.
KUBECONFIG = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
OBJECTS = "/apis/argoproj.io/v1alpha1/namespaces/default"


@pytest.fixture
def cluster(kubernetes: KubernetesAPI, database: str, monkeypatch: pytest.MonkeyPatch) -> KubernetesAPI:
    """The cluster in memory, for this process, with a database of its pods."""
    del database  # its variable is in the environment
    monkeypatch.setattr(KUBECONFIG, os.environ["KUBECONFIG"])
    return kubernetes


def runner(flow: str = "classical_hpo", **asked: object) -> HPORunner:
    return HPORunner("digits", flow, production=True, **asked)


def deploy(cluster: KubernetesAPI, **parameters: str) -> None:
    """What of a deployed ClassicalHPOFlow is looked at when it is triggered."""
    said = {"flow_name": "ClassicalHPOFlow", "project_name": "evertune_digits", "branch_name": "prod"}
    template = {
        "metadata": {"name": "classical", "annotations": {f"metaflow/{key}": value for key, value in said.items()}},
        "spec": {"arguments": {"parameters": [{"name": key, "value": value} for key, value in parameters.items()]}},
    }
    assert cluster.answer("POST", f"{OBJECTS}/workflowtemplates", template)[0] == 201


@pytest.mark.usefixtures("cluster")
def test_new_data_is_published_with_what_is_asked_of_the_flows_after_it(monkeypatch: pytest.MonkeyPatch):
    asked = {"classical": {"n_trials": 3}, "system": {"workers": 2}}
    events = ArgoEvents(list, lambda _: None)
    with events.serving() as url:
        monkeypatch.setattr(trigger, "webhook", lambda: url)
        triggered = runner("data_prep", request=asked).trigger()

    (event,) = events.published
    assert event.name == "mfns.evertune_digits.prod.new_data"
    assert json.loads(event.body["payload"]["request"]) == asked
    assert (triggered.name, triggered.run, triggered.status) == (event.body["payload"]["id"], None, "published")


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("url", "message"),
    [(None, "METAFLOW_ARGO_EVENTS_WEBHOOK_URL isn't set"), ("http://127.0.0.1:1/", "the webhook of Argo Events must")],
)
def test_an_event_that_would_reach_nobody_is_an_error(monkeypatch: pytest.MonkeyPatch, url: str | None, message: str):
    monkeypatch.setattr(trigger, "webhook", lambda: url)
    with pytest.raises(ServiceError, match=message):
        runner("data_prep").trigger()


def test_a_flow_starts_with_what_is_asked_of_it(cluster: KubernetesAPI):
    deploy(cluster, dataset='"latest"', request='""')

    triggered = runner(n_trials=3).trigger()

    (workflow,) = cluster.all("workflows")
    (request,) = [p["value"] for p in workflow["spec"]["arguments"]["parameters"] if p["name"] == "request"]
    assert json.loads(json.loads(request)) == {"classical": {"n_trials": 3}}
    assert workflow["spec"]["workflowTemplateRef"] == {"name": "classical"}
    assert triggered.run == f"ClassicalHPOFlow/argo-{workflow['metadata']['name']}"


def test_what_is_not_deployed_or_was_before_it_knew_requests_is_refused(cluster: KubernetesAPI):
    with pytest.raises(FlowError, match="ClassicalHPOFlow isn't in evertune_digits/prod; deploy it with"):
        runner().trigger()

    deploy(cluster, dataset='"latest"')
    with pytest.raises(FlowError, match="takes the Parameters dataset where it is deployed, but not request; deploy"):
        runner(n_trials=3).trigger()
    assert cluster.all("workflows") == []


def test_a_compute_pool_is_refused_where_nothing_is_deployed_anew(cluster: KubernetesAPI):
    with pytest.raises(ConfigError, match=r"but 'gpus' is asked of one run; use trigger\(deploy=True\)"):
        runner(compute_pool="gpus").trigger()
    assert cluster.changes == []
