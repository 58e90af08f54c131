"""Versions and aliases by the REST API of an MLflow server, without the seconds of importing MLflow.

It knows the credentials that most servers ask for: `MLFLOW_TRACKING_USERNAME` and `_PASSWORD`, `MLFLOW_TRACKING_TOKEN`,
or those in the server's address. Every function raises ServiceError where that isn't enough to have an answer.
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def _understood() -> Iterator[None]:
    """An answer has the shape that MLflow's server gives it.

    Raises:
        ServiceError: it hasn't.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as err:
        raise ServiceError(f"MLflow's server doesn't answer as one ({type(err).__name__})") from None


@_understood()
def aliases(name: str) -> dict[str, int]:
    """Version by alias; empty where there is no such model."""
    found = _ask("GET", f"{MODELS}/get", name=name)
    entries = found["registered_model"].get("aliases", []) if found else []
    return {entry["alias"]: int(entry["version"]) for entry in entries}


@_understood()
def registered(name: str, version: int) -> Registered | None:
    """A version; None: there is none, or none any more."""
    which = {"name": name, "version": str(version)}
    answer = _ask("GET", f"{VERSIONS}/get", **which)
    where = _ask("GET", f"{VERSIONS}/get-download-uri", **which) if answer else None
    if answer is None or where is None:
        return None
    found = answer["model_version"]
    tags = {tag["key"]: tag["value"] for tag in found.get("tags", [])}
    metrics = _metrics(found["run_id"]) if found.get("run_id") else {}
    return Registered(int(found["creation_timestamp"]), where["artifact_uri"], tags, found.get("aliases", []), metrics)


def _metrics(run_id: str) -> dict[str, float]:
    answer = _ask("GET", "runs/get", run_id=run_id)
    found = answer["run"]["data"].get("metrics", []) if answer else []
    return {metric["key"]: float(metric["value"]) for metric in found}  # what isn't finite is a text


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


def _ask(method: str, path: str, **values: str) -> dict[str, Any] | None:
    """The server's answer; None: there is no such thing."""
    parts = urlsplit(services.mlflow_tracking_uri())
    query, body = (f"?{urlencode(values)}", None) if method == "GET" else ("", json.dumps(values).encode())
    root = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    headers = {"Content-Type": "application/json", **_credentials(parts.username, parts.password)}
    request = Request(f"{root}/api/2.0/mlflow/{quote(path)}{query}", body, headers, method=method)
    try:
        with build_opener(_Stay).open(request, timeout=TIMEOUT_S) as answer:
            found: dict[str, Any] = json.load(answer)
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
