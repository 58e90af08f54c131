"""Metaflow's metadata service in memory: flows, runs, steps, tasks, artifacts and metadata by their paths."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from threading import RLock
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.production.http_server import serving

VERSION = {"METADATA_SERVICE_VERSION": "2.5.0", "Content-Type": "application/json"}
PONG = b"pong"
# What a POST to the last word of a path makes, and the field that holds its id.
KINDS = {"run": "run_number", "step": "step_name", "task": "task_id"}
ATTEMPT = re.compile(r"(?P<of>.+?)/attempt/(?P<attempt>\d+)(?P<rest>/artifacts)?")
Object = dict[str, Any]


class MetadataService:
    """objects: by path, such as `/flows/F/runs/1/steps/start`. artifacts: by the path of their task, all attempts'."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.artifacts: dict[str, list[Object]] = defaultdict(list)
        self.metadata: dict[str, list[Object]] = defaultdict(list)
        self._lock, self._ids = RLock(), count(1)

    @contextmanager
    def serving(self) -> Iterator[str]:
        """The URL for METAFLOW_SERVICE_URL."""
        with serving(self._answer) as url:
            yield url

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        if path.endswith("/ping"):
            return 200, VERSION, PONG
        with self._lock:
            status, found = self.ask(method, path, json.loads(body or b"null"))
        return status, VERSION, json.dumps(found).encode()

    def ask(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """HTTP status and what there is, or what was made."""
        address = urlsplit(path)
        parent, _, word = address.path.rpartition("/")
        if method == "GET":
            return self._find(address.path, parse_qs(address.query))
        if word == "heartbeat":
            return 200, json.dumps({"wait_time_in_seconds": 10})
        if word in ("artifact", "metadata"):
            (self.artifacts if word == "artifact" else self.metadata)[parent].extend(body)
            return 200, body
        if word == "mutate":
            return self._mutate(self.objects[parent.removesuffix("/tag")], body)
        return self._create(address.path, body)

    def _create(self, path: str, body: Object) -> tuple[int, Object]:
        parent, _, kind = path.rpartition("/")
        if kind in KINDS:
            body.setdefault(KINDS[kind], next(self._ids))
            # A step's own name stands in the path already.
            path = parent if kind == "step" else f"{parent}/{kind}s/{body[KINDS[kind]]}"
        if path in self.objects:
            return 409, {"message": f"{path} is there already"}
        self.objects[path] = body | _owner(path)
        return 200, self.objects[path]

    def _mutate(self, run: Object, body: Object) -> tuple[int, Object]:
        tags = {*run["tags"], *body["tags_to_add"]} - {*body["tags_to_remove"]}
        run["tags"] = sorted(tags)
        return 200, {"tags": run["tags"]}

    def _find(self, path: str, query: Mapping[str, list[str]]) -> tuple[int, Any]:
        parent, _, word = path.rpartition("/")
        if path in self.objects:
            return 200, self.objects[path]
        if word == "filtered_tasks":
            return 200, self._filtered(parent, query)
        if word == "metadata":
            return 200, self.metadata[parent]
        if attempt := ATTEMPT.fullmatch(path):
            return self._artifacts(attempt["of"] + (attempt["rest"] or ""), int(attempt["attempt"]))
        if "/artifacts" in path:
            return self._artifacts(path, None)
        if word in ("flows", "runs", "steps", "tasks"):
            children = re.compile(re.escape(path) + "/[^/]+")
            return 200, [found for key, found in self.objects.items() if children.fullmatch(key)]
        return 404, {"message": f"{path} is not there"}

    def _artifacts(self, path: str, attempt: int | None) -> tuple[int, Any]:
        """Those of an attempt, by default of the last one; of one task, or of all of a step or a run."""
        parent, _, name = path.partition("/artifacts")
        below = [made for task, made in self.artifacts.items() if f"{task}/".startswith(f"{parent}/")]
        found = [artifact for made in below for artifact in _of(made, attempt)]
        if not name:
            return 200, found
        one = [artifact for artifact in found if artifact["name"] == name.strip("/")]
        return (200, one[0]) if one else (404, {"message": f"{path} is not there"})

    def _filtered(self, step: str, query: Mapping[str, list[str]]) -> list[str]:
        """Pathspecs of the tasks whose metadata has a field that matches."""
        (field,), (pattern,) = query.get("metadata_field_name", [""]), query.get("pattern", [""])
        tasks = [task for task in self.objects if task.startswith(f"{step}/tasks/")]
        return [
            "/".join(task.split("/")[2::2])
            for task in tasks
            if any(
                datum["field_name"] in (field, field or datum["field_name"]) and re.search(pattern, datum["value"])
                for datum in self.metadata[task]
            )
        ]


def _owner(path: str) -> Object:
    """The ids that a path names, which the service adds to what it keeps."""
    words = path.strip("/").split("/")
    fields = {"flows": "flow_id", "runs": "run_number", "steps": "step_name", "tasks": "task_id"}
    return {fields[kind]: name for kind, name in zip(words[::2], words[1::2], strict=True)}


def _of(artifacts: list[Object], attempt: int | None) -> list[Object]:
    last = max((artifact["attempt_id"] for artifact in artifacts), default=0)
    return [artifact for artifact in artifacts if artifact["attempt_id"] == (last if attempt is None else attempt)]
