"""What the server says of itself: a model's card, and OpenAPI of what is live, with its input example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic_core import from_json

from deployments.model_server.answers import ARROW, CSV, JSON
from deployments.model_server.live import LiveModel, Served
from deployments.model_server.rows import BOOLEAN, NUMBER, TEXT, TIME

VALUES: dict[Any, dict[str, Any]] = {
    NUMBER: {"type": ["number", "null"]},
    BOOLEAN: {"type": "boolean"},
    TEXT: {"type": ["string", "null"]},
    TIME: {"type": ["string", "null"], "format": "date-time"},
}
VERSION = {"type": "integer"}
ERRORS = {
    "400": "rows that break a rule; it says where, and which",
    "401": "no known token",
    "408": "the body doesn't come",
    "413": "the body is too long",
    "415": "a body of another type",
    "422": "rows that break a rule; it says where, and which",
    "429": "too many requests at a time",
    "503": "no version is live",
}


def model_card(use_case: str, served: Served) -> dict[str, Any]:
    version = served.version
    return {
        "use_case": use_case,
        "version": version.version,
        "uri": version.uri,
        "created_at": version.created_at,
        "lineage": dict(version.lineage),
        "metrics": dict(version.metrics),
        "members": [member.name for member in served.system.members],
        "classes": list(served.system.signature.classes),
        "columns": {name: kind.words for name, kind in served.columns.kinds.items()},
        "example": example(served),
    }


def example(served: Served) -> dict[str, Any]:
    """The input example as a body of `/predict`."""
    split: dict[str, Any] = from_json(served.example.to_json(orient="split", date_format="iso", double_precision=15))
    return {"columns": split["columns"], "rows": split["data"]}


def describe(app: FastAPI, models: Sequence[LiveModel], has_tokens: bool) -> dict[str, Any]:
    """OpenAPI of the moment: another version may have another example."""
    said = get_openapi(title=app.title, version="1", routes=app.routes)
    by_name = {live.name: live.served for live in models}
    for path, operations in said["paths"].items():
        for operation in operations.values():
            served = by_name.get(operation["tags"][0])
            if "post" in operations:
                endpoint = path.rpartition("/")[2]
                is_mlflow = endpoint == "invocations"
                operation["requestBody"] = _body(served, is_mlflow)
                operation["responses"] = _answers(served, endpoint) | _errors(is_mlflow)
    if has_tokens:
        said.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        said["security"] = [{"token": []}]
    return said


def _answers(served: Served | None, endpoint: str) -> dict[str, dict[str, Any]]:
    """All but the errors: of a regression no probabilities."""
    if served is None:
        return _ok({})
    classes = served.system.signature.classes
    schemas = _of_classes(classes) if classes else _of_values()
    return _ok(schemas[endpoint]) if endpoint in schemas else {}


def _ok(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"200": {"description": "predictions", "content": {JSON: {"schema": schema}}}}


def _of_classes(classes: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Schemas of a classification's answers, by endpoint."""
    labels, names = _array({"enum": list(classes)}), [str(label) for label in classes]
    row = _array(VALUES[NUMBER]) | {"minItems": len(classes), "maxItems": len(classes)}
    by_name = _object(dict.fromkeys(names, VALUES[NUMBER]), required=names)
    return {
        "predict": _answer(version=VERSION, predictions=labels),
        "predict_proba": _answer(version=VERSION, classes={"const": list(classes)}, probabilities=_array(row)),
        "invocations": {"anyOf": [_answer(predictions=labels), _answer(predictions=_array(by_name))]},
    }


def _of_values() -> dict[str, dict[str, Any]]:
    """Schemas of a regression's answers, by endpoint."""
    values = _array(VALUES[NUMBER])
    return {"predict": _answer(version=VERSION, predictions=values), "invocations": _answer(predictions=values)}


def _answer(**properties: dict[str, Any]) -> dict[str, Any]:
    return _object(properties, required=list(properties))


def _errors(is_mlflow: bool) -> dict[str, dict[str, str]]:
    """MLflow's clients know 400 for rows that break a rule."""
    unused = "422" if is_mlflow else "400"
    return {status: {"description": why} for status, why in ERRORS.items() if status != unused}


def _body(served: Served | None, is_mlflow: bool) -> dict[str, Any]:
    if is_mlflow:
        return {"required": True, "content": {JSON: _invocation(served), CSV: {"schema": {"type": "string"}}}}
    raw = {"schema": {"type": "string", "format": "binary"}}
    return {"required": True, "content": {JSON: _rows(served), CSV: {"schema": {"type": "string"}}, ARROW: raw}}


def _rows(served: Served | None) -> dict[str, Any]:
    if served is None:
        return {"schema": {}}
    table = _object({"columns": {"const": list(served.columns.kinds)}, "rows": _table(served)}, required=["rows"])
    return {"schema": {"anyOf": [table, _records(served)]}, "example": example(served)}


def _invocation(served: Served | None) -> dict[str, Any]:
    if served is None:
        return {"schema": {}}
    split = example(served)
    names, rows, records = {"const": split["columns"]}, _table(served), _records(served)
    forms = {
        "dataframe_split": _object({"columns": names, "data": rows}, required=["columns", "data"]),
        "dataframe_records": records,
        "instances": {"anyOf": [rows, records]},
        "inputs": {"anyOf": [rows, records]},
    }
    return {
        "schema": {"anyOf": [_object({form: content}, required=[form]) for form, content in forms.items()]},
        "example": {"dataframe_split": {"columns": split["columns"], "data": split["rows"]}},
    }


def _table(served: Served) -> dict[str, Any]:
    """A list a row."""
    kinds = served.columns.kinds.values()
    row = {"type": "array", "prefixItems": [VALUES[kind] for kind in kinds], "minItems": len(kinds), "items": False}
    return _array(row)


def _records(served: Served) -> dict[str, Any]:
    """An object a row."""
    kinds = served.columns.kinds
    record = _object({name: VALUES[kind] for name, kind in kinds.items()}, required=list(kinds))
    return _array(record)


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
