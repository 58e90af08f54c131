"""From requests' bodies to their answers: read the rows, predict those of one version together, write JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pydantic_core import to_json

from deployments.model_server import mlflow_forms
from deployments.model_server.live import Served
from deployments.model_server.rows import Columns, InvalidRowsError
from deployments.model_server.tables import Body

JSON, CSV, ARROW = "application/json", "text/csv", "application/vnd.apache.arrow.stream"

READERS: dict[str, Callable[[Columns, Body], pd.DataFrame]] = {
    JSON: Columns.from_json,
    CSV: Columns.from_csv,
    ARROW: Columns.from_arrow,
}

LARGEST = np.finfo(np.float32).max

Write = Callable[[Served, np.ndarray], Any]


class UnknownTypeError(ValueError):
    """A body is of a type that the endpoint doesn't read."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What a request wants: rows of a version, and their scores written in its way."""

    served: Served
    rows: pd.DataFrame
    write: Write


Read = Callable[[Served, str, Body], Asked]
Question = tuple[Read, Served, str, Body]


def predict(served: Served, content_type: str, body: Body) -> Asked:
    """Labels, or a regression's values.

    Raises:
        InvalidRowsError: the rows break a rule.
        UnknownTypeError: the body is of another type.
    """
    return Asked(served, _rows(served, content_type, body), _labels)


def predict_proba(served: Served, content_type: str, body: Body) -> Asked:
    """A probability for each class; raises as `predict` does."""
    if not served.system.signature.classes:
        raise InvalidRowsError("a regression has no class probabilities; ask /predict")
    return Asked(served, _rows(served, content_type, body), _probabilities)


def invocations(served: Served, content_type: str, body: Body) -> Asked:
    """What MLflow's scoring server answers; raises as `predict` does."""
    if content_type not in (JSON, CSV):
        raise UnknownTypeError(f"the body must be {JSON} or {CSV}, but is {content_type}")
    rows, output = mlflow_forms.read(served.columns, content_type == CSV, body)
    if output == "proba" and not served.system.signature.classes:
        raise InvalidRowsError("a regression has no class probabilities; leave `params.output` out")
    return Asked(served, rows, _mlflow_labels if output == "label" else _mlflow_probabilities)


def read(question: Question) -> Asked | Exception:
    """What a request wants, or why there is no answer: one request's fault is not another's."""
    reader, *asked = question
    found: Asked | Exception = _caught(reader, *asked)
    return found


def answer(found: Sequence[Asked | Exception]) -> list[bytes | Exception]:
    """The answer of each that was read, or why there is none."""
    groups: dict[Served, list[Asked]] = defaultdict(list)
    for one in found:
        if isinstance(one, Asked):
            groups[one.served].append(one)
    answers = {served: iter(_answers(group)) for served, group in groups.items()}
    return [next(answers[one.served]) if isinstance(one, Asked) else one for one in found]


def at_once(asked: Sequence[Asked]) -> list[bytes] | Exception:
    """The answers to requests for one version, in one call; or why there are none, such as that it refuses a row."""
    answers: list[bytes] | Exception = _caught(_together, asked)
    return answers


def _answers(asked: Sequence[Asked]) -> list[bytes | Exception]:
    """Together; in halves, again and again, where the rows of one are refused."""
    answers = at_once(asked)
    if isinstance(answers, list):
        return [*answers]
    half = len(asked) // 2
    return [*_answers(asked[:half]), *_answers(asked[half:])] if half else [answers]


def _together(asked: Sequence[Asked]) -> list[bytes]:
    frames = [one.rows for one in asked]
    scores = _scores(asked[0].served, frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True))
    return [
        to_json(one.write(one.served, part), inf_nan_mode="null")
        for one, part in zip(asked, _parts(scores, frames), strict=True)
    ]


def _scores(served: Served, rows: pd.DataFrame) -> np.ndarray:
    """The model has predicted its example: what it can't predict now is up to the rows."""
    try:
        return served.system.scores(rows)
    except (ValueError, TypeError) as err:
        said = f"the model refuses these rows: {str(err).partition(chr(10))[0]}"
        cells = "; ".join(_suspects(rows))
        raise InvalidRowsError(f"{said} ({cells})" if cells else said) from err


def _suspects(rows: pd.DataFrame) -> Iterator[str]:
    """The first null, and the first number beyond 32 bits: what models refuse most, without telling where it is."""
    for row, name in _first(rows.isna()):
        yield f"row {row}, column {name!r} is null"
    for row, name in _first(rows.select_dtypes("number").abs() > LARGEST):
        yield f"row {row}, column {name!r} is {rows[name].iloc[row]:g}"


def _first(found: pd.DataFrame) -> Iterator[tuple[int, str]]:
    """Row and column of the first cell that is true, if one is."""
    rows = found.any(axis="columns").to_numpy()
    if rows.any():
        row = int(rows.argmax())
        yield row, found.columns[int(found.iloc[row].argmax())]


def _parts(scores: np.ndarray, frames: Sequence[pd.DataFrame]) -> Iterator[np.ndarray]:
    begin = 0
    for frame in frames:
        yield scores[begin : begin + len(frame)]
        begin += len(frame)


def _caught(call: Callable[..., Any], *arguments: Any) -> Any:
    """What it returns, or what it raises."""
    try:
        return call(*arguments)
    except BaseException as err:  # noqa: BLE001 # raised where the request is answered, which else would never be
        is_raised_as_it_is = isinstance(err, Exception) and not isinstance(err, StopIteration)
        return err if is_raised_as_it_is else RuntimeError(repr(err))


def _rows(served: Served, content_type: str, body: Body) -> pd.DataFrame:
    if content_type not in READERS:
        raise UnknownTypeError(f"the body must be {', '.join(READERS)}, but is {content_type}; set Content-Type")
    return READERS[content_type](served.columns, body)


def _labels(served: Served, scores: np.ndarray) -> Any:
    return {"version": served.version.version, "predictions": served.system.labels(scores).tolist()}


def _probabilities(served: Served, scores: np.ndarray) -> Any:
    classes = served.system.signature.classes
    return {"version": served.version.version, "classes": classes, "probabilities": scores.tolist()}


def _mlflow_labels(served: Served, scores: np.ndarray) -> Any:
    return {"predictions": served.system.labels(scores).tolist()}


def _mlflow_probabilities(served: Served, scores: np.ndarray) -> Any:
    names = [str(label) for label in served.system.signature.classes]
    return {"predictions": [dict(zip(names, row, strict=True)) for row in scores.tolist()]}
