"""What the promotion log says of champions."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from shared.registry import history
from shared.storage.ledger import Promotion


def entry(version: int, kind: str = "gate", outcome: str | None = "moved", previous: int | None = None) -> Promotion:
    at = datetime(2026, 11, 28, tzinfo=UTC)
    return Promotion("digits", version, previous, True, "", {}, "a", at, kind, outcome)  # type: ignore[arg-type]


def refused(version: int) -> Promotion:
    return Promotion("digits", version, None, False, "", {}, "a", datetime(2026, 11, 28, tzinfo=UTC))


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ([], []),
        ([entry(1), refused(2), entry(3)], [1, 3]),
        ([entry(1), entry(2, outcome=None), entry(3, outcome="overtaken")], [1]),
        ([entry(1), entry(2), entry(3), entry(2, "rollback")], [1, 2]),
        ([entry(1), entry(2), entry(3), entry(1, "rollback"), entry(4)], [1, 4]),
        ([entry(1), entry(2), entry(1, "rollback"), entry(2, "rollback")], [1, 2]),
        ([entry(1), entry(2), entry(3), entry(1, "found")], [2, 3, 1]),
    ],
    ids=[
        "none", "those that took place", "what isn't carried out", "a rollback takes back", "and what comes after",
        "a rollback of a rollback", "a move by hand takes nothing back",
    ],
)  # fmt: skip
def test_the_line_of_champions_leads_to_that_of_now(log: list[Promotion], line: list[int]):
    assert history.line(log) == line
    assert history.champion(log) == (line[-1] if line else None)


@pytest.mark.parametrize(
    ("kind", "live", "exists", "outcome"),
    [
        ("gate", 2, True, "moved"),
        ("gate", 1, True, "moved"),
        ("gate", 3, True, "overtaken"),
        ("gate", None, True, "overtaken"),
        ("gate", 1, False, "overtaken"),
        ("found", 2, True, "moved"),
        ("found", 1, True, "overtaken"),
    ],
    ids=[
        "it was moved already", "it can be moved", "somebody has moved it elsewhere", "somebody has taken it away",
        "the version is gone", "it stands where it was found", "nobody moves it back to where it was found",
    ],
)  # fmt: skip
def test_what_becomes_of_a_promotion_depends_on_where_the_alias_is(kind, live, exists, outcome):
    promotion = entry(2, kind, None, previous=1)
    assert history.outcome(promotion, live, exists=exists) == outcome


def test_a_rollback_leads_to_the_champion_before_and_further_back():
    log = [entry(1), entry(2), entry(3)]
    assert history.before(log, 3) == [2, 1]
    assert history.before(log, None) == [3, 2, 1]


def test_the_gates_decision_on_a_version_is_told_from_how_it_was_moved():
    log = [refused(2), entry(2, "hand"), entry(1, "rollback")]
    assert history.gate(log, 2) == history.decision(log, 2) == log[0]
    assert (history.gate(log, 1), history.decision(log, 1)) == (None, log[2])
    assert history.champions(log) == [1, 2]
