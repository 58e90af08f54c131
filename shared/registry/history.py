"""What the promotion log says of a model's champions. Pure.

A log holds the decisions of the gate and the promotions of other kinds, oldest first. Its last promotion that took
place made the champion, as far as the log knows; the registry's alias says who is served.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared.storage.ledger import Outcome, Promotion

Log = Sequence[Promotion]


def latest(log: Log) -> Promotion | None:
    """How the champion became champion."""
    return next((entry for entry in reversed(log) if entry.took_place), None)


def champion(log: Log) -> int | None:
    found = latest(log)
    return found.version if found else None


def line(log: Log) -> list[int]:
    """The champions that led to the one of now, which is the last: a rollback takes back those after its version."""
    stack: list[int] = []
    for entry in log:
        if entry.took_place:
            back = entry.kind == "rollback" and entry.version in stack
            stack = stack[: stack.index(entry.version) + 1] if back else [v for v in stack if v != entry.version]
            stack += [] if back else [entry.version]
    return stack


def before(log: Log, live: int | None) -> list[int]:
    """Where a rollback may lead without being told, the nearest first. live: the champion, as the registry says."""
    return [version for version in reversed(line(log)) if version != live]


def champions(log: Log) -> list[int]:
    """Every version that ever was champion, the last one first."""
    return list(dict.fromkeys(entry.version for entry in reversed(log) if entry.took_place))


def decision(log: Log, version: int) -> Promotion | None:
    """What was decided of a version first, by the gate or by a person: later entries moved what was decided on."""
    return next((entry for entry in log if entry.version == version), None)


def gate(log: Log, version: int) -> Promotion | None:
    """The gate's decision on a version."""
    return next((entry for entry in log if entry.version == version and entry.kind == "gate"), None)


def pending(log: Log) -> list[Promotion]:
    """Promotions that were decided on, and whose process was interrupted before it had carried them out."""
    return [entry for entry in log if entry.promoted and entry.outcome is None]


def outcome(promotion: Promotion, live: int | None, *, exists: bool) -> Outcome:
    """What becomes of one: the alias stands at its version, or is moved there from where the decision saw it.

    live: the champion, as the registry says; exists: whether the version can still be one. One that was found is moved
    nowhere: somebody has done so.
    """
    movable = exists and promotion.kind != "found" and live == promotion.previous
    return "moved" if live == promotion.version or movable else "overtaken"
