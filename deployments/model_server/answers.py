"""From a request's body to the answer's, in a thread of its own: read the rows, predict, write JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from pydantic_core import to_json

from deployments.model_server import mlflow_forms
from deployments.model_server.live import Served
from deployments.model_server.rows import Columns, InvalidRowsError

JSON, CSV, ARROW = "application/json", "text/csv", "application/vnd.apache.arrow.stream"

READERS: dict[str, Callable[[Columns, bytes], pd.DataFrame]] = {
    JSON: Columns.from_json,
    CSV: Columns.from_csv,
    ARROW: Columns.from_arrow,
}

Answer = Callable[[Served, str, bytes], bytes]


class UnknownTypeError(ValueError):
    """A body is of a type that the endpoint doesn't read."""


def predict(served: Served, content_type: str, body: bytes) -> bytes:
    """Labels, or a regression's values.

    Raises:
        InvalidRowsError: the rows break a rule, or the model refuses them.
        UnknownTypeError: the body is of another type.
    """
    found = _predicted(served.system.predict, _read(served, content_type, body))
    return _json({"version": served.version.version, "predictions": found.tolist()})


def predict_proba(served: Served, content_type: str, body: bytes) -> bytes:
    """A probability for each class; raises as `predict` does."""
    found = _predicted(served.system.predict_proba, _read(served, content_type, body))
    classes = served.system.signature.classes
    return _json({"version": served.version.version, "classes": classes, "probabilities": found.tolist()})


def invocations(served: Served, content_type: str, body: bytes) -> bytes:
    """What MLflow's scoring server answers; raises as `predict` does."""
    if content_type not in (JSON, CSV):
        raise UnknownTypeError(f"the body must be {JSON} or {CSV}, but is {content_type}")
    frame, output = mlflow_forms.read(served.columns, content_type == CSV, body)
    if output == "label":
        return _json({"predictions": _predicted(served.system.predict, frame).tolist()})
    proba = _predicted(served.system.predict_proba, frame).tolist()
    names = [str(label) for label in served.system.signature.classes]
    return _json({"predictions": [dict(zip(names, row, strict=True)) for row in proba]})


def _read(served: Served, content_type: str, body: bytes) -> pd.DataFrame:
    if content_type not in READERS:
        raise UnknownTypeError(f"the body must be {', '.join(READERS)}, but is {content_type}; set Content-Type")
    return READERS[content_type](served.columns, body)


def _predicted(predict: Callable[[pd.DataFrame], np.ndarray], frame: pd.DataFrame) -> np.ndarray:
    """The model has predicted its example: what it can't predict now is up to the rows."""
    try:
        return predict(frame)
    except (ValueError, TypeError) as err:
        raise InvalidRowsError(f"the model refuses these rows: {str(err).partition(chr(10))[0]}") from err


def _json(content: Any) -> bytes:
    return to_json(content, inf_nan_mode="null")
