"""What goes into the record of a model version, collected where the model is made."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.domain import TrialSummary
from shared.flow.plan import Plan
from shared.registry import lineage
from shared.settings import project_root
from shared.storage.ledger import Ledger, LedgerEntry

if TYPE_CHECKING:
    from shared.tuning.objective import Objective


def origin(plan: Plan, best: TrialSummary, run: str) -> dict[str, Any]:
    """All that this run makes a model version of, from the best trial of the plan's study."""
    prepared = Ledger().dataset_run(plan.data)
    return lineage.origin(
        use_case=plan.use_case,
        dataset=plan.data,
        study=plan.study,
        trial=best,
        objective=_source(plan.objective) if plan.objective else {},
        upstream={member: _upstream(entry) for member, entry in plan.upstream.items()},
        runs={"made": run, **({"prepared": prepared} if prepared else {})},
        threads={"model": plan.threads, "folds": plan.threads_per_fold},
        environment=environment(),
    )


def environment() -> dict[str, Any]:
    """What a model depends on beside its data and its code: packages, Python, the type of processor.

    lock: SHA-256 of the project's uv.lock; a pod has none, and is known by its packages.
    """
    lock = project_root() / "uv.lock"
    return {
        "commit": lineage.git_commit(),
        "lock": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else "",
        "packages": _packages(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
    }


def changes(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In what an environment differs from the recorded one, a sentence each."""
    versions = lineage.differing(recorded.get("packages", {}), now["packages"])
    packages = [
        f"{name} was {before or 'not installed'}, and is {after or 'not installed'} now"
        for name, (before, after) in versions.items()
    ]
    others = [key for key in ("commit", "lock", "python", "platform", "cpu") if recorded.get(key) != now[key]]
    return [
        f"{key} was {recorded.get(key) or 'unknown'}, and is {now[key] or 'unknown'} now" for key in others
    ] + packages


def _packages() -> dict[str, str]:
    """Versions by normalised name (PEP 503); of what is there twice, the first, which is the one that is imported."""
    found: dict[str, str] = {}
    for distribution in distributions():
        whole = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO")  # pip leaves parts behind
        if whole and (name := distribution.metadata["Name"]):
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return dict(sorted(found.items()))


def _source(objective: Objective) -> dict[str, str]:
    return {"hash": objective.hash, "label": objective.label}


def _upstream(entry: LedgerEntry) -> dict[str, Any]:
    outcome = entry.outcome
    return {
        "study": entry.study,
        "run": entry.run,
        "model": outcome.get("model"),
        "version": outcome.get("version"),
        "trial": outcome["trial"],
        "objective": {"hash": outcome["objective_hash"], "label": outcome["objective"]},
    }


def _cpu() -> str:
    """Its model as Linux says, else what Python knows; kernels of BLAS and torch are chosen by it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(named, platform.processor() or 'unknown')} ({platform.machine()})"
