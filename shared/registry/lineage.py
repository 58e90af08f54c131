"""Where a model version comes from: in short, as the tags that the registry keeps; in full, as its record does.

The full one, the origin, is enough to train the model once more. It has no secret in it: a config may hold none.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from shared.config import UseCase
from shared.domain import DatasetRef, StudySpec, TrialSummary
from shared.settings import project_root

PREFIX = "evertune."
RESULT = "result"  # tells who looks into MLflow which versions are the results of their studies; the ledger knows it


def lineage(
    *, dataset: str, run: str, study: str = "", trial: int | None = None, upstream: Iterable[str] = ()
) -> dict[str, str]:
    """What a model version was made of, and the git commit of the project; empty facts are left out.

    dataset: fingerprint; run: Metaflow's pathspec `Flow/run_id`; upstream: pathspecs of the runs that fed this one.
    """
    facts = {
        "dataset": dataset,
        "run": run,
        "upstream": ",".join(upstream),
        "study": study,
        "trial": "" if trial is None else str(trial),
        "git_commit": git_commit(),
    }
    return {key: value for key, value in facts.items() if value}


def origin(
    *,
    use_case: UseCase,
    dataset: DatasetRef,
    study: StudySpec,
    trial: TrialSummary,
    objective: Mapping[str, str],
    upstream: Mapping[str, Mapping[str, Any]],
    runs: Mapping[str, str],
    threads: Mapping[str, int],
    environment: Mapping[str, Any],
) -> dict[str, Any]:
    """All that a model version was made of, as values of JSON.

    objective: `hash` and `label` of its source; empty for a system, whose members have theirs in `upstream`: by member
    `study`, `run`, `model`, `version`, `trial` and `objective`. runs: pathspecs, by what they did. threads: that the
    model was fitted with, and each fold. environment: see `shared.flow.origin.environment`.
    """
    return {
        "config": use_case.model_dump(mode="json", exclude_none=True),
        "dataset": dataset.model_dump(mode="json"),
        "study": study.model_dump(mode="json", exclude={"earlier", "warm_starts", "since"}),
        "trial": trial.model_dump(mode="json"),
        "objective": dict(objective),
        "upstream": {member: dict(facts) for member, facts in upstream.items()},
        "runs": dict(runs),
        "threads": dict(threads),
        "environment": dict(environment),
    }


def differing(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """What two mappings don't have in common, by key; what one of them lacks is empty."""
    keys = sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
    return {key: (a.get(key, ""), b.get(key, "")) for key in keys}


def is_known(origin: Mapping[str, Any]) -> bool:
    """Whether a record says what its version was made of; else its files were only trusted, by `trusted_by`."""
    return "study" in origin


@cache
def git_commit() -> str:
    """Commit of the project's checkout, with `-dirty` where files differ from it.

    A pod has no checkout: its commit is the one that the flow was deployed from. `unknown`: neither is known.
    """
    commit = _git("rev-parse", "HEAD")
    if commit:
        dirty = bool(_git("status", "--porcelain", "--untracked-files=no"))
    else:
        packed = json.loads(os.environ.get("METAFLOW_VERSION", "{}"))
        commit, dirty = packed.get("commit_sha") or "unknown", packed.get("has_uncommitted_changes", False)
    return f"{commit}-dirty" if dirty else commit


def to_tags(facts: Mapping[str, str]) -> dict[str, str]:
    return {f"{PREFIX}{key}": str(value) for key, value in facts.items()}


def from_tags(tags: Mapping[str, str]) -> dict[str, str]:
    facts = {key.removeprefix(PREFIX): value for key, value in tags.items() if key.startswith(PREFIX)}
    return {key: value for key, value in facts.items() if key != RESULT}


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=project_root(), capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
