"""Cores and threads: workers × threads never exceed the cores of the machine."""

from __future__ import annotations

import os
import sys
from typing import Literal

from shared.settings import settings

_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def cores() -> int:
    """Cores for this process: `EVERTUNE_CORES`, else those that affinity and cgroup limits leave."""
    if (given := settings().cores) is not None:
        return given
    import joblib  # type: ignore[import-untyped]  # no types published

    return int(joblib.cpu_count())


def workers(wanted: Literal["auto"] | int, available: int | None = None) -> int:
    """Workers on one machine: a worker per core, or as many as wanted, but never more than there are cores."""
    available = available or cores()
    return available if wanted == "auto" else min(wanted, available)


def share(n_workers: int, available: int | None = None) -> int:
    """Threads for each of `n_workers` on one machine's cores."""
    return max(1, (available or cores()) // n_workers)


def limit(threads: int) -> None:
    """Keep this process to so many threads: libraries that are loaded already, and those that will be.

    Call it before the first fit, best before BLAS, XGBoost and torch are loaded, which read the environment then.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # no types published

    os.environ.update(dict.fromkeys(_VARIABLES, str(threads)))
    threadpool_limits(threads)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
