"""One Workflow on its way through its template: DAG, fan-out, retries, exit handler, and its status in the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from typing import Any

from tests.production.argo_placeholders import NotMetaflow, dependencies, holds, substitute
from tests.production.argo_pods import PodFailed

Values = Mapping[str, str]
Outputs = dict[str, str]
# Step, attempt, its template and the values for its placeholders → its outputs; or PodFailed.
StartPod = Callable[[str, int, Mapping[str, Any], Values], Outputs]
TIME = "%Y-%m-%dT%H:%M:%SZ"


class Failed(Exception):
    """A task of the DAG failed for good; what depends on it is omitted."""


class Walk:
    """workflow: the object, whose `status` it keeps. template: the WorkflowTemplate that it refers to."""

    def __init__(self, workflow: dict[str, Any], template: Mapping[str, Any], start_pod: StartPod) -> None:
        self.workflow, self._spec, self._start_pod = workflow, template["spec"], start_pod
        self._templates = {found["name"]: found for found in self._spec["templates"]}
        self._failures: list[dict[str, str]] = []
        self.stopped = False
        metadata = workflow["metadata"]
        self._values = {
            "workflow.name": metadata["name"],
            "workflow.namespace": metadata["namespace"],
            "workflow.creationTimestamp": metadata["creationTimestamp"],
        } | _prefixed("workflow.parameters", self._arguments())

    def run(self) -> None:
        """To the end. An error of this harness is one of the Workflow."""
        status = self.workflow["status"] = {"phase": "Running", "startedAt": now(), "finishedAt": None}
        phase = self._phase(self._spec["entrypoint"], self._values)
        after = self._values | {"workflow.status": phase, "workflow.failures": json.dumps(json.dumps(self._failures))}
        if not self.stopped:
            for handler in self._exit_handlers(after):
                phase = max(phase, self._phase(handler, after), key=["Succeeded", "Failed", "Error"].index)
        self.workflow["status"] = {**status, "phase": phase, "finishedAt": now(), "message": self.message}

    @property
    def message(self) -> str:
        return "; ".join(f"{failure['displayName']}: {failure['message']}" for failure in self._failures)

    def _phase(self, template: str, values: Values) -> str:
        try:
            self._run(template, {}, values)
        except Failed:
            return "Failed"
        except Exception as err:  # noqa: BLE001  # of the harness: shown by the one who waits
            self._fail(template, repr(err), "Error")
            return "Error"
        return "Succeeded"

    def _arguments(self) -> Outputs:
        specs = (self._spec, self.workflow["spec"])
        given = [parameter for spec in specs for parameter in spec.get("arguments", {}).get("parameters", [])]
        return {parameter["name"]: parameter["value"] for parameter in given}

    def _exit_handlers(self, values: Values) -> Iterable[str]:
        if self._spec.get("onExit"):
            yield self._spec["onExit"]
        for hook in (self._spec.get("hooks") or {}).values():
            if holds(hook["expression"], values):
                yield hook["template"]

    def _run(self, name: str, inputs: Values, values: Values) -> Outputs:
        """Run a template of any kind; returns its output parameters."""
        template = self._templates[name]
        declared = {parameter["name"] for parameter in template.get("inputs", {}).get("parameters") or []}
        if missing := declared - inputs.keys():
            raise NotMetaflow(f"{name} needs {missing}")
        known = {**self._values, **_of_workflow(values), **_prefixed("inputs.parameters", inputs)}
        if "dag" in template:
            return self._run_dag(template, known)
        if "steps" in template:
            return self._run_steps(template, known)
        return self._run_container(template, known)

    def _run_dag(self, template: Mapping[str, Any], values: Values) -> Outputs:
        tasks = {task["name"]: task for task in template["dag"]["tasks"]}
        order = TopologicalSorter({name: dependencies(task.get("depends", "")) for name, task in tasks.items()})
        futures: dict[str, Future[Outputs]] = {}
        with ThreadPoolExecutor(len(tasks)) as threads:
            for name in order.static_order():
                futures[name] = threads.submit(self._run_task, tasks[name], values, dict(futures))
        known = dict(values)
        for name, future in futures.items():
            known |= _prefixed(f"tasks.{name}.outputs.parameters", future.result())
        outputs = template.get("outputs", {}).get("parameters") or []
        return {output["name"]: substitute(output["valueFrom"]["parameter"], known) for output in outputs}

    def _run_task(self, task: Mapping[str, Any], values: Values, before: Mapping[str, Future[Outputs]]) -> Outputs:
        """Wait for the task's dependencies, then run it: once, or for each item."""
        for name in dependencies(task.get("depends", "")):
            before[name].result()
        done = {name: future.result() for name, future in before.items() if future.done() and not future.exception()}
        known = dict(values)
        for name, outputs in done.items():
            known |= _prefixed(f"tasks.{name}.outputs.parameters", outputs)
        if "withParam" not in task:
            return self._call(task, known)
        items = [i if isinstance(i, str) else json.dumps(i) for i in json.loads(substitute(task["withParam"], known))]
        with ThreadPoolExecutor(max(1, len(items))) as threads:
            found = [*threads.map(lambda item: self._call(task, {**known, "item": item}), items)]
        return {name: json.dumps([outputs[name] for outputs in found]) for name in (found[0] if found else ())}

    def _run_steps(self, template: Mapping[str, Any], values: Values) -> Outputs:
        for group in template["steps"]:
            (step,) = group if isinstance(group, list) else [group]
            self._call(step, values)
        return {}

    def _call(self, task: Mapping[str, Any], values: Values) -> Outputs:
        """Run the template of a task or a step, unless its condition says no."""
        if task.get("when") and not holds(substitute(task["when"], values), {}):
            return {}
        given = task.get("arguments", {}).get("parameters") or []
        return self._run(task["template"], {p["name"]: substitute(p["value"], values) for p in given}, values)

    def _run_container(self, template: Mapping[str, Any], values: Values) -> Outputs:
        """A pod, and another one for each failure that the template allows. Argo's pauses between them are left out."""
        retry = template.get("retryStrategy") or {"limit": 0, "retryPolicy": "Always"}
        if retry["retryPolicy"] != "Always":
            raise NotMetaflow(str(retry))
        for attempt in range(int(retry["limit"]) + 1):
            if self.stopped:
                raise Failed
            retries = {"retries": str(attempt)} if "retryStrategy" in template else {}
            try:
                return self._start_pod(template["name"], attempt, template, {**values, **retries})
            except PodFailed as err:
                self._fail(template["name"], str(err), "Failed")
        if retry["limit"]:
            self._fail(template["name"], "No more retries left", "Failed")
        raise Failed

    def _fail(self, template: str, message: str, phase: str) -> None:
        failure = {"displayName": template, "templateName": template, "message": message, "phase": phase}
        self._failures.append({**failure, "finishedAt": now()})


def now() -> str:
    return datetime.now(UTC).strftime(TIME)


def _prefixed(prefix: str, values: Values) -> Outputs:
    return {f"{prefix}.{name}": value for name, value in values.items()}


def _of_workflow(values: Values) -> Outputs:
    """What all templates know; inputs and outputs are known to the one that has them."""
    return {name: value for name, value in values.items() if name.startswith("workflow.")}
