"""A node that runs pods: each container's own command in a process, in a folder of its own and a clean environment."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Any
from uuid import uuid4

from tests.flows.conftest import ROOT
from tests.production.argo_placeholders import substitute

PROCESSES = 2  # at a time; the other pods are pending
BEGINS, ENDS = "the step begins", "the step has ended"  # moments to die at, as are the messages of Evertune's log

# Python runs it at its start. The image has Evertune's packages, but not Evertune: that comes in the code package.
# Left out is what sends logs and heartbeats, two thirds of a pod's CPU time; byte code is kept for the next pod.
SITE = f"""
import atexit, builtins, logging, os, pathlib, signal, sys
from importlib import _bootstrap_external as loader

command = " ".join(sys.orig_argv)
if "metaflow.mflog.save_logs" in command:
    os._exit(0)
if "metaflow.mflog.tee" in command or "sidecar_worker" in command:
    os.execvp("cat", ["cat"])

sys.path[:] = [path for path in sys.path if path != {str(ROOT)!r}]
root, open_, cache_from_source = os.environ["POD_ROOT"], builtins.open, loader.cache_from_source

def open_in_pod(file, *args, **kwargs):
    return open_(f"{{root}}{{file}}" if str(file).startswith("/mnt/") else file, *args, **kwargs)

def cache_of_all_pods(path, *args, **kwargs):
    return cache_from_source(os.fspath(path).replace(root, os.path.dirname(__file__)), *args, **kwargs)

def die_at(moment):
    if moment and moment == os.environ.get("DIE_AT"):
        os.killpg(0, signal.SIGKILL)

class Murderer(logging.LogRecord):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        die_at(self.getMessage())

def end():
    if "shared" in sys.modules:
        with open_(f"{{root}}/imported", "a") as file:
            file.write(sys.modules["shared"].__file__ + "\\n")
    if "step" in sys.orig_argv:
        die_at({ENDS!r})

builtins.open, loader.cache_from_source = open_in_pod, cache_of_all_pods
logging.setLogRecordFactory(Murderer)
atexit.register(end)
if "step" in sys.orig_argv:
    die_at({BEGINS!r})
"""


class PodFailed(Exception):
    """The message is what Argo says of the pod."""


@dataclass
class Pod:
    """One attempt at a container. folder: its log, its home and what stands for its root folder."""

    name: str
    flow: str
    step: str
    attempt: int
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    killed: bool = False

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace") if (self.folder / "log").exists() else ""

    @property
    def exit_status(self) -> int | None:
        """As the shell has it; minus the number of the signal that killed it; None: it runs, or never did."""
        return self.process.returncode if self.process else None

    @property
    def imported(self) -> set[Path]:
        """The files that `shared` was imported from."""
        file = self.folder / "imported"
        return {Path(line) for line in file.read_text().splitlines()} if file.exists() else set()

    def end(self) -> None:
        """End what a container leaves behind when its command exits."""
        with suppress(ProcessLookupError):
            if self.process:
                os.killpg(self.process.pid, signal.SIGKILL)


@dataclass
class Node:
    """secrets: of the cluster, by name. programs: the folder of the image's `python`.

    deaths: the moments at which the next pods of a flow and a step die.
    """

    folder: Path
    secrets: Mapping[str, Mapping[str, str]]
    programs: Path
    deaths: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._slots, self._lock = BoundedSemaphore(PROCESSES), Lock()
        self.site = self.folder / "site" / "sitecustomize.py"
        self.site.parent.mkdir(parents=True)
        self.site.write_text(SITE)

    def run(self, pod: Pod, template: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, str]:
        """Run a template's container to its end; returns its output parameters.

        Raises:
            PodFailed: it can't start, has exited with an error, was killed, or took too long.
        """
        with self._slots:
            self._start(pod, template["container"], values)
            self._wait(pod, template.get("activeDeadlineSeconds"))
        outputs = template.get("outputs", {}).get("parameters") or []
        return {o["name"]: (pod.folder / o["valueFrom"]["path"].lstrip("/")).read_text() for o in outputs}

    def kill(self, pod: Pod) -> None:
        """As `kill -9` of all its processes; one that hasn't started won't, and one that has ended is left alone."""
        with self._lock:
            pod.killed = True
            if pod.exit_status is None:
                pod.end()

    def _start(self, pod: Pod, container: Mapping[str, Any], values: Mapping[str, str]) -> None:
        volumes = [mount["mountPath"] for mount in container.get("volumeMounts") or []]
        for path in ("/home", "/tmp", *volumes):
            (pod.folder / path.lstrip("/")).mkdir(parents=True)
        command = [substitute(own_paths(part, pod.folder, volumes), values) for part in container["command"]]
        with (pod.folder / "log").open("wb") as log, self._lock:
            if pod.killed:
                raise PodFailed("pod deleted")
            try:
                pod.process = subprocess.Popen(
                    command, cwd=pod.folder / "home", env=self._environment(pod, container, values),
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0,
                )  # fmt: skip
            except OSError as err:  # an argument or a variable that is too long
                raise PodFailed(str(err)) from err

    def _wait(self, pod: Pod, deadline_s: float | None) -> None:
        assert pod.process
        try:
            status = pod.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise PodFailed("Pod was active on the node longer than the specified deadline") from None
        finally:
            pod.end()
        if status:
            raise PodFailed(f"Error (exit code {status})")

    def _environment(self, pod: Pod, container: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, str]:
        """The image's, then what the template says: as Kubernetes has it, `env` wins over `envFrom`."""
        image = {
            "PATH": os.pathsep.join([str(self.programs), "/usr/bin", "/bin"]),
            "HOME": str(pod.folder / "home"),
            "PYTHONPATH": str(self.site.parent),
            "POD_ROOT": str(pod.folder),
            "METAFLOW_SKIP_INSTALL_DEPENDENCIES": "1",
            "METAFLOW_S3_WORKER_COUNT": "1",  # a process each
            "DIE_AT": self._death(pod),
        }
        sources = [self.secrets[source["secretRef"]["name"]] for source in container.get("envFrom") or []]
        own = {variable["name"]: _variable(variable, pod, values) for variable in container["env"]}
        return image | {name: value for source in sources for name, value in source.items()} | own

    def _death(self, pod: Pod) -> str:
        moments = self.deaths.get((pod.flow, pod.step))
        return moments.pop(0) if moments else ""


def own_paths(text: str, folder: Path, volumes: Sequence[str]) -> str:
    """A command that keeps to a pod's folder, where it would write to volumes or to the container's /tmp."""
    for path in (*volumes, "/tmp/mf-"):
        text = text.replace(path, f"{folder}{path}")
    return text


def _variable(variable: Mapping[str, Any], pod: Pod, values: Mapping[str, str]) -> str:
    if variable.get("valueFrom"):
        return {
            "metadata.namespace": values["workflow.namespace"],
            "metadata.name": pod.name,
            "metadata.uid": str(uuid4()),
            "spec.serviceAccountName": "default",
            "status.hostIP": "127.0.0.1",
        }[variable["valueFrom"]["fieldRef"]["fieldPath"]]
    return substitute(variable.get("value") or "", values)
