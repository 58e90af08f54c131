"""Workers and threads share the cores; a limit reaches libraries that are loaded and those that will be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.settings import settings
from shared.training import threads


@given(wanted=st.just("auto") | st.integers(1, 100), available=st.integers(1, 64))
def test_workers_times_threads_never_exceed_the_cores(wanted, available):
    n_workers = threads.on_machine(wanted, available)

    assert 1 <= n_workers * threads.share(n_workers, available) <= available


def test_workers_and_threads_use_all_cores_where_they_divide():
    assert threads.on_machine("auto", 4) == 4
    assert threads.on_machine(2, 8) == 2
    assert threads.share(2, 8) == 4


@pytest.fixture
def machine(monkeypatch) -> Iterator[Callable[..., None]]:
    """`machine(cores=3, runtime="kubernetes")`: what the environment says of where this process runs."""

    def be(cores: int, runtime: str = "local") -> None:
        monkeypatch.setenv("EVERTUNE_CORES", str(cores))
        monkeypatch.setenv("METAFLOW_RUNTIME_ENVIRONMENT", runtime)
        settings.cache_clear()

    yield be
    settings.cache_clear()


def test_the_environment_says_how_many_cores_there_are(machine):
    machine(cores=3)

    assert threads.cores() == 3
    assert threads.workers("auto", 40) == 3
    assert threads.workers("auto", 2) == 2


@pytest.mark.parametrize(
    ("wanted", "n_trials", "expected"),
    [
        ("auto", 40, 5),  # one for each 8 trials
        ("auto", 20, 3),
        ("auto", 4, 1),
        ("auto", 1000, 8),  # more would suggest without knowing each other's results
        (6, 40, 6),  # as the config says, however small the pods are
        (6, 4, 4),  # but no idle pod
    ],
)
def test_on_a_cluster_each_worker_is_a_pod_with_its_own_cores(machine, wanted, n_trials, expected):
    machine(cores=2, runtime="kubernetes")

    assert threads.workers(wanted, n_trials) == expected
    assert threads.share(expected) == 2


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no processor affinity on this system")
def test_without_it_the_cores_are_those_that_affinity_leaves():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n" + CORES

    assert run(code) == "1"


def test_a_limit_reaches_libraries_that_are_loaded_and_those_that_will_be():
    assert run(LIMIT) == "{1} 1 1"


def test_a_limit_imports_no_torch():
    code = "import sys; from shared.training import threads; threads.limit(1); print('torch' in sys.modules)"

    assert run(code) == "False"


CORES = "from shared.training import threads; print(threads.cores())"
LIMIT = """
import os, numpy, sklearn.linear_model
from shared.training import threads
from threadpoolctl import threadpool_info
threads.limit(2)
threads.limit(1)
import torch
print({pool["num_threads"] for pool in threadpool_info()}, torch.get_num_threads(), os.environ["OMP_NUM_THREADS"])
"""


def run(code: str) -> str:
    env = {k: v for k, v in os.environ.items() if k != "EVERTUNE_CORES" and not k.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()
