"""What a config's compute table comes to as decorators of Metaflow."""

from __future__ import annotations

import sys

import pytest

from shared.config import ComputeConfig
from shared.flow.compute import decorators, on_cluster


def test_a_heavy_step_gets_all_and_a_light_one_neither_cores_nor_a_gpu():
    config = ComputeConfig(cpu=4, memory_mib=1000, gpu=1, secrets=("db",), compute_pool="gpus", image="evertune:1")

    heavy, light = (decorators(config, heavy=heavy)["kubernetes"] for heavy in (True, False))

    assert heavy == {
        "cpu": "4",
        "memory": "1049",
        "gpu": 1,
        "image": "evertune:1",
        "compute_pool": "gpus",
        "secrets": ["db"],
    }
    assert light == heavy | {"cpu": "1", "gpu": None}


@pytest.mark.parametrize(("cpu", "cores"), [(0.5, "1"), (1, "1"), (2.5, "2"), (8, "8")])
def test_a_pod_counts_the_whole_cores_that_it_asks_for(cpu, cores):
    assert decorators(ComputeConfig(cpu=cpu), heavy=True)["environment"] == {"vars": {"EVERTUNE_CORES": cores}}


def test_no_retries_is_no_decorator():
    assert "retry" not in decorators(ComputeConfig(retries=0), heavy=True)


@pytest.mark.parametrize(
    ("command", "runtime", "expected"),
    [
        (["flow.py", "run"], None, False),
        (["flow.py", "step", "tune"], None, False),
        (["flow.py", "step", "tune"], "kubernetes", True),  # in the pod
        (["flow.py", "--production", "argo-workflows", "create"], None, True),
        (["flow.py", "run", "--with", "kubernetes"], None, True),
        (["flow.py", "kubernetes", "step", "tune"], None, True),  # beside the pod
    ],
)
def test_steps_are_decorated_where_pods_are_described_started_or_are_this_process(
    monkeypatch: pytest.MonkeyPatch, command, runtime, expected
):
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.delenv("METAFLOW_RUNTIME_ENVIRONMENT", raising=False)
    if runtime:
        monkeypatch.setenv("METAFLOW_RUNTIME_ENVIRONMENT", runtime)

    assert on_cluster() is expected
