"""Kubernetes' API for custom objects, in memory: what Metaflow creates, reads and deletes of Argo's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import RLock, Thread
from typing import Any
from uuid import uuid4

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
    """The objects by namespace, plural and name, and every change that was asked for, such as `POST sensors/x`."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.changes: list[str] = []
        self.url = ""
        self._lock, self._versions = RLock(), count(1)

    def all(self, plural: str) -> list[dict[str, Any]]:
        return [found for (_, kind, _), found in self.objects.items() if kind == plural]

    def forget(self, plural: str) -> None:
        """As if somebody had deleted all objects of a kind by hand."""
        self.objects = {key: found for key, found in self.objects.items() if key[1] != plural}

    @contextmanager
    def serving(self, folder: Path) -> Iterator[Path]:
        """Serve in a thread; yields the KUBECONFIG that leads here."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, daemon=True).start()
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(KUBECONFIG.format(url=self.url))
        try:
            yield kubeconfig
        finally:
            server.shutdown()
            server.server_close()

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """HTTP status and body, by the rules of Kubernetes."""
        found = PATH.match(path)
        if not found:
            return _failed(404, f"no such path: {path}")
        namespace, plural, name = found["namespace"], found["plural"], found["name"]
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
            if method == "DELETE":
                del self.objects[namespace, plural, name]
                return 200, {"kind": "Status", "status": "Success"}
            return 200, self.objects[namespace, plural, name]

    def _create(self, namespace: str, plural: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        metadata = body["metadata"]
        name = metadata.get("name") or f"{metadata['generateName']}{uuid4().hex[:5]}"
        if (namespace, plural, name) in self.objects:
            return _failed(409, f'{plural}.argoproj.io "{name}" already exists')
        metadata |= {"name": name, "namespace": namespace, "uid": str(uuid4())}
        return 201, self._keep((namespace, plural, name), body)

    def _replace(self, key: tuple[str, str, str], body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        old = self.objects[key]["metadata"]
        if body["metadata"].get("resourceVersion") != old["resourceVersion"]:
            return _failed(409, "the object has been modified; apply your changes to the latest version")
        body["metadata"] |= {"namespace": key[0], "uid": old["uid"]}
        return 200, self._keep(key, body)

    def _keep(self, key: tuple[str, str, str], body: dict[str, Any]) -> dict[str, Any]:
        body["metadata"]["resourceVersion"] = str(next(self._versions))
        self.objects[key] = body
        return body


def _failed(code: int, message: str) -> tuple[int, dict[str, Any]]:
    return code, {"kind": "Status", "status": "Failure", "code": code, "message": message}


def _handler(api: KubernetesAPI) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, body = api.answer(self.command, self.path, json.loads(raw or "{}"))
            answer = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = do_DELETE = do

        def log_message(self, *_: object) -> None:
            pass

    return Handler
