"""Kubernetes' API for custom objects, in memory: what Metaflow creates, reads and deletes of Argo's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from threading import RLock
from typing import Any
from uuid import uuid4

from tests.production.http_server import serving

PATH = re.compile(r"/apis/argoproj\.io/v1alpha1/namespaces/(?P<namespace>[^/]+)/(?P<plural>[^/?]+)(/(?P<name>[^/?]+))?")
KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{{name: memory, cluster: {{server: "{url}"}}}}]
users: [{{name: tester, user: {{}}}}]
contexts: [{{name: memory, context: {{cluster: memory, user: tester}}}}]
current-context: memory
"""


class KubernetesAPI:
    """The objects by namespace, plural and name, and every change that was asked for, such as `POST sensors/x`.

    watchers: are called with the method, the plural and the object after each change that leaves one.
    """

    def __init__(self) -> None:
        self.watchers: list[Callable[[str, str, dict[str, Any]], None]] = []
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.changes: list[str] = []
        self.url = ""
        self._lock, self._versions = RLock(), count(1)

    def all(self, plural: str) -> list[dict[str, Any]]:
        with self._lock:
            return [found for (_, kind, _), found in self.objects.items() if kind == plural]

    def forget(self, plural: str) -> None:
        """As if somebody had deleted all objects of a kind by hand."""
        self.objects = {key: found for key, found in self.objects.items() if key[1] != plural}

    @contextmanager
    def serving(self, folder: Path) -> Iterator[Path]:
        """Serve in a thread; yields the KUBECONFIG that leads here."""
        with serving(self._answer) as self.url:
            kubeconfig = folder / "kubeconfig"
            kubeconfig.write_text(KUBECONFIG.format(url=self.url))
            yield kubeconfig

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        status, answer = self.answer(method, path, json.loads(body or b"{}"))
        return status, {"Content-Type": "application/json"}, json.dumps(answer).encode()

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """HTTP status and body, by the rules of Kubernetes."""
        asked = PATH.match(path)
        if not asked:
            return _failed(404, f"no such path: {path}")
        namespace, plural, name = asked["namespace"], asked["plural"], asked["name"]
        with self._lock:
            if method != "GET":
                self.changes.append(f"{method} {plural}/{name or body['metadata'].get('name', '')}")
            if method == "GET" and not name:
                items = [o for (ns, kind, _), o in self.objects.items() if (ns, kind) == (namespace, plural)]
                return 200, {"apiVersion": "argoproj.io/v1alpha1", "kind": "List", "metadata": {}, "items": items}
            if method == "POST":
                return self._create(namespace, plural, body)
            if (namespace, plural, name) not in self.objects:
                return _failed(404, f'{plural}.argoproj.io "{name}" not found')
            if method == "PUT":
                return self._replace((namespace, plural, name), body)
            if method == "PATCH":
                found = self.objects[namespace, plural, name]
                found |= merged(found, body)
                return 200, self._keep("PATCH", (namespace, plural, name), found)
            if method == "DELETE":
                del self.objects[namespace, plural, name]
                return 200, {"kind": "Status", "status": "Success"}
            return 200, self.objects[namespace, plural, name]

    def _create(self, namespace: str, plural: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        metadata = body["metadata"]
        name = metadata.get("name") or f"{metadata['generateName']}{uuid4().hex[:5]}"
        if (namespace, plural, name) in self.objects:
            return _failed(409, f'{plural}.argoproj.io "{name}" already exists')
        created = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        metadata |= {"name": name, "namespace": namespace, "uid": str(uuid4()), "creationTimestamp": created}
        return 201, self._keep("POST", (namespace, plural, name), body)

    def _replace(self, key: tuple[str, str, str], body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        old = self.objects[key]["metadata"]
        if body["metadata"].get("resourceVersion") != old["resourceVersion"]:
            return _failed(409, "the object has been modified; apply your changes to the latest version")
        body["metadata"] |= {"namespace": key[0], "uid": old["uid"]}
        return 200, self._keep("PUT", key, body)

    def _keep(self, method: str, key: tuple[str, str, str], body: dict[str, Any]) -> dict[str, Any]:
        body["metadata"]["resourceVersion"] = str(next(self._versions))
        self.objects[key] = body
        for watcher in self.watchers:
            watcher(method, key[1], body)
        return body


def merged(old: Any, patch: Any) -> Any:
    """A JSON merge patch, applied."""
    if not isinstance(patch, dict) or not isinstance(old, dict):
        return patch
    kept = {key: value for key, value in old.items() if patch.get(key, ...) is not None}
    return kept | {key: merged(old.get(key), value) for key, value in patch.items() if value is not None}


def _failed(code: int, message: str) -> tuple[int, dict[str, Any]]:
    return code, {"kind": "Status", "status": "Failure", "code": code, "message": message}
