"""Versions and aliases by the REST API of an MLflow server, without the seconds of importing MLflow.

It knows the credentials that most servers ask for: `MLFLOW_TRACKING_USERNAME` and `_PASSWORD`, `MLFLOW_TRACKING_TOKEN`,
or those in the server's address. Every function raises ServiceError where that isn't enough to have an answer.
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from shared.errors import RegistryError, ServiceError
from shared.storage import services
from shared.storage.mlflow_tables import Registered

TIMEOUT_S = 10
MODELS, VERSIONS = "registered-models", "model-versions"


def aliases(name: str) -> dict[str, int]:
    """Version by alias; empty where there is no such model."""
    found = _get(f"{MODELS}/get", "registered_model", name=name)
    entries = found.get("aliases", []) if found else []
    return {entry["alias"]: int(entry["version"]) for entry in entries}


def registered(name: str, version: int) -> Registered | None:
    """A version; None: there is none, or none any more."""
    which = {"name": name, "version": str(version)}
    found = _get(f"{VERSIONS}/get", "model_version", **which)
    uri = _get(f"{VERSIONS}/get-download-uri", "artifact_uri", **which) if found else None
    if not found or not uri:
        return None
    tags = {tag["key"]: tag["value"] for tag in found.get("tags", [])}
    metrics = _metrics(found["run_id"]) if found.get("run_id") else {}
    return Registered(int(found["creation_timestamp"]), uri, tags, found.get("aliases", []), metrics)


def _metrics(run_id: str) -> dict[str, float]:
    found = _get("runs/get", "run", run_id=run_id)
    metrics = found["data"].get("metrics", []) if found else []
    return {metric["key"]: float(metric["value"]) for metric in metrics}  # what isn't finite is a text


def set_alias(name: str, alias: str, version: int) -> None:
    """Let an alias stand at a version.

    Raises:
        RegistryError: there is no such version.
    """
    if _ask("POST", f"{MODELS}/alias", name=name, alias=alias, version=str(version)) is None:
        raise RegistryError(f"can't set {name}@{alias}: the registry has no version {version} of {name}")


def delete_alias(name: str, alias: str) -> None:
    """Take an alias away; nothing happens where it stands at no version."""
    _ask("DELETE", f"{MODELS}/alias", name=name, alias=alias)


def _get(path: str, key: str, **values: str) -> Any:
    """What the server's answer has at a key; None: there is no such thing."""
    if (answer := _ask("GET", path, **values)) is None:
        return None
    if key not in answer:
        raise ServiceError(f"MLflow's server must answer with a {key}, but doesn't: is it MLflow's?")
    return answer[key]


def _ask(method: str, path: str, **values: str) -> dict[str, Any] | None:
    """The server's answer; None: there is no such thing."""
    parts = urlsplit(services.mlflow_tracking_uri())
    query, body = (f"?{urlencode(values)}", None) if method == "GET" else ("", json.dumps(values).encode())
    root = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    headers = {"Content-Type": "application/json", **_credentials(parts.username, parts.password)}
    request = Request(f"{root}/api/2.0/mlflow/{quote(path)}{query}", body, headers, method=method)
    try:
        with build_opener(_Stay).open(request, timeout=TIMEOUT_S) as answer:
            found = json.load(answer)
            if not isinstance(found, dict):
                raise ValueError(f"it must be an object, but is {type(found)}")
            return found
    except HTTPError as err:
        if err.code == 404 and _says_absent(err):
            return None
        raise ServiceError(f"MLflow's server answers {err.code}") from None
    except (OSError, ValueError, HTTPException) as err:
        raise ServiceError(f"MLflow's server doesn't answer as one ({type(err).__name__})") from None


class _Stay(HTTPRedirectHandler):
    """No way to another address: it would be told the credentials, and a write would become a read."""

    def redirect_request(self, *_: object) -> None:
        return None


def _says_absent(err: HTTPError) -> bool:
    """Whether it is MLflow that says so, and not a proxy."""
    try:
        return bool(json.load(err)["error_code"] == "RESOURCE_DOES_NOT_EXIST")
    except (OSError, ValueError, KeyError, TypeError, HTTPException):
        return False


def _credentials(user: str | None, password: str | None) -> dict[str, str]:
    """The header by which MLflow's client would prove who it is. Those of the address come first, as with it."""
    user = unquote(user) if user else os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = unquote(password) if password else os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if user and password:
        return {"Authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}
