"""Deploying and triggering, beside Kubernetes' API and an S3 in memory, rolling back, and an event that comes twice."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.overhead import CASES, config
from benchmarks.report import Table
from benchmarks.sandbox import Sandbox, sandbox
from benchmarks.serving import register
from shared.storage import embedded
from tests.production.conftest import SETTINGS, s3
from tests.production.kubernetes_api import KubernetesAPI

LATER = 5  # calls after the first one in a process
TRIGGER = """
import json, sys, time
from shared import HPORunner

runner, seconds = HPORunner("digits", branch=sys.argv[1], n_trials=3), []
for _ in range(int(sys.argv[2])):
    begin = time.perf_counter()
    runner.trigger()
    seconds.append(time.perf_counter() - begin)
print(json.dumps(seconds))
"""
TASKS = """
import json
from metaflow import Flow, namespace

namespace(None)
tasks = [task for step in Flow("ClassicalHPOFlow").latest_run for task in step]
print(json.dumps({task.pathspec: (task.finished_at - task.created_at).total_seconds() for task in tasks}))
"""


def measure(repeat: int) -> Table:
    """Medians of `repeat` deployments to branches of their own, processes that trigger, and duplicate events."""
    with sandbox() as box:
        duplicates, rollback = duplicate(box, repeat), rolling_back(box, repeat)
        with cluster(box) as there:
            rows = [*deploying(there, repeat), *triggering(there, repeat)]
    return Table(
        "production",
        f"Deploying, triggering, rolling back, and an event that comes twice (medians of {repeat})",
        ("what", "seconds", "goal, s"),
        [*rows, rollback, *duplicates],
        notes=("The cluster is in memory. A task's time is from its creation, before its process starts, to its end.",),
    )


def deploying(box: Sandbox, repeat: int) -> Iterator[tuple[str, float, str]]:
    branches = [("deploy", "--use-case", "digits", "--branch", f"b{i}") for i in range(repeat)]
    for how in ("first", "unchanged"):
        yield f"evertune deploy, four flows, {how}", median(box.evertune(*branch) for branch in branches), "20"


def triggering(box: Sandbox, repeat: int) -> Iterator[tuple[str, float, str]]:
    command = (sys.executable, "-c", TRIGGER, "b0", str(1 + LATER))
    called = [json.loads(box.output(*command)) for _ in range(repeat)]
    yield "trigger(), first call of a process", median(first for first, *_ in called), "1"
    yield "trigger(), later calls", median(seconds for _, *later in called for seconds in later), "1"


def rolling_back(box: Sandbox, repeat: int) -> tuple[str, float, str]:
    """The champion goes back and forth between two versions."""
    register(box, 1)
    box.evertune("models", "promote", "digits", "2", "--yes")
    back = [box.evertune("models", "rollback", "digits", "--to", str(1 + i % 2)) for i in range(repeat)]
    return "evertune models rollback", median(back), "1"


def duplicate(box: Sandbox, repeat: int) -> Sequence[tuple[str, float, str]]:
    """ClassicalHPOFlow once more on a study that is done, as a duplicate event starts it."""
    use_case = str(config(box, CASES[2][2], 2))
    box.flow("data_prep", use_case)
    box.flow("classical_hpo", use_case)
    runs = []
    for _ in range(repeat):
        box.flow("classical_hpo", use_case)
        runs.append(json.loads(box.output(sys.executable, "-c", TASKS)))
    starts = [seconds for run in runs for task, seconds in run.items() if "/start/" in task]
    return [
        ("a duplicate event, all tasks", median(sum(run.values()) for run in runs), "3"),
        ("  of it start, which recognises it", median(starts), "-"),
    ]


@contextmanager
def cluster(box: Sandbox) -> Iterator[Sandbox]:
    """The sandbox beside a cluster in memory, with its own PostgreSQL as the database of the pods."""
    api = KubernetesAPI()
    with TemporaryDirectory() as folder, s3() as store, api.serving(Path(folder)) as kubeconfig:
        embedded.connect(box.home, "evertune").close()
        services = {
            "EVERTUNE_DATABASE_URL": embedded.url(box.home, "evertune"),
            "METAFLOW_S3_ENDPOINT_URL": store,
            "METAFLOW_HOME": folder,
            "KUBECONFIG": str(kubeconfig),
        }
        yield Sandbox(box.home, {**SETTINGS, **services})
