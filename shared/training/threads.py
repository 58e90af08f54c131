"""Workers and threads: on one machine their product never exceeds the cores; on a cluster each worker is alone."""

from __future__ import annotations

import os
import sys
from typing import Literal

from shared.settings import settings

TRIALS_PER_POD, MOST_PODS = 8, 8
_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def cores() -> int:
    """Cores for this process: `EVERTUNE_CORES`, else those that affinity and cgroup limits leave."""
    if (given := settings().cores) is not None:
        return given
    import joblib  # type: ignore[import-untyped]  # no types published

    return int(joblib.cpu_count())


def workers(wanted: Literal["auto"] | int, n_trials: int) -> int:
    """Workers for a budget of `n_trials`, never more than trials.

    On one machine one per core, or as many as wanted, but never more than there are cores. On a cluster, where each
    is a pod of its own, as many as wanted; `auto` has one for each 8 trials, at most 8, so that a trial is suggested
    with most of the earlier ones known.
    """
    if settings().remote:
        return min(pods(n_trials) if wanted == "auto" else wanted, n_trials)
    return min(on_machine(wanted, cores()), n_trials)


def on_machine(wanted: Literal["auto"] | int, available: int) -> int:
    """Workers that share `available` cores."""
    return available if wanted == "auto" else min(wanted, available)


def pods(n_trials: int) -> int:
    """Workers that `auto` stands for on a cluster."""
    return min(MOST_PODS, -(-n_trials // TRIALS_PER_POD))


def share(n_workers: int, available: int | None = None) -> int:
    """Threads for each of `n_workers`: its share of one machine's cores, or all of its pod's."""
    available = available or cores()
    return available if settings().remote else max(1, available // n_workers)


def limit(threads: int) -> None:
    """Keep this process to so many threads: libraries that are loaded already, and those that will be.

    Call it before the first fit, best before BLAS, XGBoost and torch are loaded, which read the environment then.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # no types published

    os.environ.update(dict.fromkeys(_VARIABLES, str(threads)))
    threadpool_limits(threads)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
