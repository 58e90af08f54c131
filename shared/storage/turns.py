"""Turns that gates have taken at a use case's holdouts.

Each is one gate's, however many ask at once, and stays taken whatever becomes of that gate: the row is there before the
gate looks at the targets, and is never changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from shared.storage.database import connect
from shared.storage.refusal import explained

# Who comes second at a place finds it taken: the primary key compares and sets.
TAKE = """
INSERT INTO evertune.gate_turns (use_case, place, version, figures)
VALUES (%(use_case)s, %(place)s, %(version)s, %(figures)s)
ON CONFLICT DO NOTHING
"""

LAST = """
SELECT place, version, figures FROM evertune.gate_turns WHERE use_case = %(use_case)s ORDER BY place DESC LIMIT 1
"""


@dataclass(frozen=True)
class Taken:
    """place: how many turns the use case had with this one; version: whose gate it was; figures: the turn's."""

    place: int
    version: int
    figures: Mapping[str, Any]


def last(use_case: str) -> Taken | None:
    """The last turn that was taken.

    Raises:
        ServiceError: the database can't be reached.
    """
    with connect() as connection, explained(connection), connection.cursor(row_factory=class_row(Taken)) as found:
        return found.execute(LAST, {"use_case": use_case}).fetchone()


def take(use_case: str, turn: Taken) -> bool:
    """Take the turn at a place; False, and nothing is changed, where another gate has it.

    Raises:
        ServiceError: the database can't be reached.
    """
    values = {"place": turn.place, "version": turn.version, "figures": Jsonb(turn.figures)}
    with connect() as connection, explained(connection):
        return connection.execute(TAKE, {"use_case": use_case, **values}).rowcount > 0
