"""The flows of one use case on a cluster: compiled, looked up, created and deleted by Metaflow's Deployer."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from shared.config import UseCase
from shared.errors import ConfigError, FlowError, ServiceError
from shared.events.argo import tokens
from shared.events.argo.template import Deployed, Template, cron_line, sensor_events
from shared.events.configs import import_path
from shared.events.graph import Flow
from shared.events.logs import failure
from shared.events.metaflow_api import DeployedFlow, Deployer, signals_kept

ARGO = {"group": "argoproj.io", "version": "v1alpha1"}
NOT_FOUND = 404


@dataclass(frozen=True)
class Target:
    """Where the flows of a use case go: its Metaflow project, in a branch. Neither: the user's own branch.

    Raises:
        ConfigError: the branch has a name that Metaflow doesn't take.
    """

    use_case: UseCase
    branch: str | None = None
    production: bool = False

    def __post_init__(self) -> None:
        if self.branch and self.production:
            raise ConfigError("a deployment is of a branch or of production, but both are asked for; leave one out")
        if self.branch is not None and not re.fullmatch(r"[a-z0-9_]{1,100}", self.branch):
            raise ConfigError(
                f"--branch must be of lowercase letters, digits and underscores, but is {self.branch!r}; rename it"
            )

    @property
    def scope(self) -> tuple[str, str]:
        """Metaflow's names of project and branch."""
        from metaflow.util import get_username

        if self.production:
            return self.use_case.project, "prod"
        user = os.environ.get("METAFLOW_OWNER") or get_username()
        return self.use_case.project, f"test.{self.branch}" if self.branch else f"user.{user}"

    @property
    def options(self) -> dict[str, Any]:
        """The same as options of a flow's command line."""
        return {"production": True} if self.production else {"branch": self.branch} if self.branch else {}


class Cluster:
    """The flows of a target. root: the project's. configs: files by the names of the flows' Configs."""

    def __init__(self, target: Target, root: Path, configs: Mapping[str, Path]) -> None:
        self.target = target
        self._root, self._configs = root, configs

    def compile(self, flows: Sequence[Flow]) -> list[Template]:
        """The flows' WorkflowTemplates, and their code packages in the datastore; the cluster stays as it is.

        Raises:
            FlowError: Metaflow refuses one.
        """
        found = self._each(flows, only_json=True)
        return [Template(flow.workflow_template) for flow in found]

    def create(self, flows: Sequence[Flow]) -> None:
        """Create or replace the flows' WorkflowTemplates, Sensors and CronWorkflows.

        Raises:
            FlowError: Metaflow or the cluster refuses one.
        """
        self._each(flows)

    def _each(self, flows: Sequence[Flow], **options: Any) -> list[Any]:
        """What the Deployer's `create` returns for each flow, side by side: each waits for a process of its own."""
        with tokens.homes(len(flows)) as homes:
            with signals_kept():
                deployers = [*map(self._deployer, flows, homes)]
            with ThreadPoolExecutor() as threads:
                return [*threads.map(partial(_create, options), flows, deployers)]

    def _deployer(self, flow: Flow, token_home: Mapping[str, str]) -> Any:
        files = [(name, str(path)) for name, path in self._configs.items() if name in flow.configs]
        return Deployer(
            str(flow.path),
            show_output=False,
            env={**import_path(self._root), **token_home},
            cwd=str(self._root),
            pylint=False,
            config=files,
            **self.target.options,
        ).argo_workflows()


def deployed(scope: tuple[str, str]) -> dict[str, Deployed]:
    """What is deployed in a Metaflow project and branch, by the flow's name.

    Raises:
        ServiceError: the cluster can't be reached, or refuses to tell.
    """
    with _reaching_the_cluster():
        return {
            flow: Deployed(t, sensor_events(_sensor(t)), cron_line(_argo().get_cronworkflow(t.name)))
            for flow, t in templates(scope).items()
        }


def templates(scope: tuple[str, str]) -> dict[str, Template]:
    """The WorkflowTemplates of a Metaflow project and branch, by the flow's name.

    Raises:
        ServiceError: the cluster can't be reached, or refuses to tell.
    """
    with _reaching_the_cluster():
        return {t.flow: t for t in map(Template, _argo().get_workflow_templates()) if t.scope == scope}


def submit(template: Template, parameters: Mapping[str, str]) -> str:
    """Start a flow; returns the name of its Workflow.

    Raises:
        ServiceError: the cluster can't be reached, or refuses it.
    """
    from metaflow.util import get_username

    with _reaching_the_cluster():
        made = _argo().trigger_workflow_template(template.name, "user", get_username(), parameters)
    return str(made["metadata"]["name"])


def workflow(name: str) -> Mapping[str, Any] | None:
    """A Workflow, as it is on the cluster; None where it is none, or was cleaned away.

    Raises:
        ServiceError: the cluster can't be reached, or refuses to tell.
    """
    from metaflow.metaflow_config import KUBERNETES_NAMESPACE

    with _reaching_the_cluster():
        return _object("workflows", KUBERNETES_NAMESPACE, name)


def delete(template: Template) -> None:
    """Take a flow's WorkflowTemplate, Sensor and CronWorkflow away; runs that have begun go on.

    Raises:
        FlowError: Metaflow or the cluster refuses it.
    """
    with _reaching_the_cluster():
        flow = DeployedFlow.from_deployment(template.name)
        with flow.deployer as deployer:
            deployer.show_output = False
            if not flow.delete():
                raise FlowError(f"{template.flow} could not be deleted: {_told(deployer)}; see `kubectl get wftmpl`")


def _create(options: Mapping[str, Any], flow: Flow, deployer: Any) -> Any:
    with deployer:
        try:
            return deployer.create(**options)
        except RuntimeError as err:
            said = _told(deployer) or err
            raise FlowError(
                f"{flow.name} could not be deployed: {said}; try `python {flow.path} argo-workflows create`"
            ) from err


def _told(deployer: Any) -> str:
    """The last words of what a deployer ran."""
    logs = [Path(file) for command in deployer.spm.commands.values() for file in command.log_files.values()]
    return failure("\n".join(log.read_text(encoding="utf-8", errors="replace") for log in logs if log.exists()))


def _sensor(template: Template) -> Mapping[str, Any] | None:
    """The Sensor of a template, as it is on the cluster."""
    return _object("sensors", *template.sensor) if template.sensor else None


def _object(plural: str, namespace: str, name: str) -> Mapping[str, Any] | None:
    from kubernetes.client.rest import ApiException
    from metaflow.plugins.kubernetes.kubernetes_client import KubernetesClient

    api = KubernetesClient().get().CustomObjectsApi()
    try:
        found: Mapping[str, Any] = api.get_namespaced_custom_object(
            **ARGO, namespace=namespace, plural=plural, name=name
        )
    except ApiException as err:
        if err.status == NOT_FOUND:
            return None
        raise
    return found


def _argo() -> Any:
    from metaflow.metaflow_config import KUBERNETES_NAMESPACE
    from metaflow.plugins.argo.argo_client import ArgoClient

    return ArgoClient(namespace=KUBERNETES_NAMESPACE)


@contextmanager
def _reaching_the_cluster() -> Iterator[None]:
    from kubernetes.client.rest import ApiException
    from kubernetes.config import ConfigException
    from metaflow.exception import MetaflowException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (ApiException, ConfigException, HTTPError, MetaflowException) as err:
        raise ServiceError(
            f"the cluster must be reached and its Argo objects be read, but: {str(err).strip()}; see whether "
            "`kubectl get wftmpl` works with the same KUBECONFIG and METAFLOW_KUBERNETES_NAMESPACE"
        ) from err
