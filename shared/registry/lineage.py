"""Where a model version comes from, as the tags that the registry keeps."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache

from shared.settings import project_root

PREFIX = "evertune."


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
    return {key.removeprefix(PREFIX): value for key, value in tags.items() if key.startswith(PREFIX)}


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=project_root(), capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
