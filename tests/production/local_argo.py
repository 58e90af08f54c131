"""Argo Workflows and Argo Events on one machine: templates that were created in the cluster in memory really run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Condition, Thread
from typing import Any

from tests.production.argo_events import ArgoEvents
from tests.production.argo_pods import Node, Pod
from tests.production.argo_workflow import Outputs, Values, Walk
from tests.production.kubernetes_api import KubernetesAPI

OBJECTS = "/apis/argoproj.io/v1alpha1/namespaces/default"
LOG_LINES = 60


@dataclass(frozen=True)
class ArgoRun:
    """A Workflow that was started."""

    walk: Walk
    flow: str
    pods: list[Pod]

    @property
    def name(self) -> str:
        return str(self.walk.workflow["metadata"]["name"])

    @property
    def template(self) -> str:
        """Name of its WorkflowTemplate, and of that one's CronWorkflow."""
        return str(self.walk.workflow["spec"]["workflowTemplateRef"]["name"])

    @property
    def run_id(self) -> str:
        """Metaflow's."""
        return f"argo-{self.name}"

    @property
    def phase(self) -> str:
        return str(self.walk.workflow.get("status", {}).get("phase", "Pending"))

    def payload(self) -> dict[str, Any]:
        """Of the event that has started it."""
        given = self.walk.workflow["spec"]["arguments"]["parameters"]
        found = [json.loads(parameter["value"]) for parameter in given]
        return next(payload for payload in found if isinstance(payload, dict))

    @property
    def log(self) -> str:
        return "".join(pod.log for pod in self.pods)


class LocalArgo:
    """Runs each Workflow that the API gets, on a node of this machine. events: the webhook and the Sensors.

    secrets: of the cluster, by name, with their keys. programs: see `argo_pods.Node`.
    """

    def __init__(
        self, api: KubernetesAPI, folder: Path, secrets: Mapping[str, Mapping[str, str]], programs: Path
    ) -> None:
        self._api, self.node = api, Node(folder, secrets, programs)
        self.events = ArgoEvents(lambda: api.all("sensors"), self.submit)
        self.all: list[ArgoRun] = []
        self._waited_for = 0
        self._running, self._changed = 0, Condition()

    @contextmanager
    def serving(self) -> Iterator[str]:
        """The URL of the webhook, for as long as Workflows are run."""
        self._api.watchers.append(self._seen)
        try:
            with self.events.serving() as url:
                yield url
        finally:
            self._api.watchers.remove(self._seen)
            for run in self.all:
                self._stop(run)
            self.wait(ok=None)

    def submit(self, workflow: dict[str, Any]) -> None:
        """Create a Workflow, as a Sensor does."""
        status, answer = self._api.answer("POST", f"{OBJECTS}/workflows", workflow)
        assert status == 201, answer

    def fire_cron(self, name: str) -> None:
        """It is time for a CronWorkflow."""
        (cron,) = [found for found in self._api.all("cronworkflows") if found["metadata"]["name"] == name]
        metadata = {"generateName": f"{name}-", "labels": {"workflows.argoproj.io/cron-workflow": name}}
        self.submit({"kind": "Workflow", "metadata": metadata, "spec": dict(cron["spec"]["workflowSpec"])})

    def forget(self, plural: str, ending: str) -> None:
        """Delete objects by the ends of their names."""
        for name in [found["metadata"]["name"] for found in self._api.all(plural)]:
            if name.endswith(ending):
                self._api.answer("DELETE", f"{OBJECTS}/{plural}/{name}", {})

    def kill_at(self, flow: str, step: str, moment: str) -> None:
        """Let the next pod of a step die by SIGKILL with all its processes, at a moment: see `argo_pods`."""
        self.node.deaths.setdefault((flow, step), []).append(moment)

    def reset(self) -> None:
        """Forget what a test has done to events, and the deaths that it has planned."""
        self.events.reset()
        self.node.deaths.clear()

    def runs(self, flow: str | None = None) -> list[ArgoRun]:
        """In the order in which they were started."""
        return [run for run in self.all if flow in (None, run.flow)]

    def wait(self, *, ok: bool | None = True, timeout_s: float = 600) -> list[ArgoRun]:
        """Until nothing runs; returns what has begun since the last wait.

        ok: whether all of that must have succeeded, or some must not. None: either.
        """
        with self._changed:
            ended = self._changed.wait_for(lambda: self._running == 0, timeout_s)
        assert ended, f"after {timeout_s} s something runs:\n{self.report()}"
        ran, self._waited_for = self.all[self._waited_for :], len(self.all)
        failed = [run for run in ran if run.phase != "Succeeded"]
        assert ok is None or ok is not bool(failed), self.report()
        return ran

    def report(self) -> str:
        """What became of each run, and the last words of the pods of those that didn't succeed."""
        lines = []
        for run in self.all:
            lines.append(f"{run.phase} {run.name}: {run.walk.message or 'no failures'}")
            for pod in run.pods if run.phase != "Succeeded" else []:
                lines += [f"--- {pod.name}, attempt {pod.attempt}", *pod.log.splitlines()[-LOG_LINES:]]
        return "\n".join(lines)

    def _seen(self, method: str, plural: str, found: dict[str, Any]) -> None:
        """The API has got something new, or has changed it."""
        if plural != "workflows":
            return
        if method == "POST":
            self._begin(found)
        elif found["spec"].get("shutdown"):
            for run in self.all:
                if run.name == found["metadata"]["name"]:
                    self._stop(run)

    def _begin(self, workflow: dict[str, Any]) -> None:
        wanted = workflow["spec"]["workflowTemplateRef"]["name"]
        found = [t for t in self._api.all("workflowtemplates") if t["metadata"]["name"] == wanted]
        if not found:
            workflow["status"] = {"phase": "Error", "message": f"workflowtemplates {wanted} not found"}
            return
        (template,) = found
        flow = template["metadata"]["annotations"]["metaflow/flow_name"]
        pods: list[Pod] = []
        numbers = count()  # of its pods, some of which start at the same time

        def start_pod(step: str, attempt: int, template: Mapping[str, Any], values: Values) -> Outputs:
            name = f"{workflow['metadata']['name']}-{step}-{next(numbers)}"
            pod = Pod(name, flow, step, attempt, self.node.folder / "pods" / name)
            pods.append(pod)
            return self.node.run(pod, template, values)

        run = ArgoRun(Walk(workflow, template, start_pod), flow, pods)
        with self._changed:
            self.all.append(run)
            self._running += 1
        Thread(target=self._run, args=(run,), daemon=True).start()

    def _run(self, run: ArgoRun) -> None:
        try:
            run.walk.run()
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _stop(self, run: ArgoRun) -> None:
        run.walk.stopped = True
        for pod in run.pods:
            self.node.kill(pod)
