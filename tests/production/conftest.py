"""A cluster as far as deploying sees it: Kubernetes' API in memory, moto as S3, and Metaflow's settings for both."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from shared.settings import settings
from shared.storage.database import sqlalchemy_url
from tests.conftest import Server
from tests.flows.conftest import ROOT, execute
from tests.production.argo_events import SOURCE
from tests.production.kubernetes_api import KubernetesAPI
from tests.production.local_argo import LocalArgo
from tests.production.metadata_service import MetadataService

PASSWORD = "hunter2"  # in all secrets of the environment; nowhere else
SETTINGS = {
    "AWS_ACCESS_KEY_ID": "tester",
    "AWS_SECRET_ACCESS_KEY": PASSWORD,
    "AWS_DEFAULT_REGION": "us-east-1",
    "METAFLOW_DEFAULT_DATASTORE": "s3",
    "METAFLOW_DATASTORE_SYSROOT_S3": "s3://evertune/metaflow",
    "METAFLOW_KUBERNETES_CONTAINER_IMAGE": "registry.example/evertune:1",
    "METAFLOW_KUBERNETES_SECRETS": "evertune-services",
    "METAFLOW_ARGO_EVENTS_EVENT": SOURCE["eventName"],
    "METAFLOW_ARGO_EVENTS_EVENT_SOURCE": SOURCE["eventSourceName"],
    "METAFLOW_ARGO_EVENTS_SERVICE_ACCOUNT": "operate-workflow-sa",
    "METAFLOW_ARGO_EVENTS_WEBHOOK_URL": "http://argo-events-webhook:12000/metaflow-event",
    "METAFLOW_ARGO_WORKFLOWS_USE_SCHEDULES": "True",
    "METAFLOW_USER": "tester",
    "MLFLOW_TRACKING_URI": f"postgresql://mlflow:{PASSWORD}@postgres/mlflow",
}
Command = Callable[..., CompletedProcess[str]]


@contextmanager
def s3() -> Iterator[str]:
    """URL of an S3 with the bucket `evertune`."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "tester", "aws_secret_access_key": "tester", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=url, **keys).create_bucket(Bucket="evertune")
    try:
        yield url
    finally:
        server.stop()


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """URL of an S3 with the bucket `evertune`."""
    with s3() as url:
        yield url


@pytest.fixture
def kubernetes(object_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesAPI]:
    """The objects of a cluster to which the environment leads."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("METAFLOW_S3_ENDPOINT_URL", object_store)
    monkeypatch.setenv("METAFLOW_HOME", str(tmp_path / "metaflowconfig"))
    api = KubernetesAPI()
    with api.serving(tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield api


@pytest.fixture
def evertune(kubernetes: KubernetesAPI, database: str) -> Command:
    """`evertune(*arguments, ok=True)`: the command, whose exit status must say so."""
    import sys

    del kubernetes, database  # their variables are in the environment

    def run(*arguments: str, ok: bool = True, cwd: Path = ROOT) -> CompletedProcess[str]:
        return execute(sys.executable, "-m", "shared.cli", *arguments, ok=ok, cwd=cwd)

    return run


@pytest.fixture(scope="module")
def argo(
    object_store: str, server: Server, evertune_template: str, mlflow_template: str, forks: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[LocalArgo]:  # fmt: skip
    """An Argo that runs what is deployed, with databases of a module's own, to which the environment leads, too."""
    folder = tmp_path_factory.mktemp("argo")
    api, metadata = KubernetesAPI(), MetadataService()
    with (
        server.fresh(evertune_template) as database_url,
        server.fresh(mlflow_template) as mlflow_url,
        pytest.MonkeyPatch.context() as patch,
        api.serving(folder) as kubeconfig,
        metadata.serving() as metadata_url,
    ):
        services = {
            "EVERTUNE_DATABASE_URL": database_url,
            "MLFLOW_TRACKING_URI": sqlalchemy_url(mlflow_url),
            "EVERTUNE_DATA_ROOT": "s3://evertune/datasets",
            "EVERTUNE_HOME": str(folder / "home"),  # of MLflow's files
            "AWS_ENDPOINT_URL": object_store,
        }
        secret = {**services, **{name: SETTINGS[name] for name in SETTINGS if "AWS" in name}}
        argo = LocalArgo(api, folder, {SETTINGS["METAFLOW_KUBERNETES_SECRETS"]: secret}, forks)
        with argo.serving() as webhook_url:
            cluster = {
                "KUBECONFIG": str(kubeconfig),
                "METAFLOW_HOME": str(folder / "metaflowconfig"),
                "METAFLOW_S3_ENDPOINT_URL": object_store,
                "METAFLOW_ARGO_EVENTS_WEBHOOK_URL": webhook_url,
                "METAFLOW_DEFAULT_METADATA": "service",
                "METAFLOW_SERVICE_URL": metadata_url,
            }
            for name, value in {**SETTINGS, **services, **cluster}.items():
                patch.setenv(name, value)
            settings.cache_clear()
            yield argo
    settings.cache_clear()
