"""Workers and threads share the cores; a limit reaches libraries that are loaded and those that will be."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.settings import settings
from shared.training import threads


@given(wanted=st.just("auto") | st.integers(1, 100), available=st.integers(1, 64))
def test_workers_times_threads_never_exceed_the_cores(wanted, available):
    n_workers = threads.workers(wanted, available)

    assert 1 <= n_workers * threads.share(n_workers, available) <= available


def test_workers_and_threads_use_all_cores_where_they_divide():
    assert threads.workers("auto", 4) == 4
    assert threads.workers(2, 8) == 2
    assert threads.share(2, 8) == 4


def test_the_environment_says_how_many_cores_there_are(monkeypatch):
    monkeypatch.setenv("EVERTUNE_CORES", "3")
    settings.cache_clear()
    try:
        assert threads.cores() == 3
        assert threads.workers("auto") == 3
    finally:
        settings.cache_clear()


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
