"""The bodies that MLflow's scoring server reads: a client of `mlflow models serve` needs no change."""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd

from deployments.model_server import tables
from deployments.model_server.rows import Columns, InvalidRowsError, check_size, parse_json
from deployments.model_server.tables import Body

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")

Output = Literal["label", "proba"]


def read(columns: Columns, is_csv: bool, body: Body) -> tuple[pd.DataFrame, Output]:
    """The rows, and the parameter `output`. Columns that the model hasn't are left out, as MLflow does.

    Raises:
        InvalidRowsError: the body breaks a rule.
    """
    if is_csv:
        return columns.from_csv(body, only_known=True), "label"
    content = parse_json(body)
    found = [form for form in FORMS if form in content] if isinstance(content, dict) else []
    if len(found) != 1:
        raise InvalidRowsError(
            f"the body must be an object with one of {', '.join(FORMS)}, but has {len(found)} of them"
        )
    return _frame(columns, found[0], content[found[0]]), _output(content.get("params"))


def _frame(columns: Columns, form: str, content: Any) -> pd.DataFrame:
    match form, content:
        case "dataframe_split", {"columns": list(names), "data": list(rows)}:
            return _named(columns, names, rows)
        case "inputs", dict(values) if all(isinstance(column, list) for column in values.values()):
            return _named(columns, list(values), _transposed(values))
        case "inputs", dict(values) if not any(isinstance(value, list | dict) for value in values.values()):
            return _named(columns, list(values), [list(values.values())])
        case "dataframe_records" | "instances" | "inputs", [dict(), *_]:
            return _of_records(columns, content)
        case "instances" | "inputs", list(rows):
            single = len(columns.kinds) == 1 and not any(isinstance(row, list) for row in rows)
            return columns.from_rows(list(columns.kinds), [[value] for value in rows] if single else rows)
    raise InvalidRowsError(f"`{form}` must hold rows as MLflow's scoring protocol has them, but doesn't")


def _named(columns: Columns, names: list[Any], rows: list[Any]) -> pd.DataFrame:
    """Rows by the names of their columns, without those that the model hasn't."""
    kept = [i for i, name in enumerate(names) if isinstance(name, str) and name in columns.kinds]
    if len(kept) == len(names):
        return columns.from_rows(names, rows)
    for i, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(names):
            raise InvalidRowsError(f"row {i} must be a list of {len(names)} values, but isn't")
    return columns.from_rows([names[i] for i in kept], [[row[i] for i in kept] for row in rows])


def _transposed(values: dict[str, list[Any]]) -> list[list[Any]]:
    lengths = {len(column) for column in values.values()}
    if len(lengths) > 1:
        raise InvalidRowsError(f"`inputs` must have columns of one length, but they have {sorted(lengths)} values")
    return [list(row) for row in zip(*values.values(), strict=True)]


def _of_records(columns: Columns, records: list[Any]) -> pd.DataFrame:
    """Records, of which one may leave out what another has: null there, as in pandas."""
    for i, record in enumerate(records):
        if not isinstance(record, dict):
            raise InvalidRowsError(f"row {i} must be an object with a value by each column's name, but isn't")
    found = set().union(*records)
    names = [name for name in columns.kinds if name in found]
    check_size(len(records) * len(names) * tables.NUMBER_BYTES)  # `{}` stands for a value of each column
    return columns.from_rows(names, [[record.get(name) for name in names] for record in records])


def _output(params: Any) -> Output:
    output = params.get("output", "label") if isinstance(params, dict) else "label"
    match output:
        case "label" | "proba":
            return output
    raise InvalidRowsError(f'`params.output` must be "label" or "proba", but is {output!r:.80}')
