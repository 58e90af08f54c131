"""The files of Metaflow's runs on this machine: `<datastore>/.metaflow/<flow>/<run>`, and the artifacts they share.

Metaflow has no call that deletes a run. Where its datastore is a bucket, a lifecycle rule of the bucket ends them.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from shared.flow.retention import RunFiles

# A task that began longer ago without an end has died; a run in which nothing happened for so long has ended.
ALIVE, QUIET = timedelta(days=1), timedelta(minutes=10)


def find(root: Path, tag: str, now: datetime) -> list[RunFiles]:
    """The runs that have the tag, of whatever flow."""
    return [
        RunFiles(flow.name, folder.name, _finished(folder, now))
        for flow in sorted(root.glob("*"))
        for folder in _runs(flow)
        if tag in _tags(folder)
    ]


def delete(root: Path, runs: Iterable[RunFiles], now: datetime) -> None:
    """Delete runs, their cards, and the artifacts that no other run of their flow refers to.

    Artifacts stay while a run of the flow is running: it may be about to refer to one that is there already.
    """
    by_flow = defaultdict(list)
    for run in runs:
        by_flow[root / run.flow].append(root / run.flow / run.id)
    for flow, doomed in by_flow.items():
        if all(_finished(folder, now) for folder in _runs(flow)):
            _delete_artifacts(flow, doomed)
        for folder in doomed:
            shutil.rmtree(root / "mf.cards" / flow.name / "runs" / folder.name, ignore_errors=True)
            shutil.rmtree(folder)


def _delete_artifacts(flow: Path, doomed: Collection[Path]) -> None:
    """Delete what only these runs refer to."""
    kept = {sha for folder in _runs(flow) if folder not in doomed for sha in _artifacts(folder)}
    for sha in {sha for folder in doomed for sha in _artifacts(folder)} - kept:
        for name in (sha, f"{sha}_meta"):
            (flow / "data" / sha[:2] / name).unlink(missing_ok=True)


def _runs(flow: Path) -> list[Path]:
    return sorted(path.parent.parent for path in flow.glob("*/_meta/_self.json"))


def _tags(run: Path) -> list[str]:
    found = json.loads((run / "_meta" / "_self.json").read_text(encoding="utf-8"))
    return [*found["tags"], *found["system_tags"]]


def _artifacts(run: Path) -> Iterator[str]:
    """Names of the files, in the `data` of its flow, that the tasks of a run refer to."""
    for path in run.glob("*/*/*.data.json"):
        yield from json.loads(path.read_text(encoding="utf-8"))["objects"].values()


def _finished(run: Path, now: datetime) -> datetime | None:
    """When a run ended; None where it is running."""
    last = max(_time(path) for path in run.glob("**/*"))
    begun = {_attempt(path): _time(path) for path in run.glob("*/*/*.attempt.json")}
    ended = {_attempt(path) for path in run.glob("*/*/*.DONE.lock")}
    running = any(now - began < ALIVE for attempt, began in begun.items() if attempt not in ended)
    return None if running or now - last < QUIET else last


def _attempt(path: Path) -> tuple[Path, str]:
    return path.parent, path.name.split(".")[0]


def _time(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
