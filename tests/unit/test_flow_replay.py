"""When a replayed trial is the same as the recorded one, and which study is replayed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from shared.errors import FlowError, ObjectiveError
from shared.flow.replay import Outcome, difference, find_study, readable
from shared.storage.ledger import LedgerEntry


def failed(error: str) -> Outcome:
    return Outcome("FAIL", error=f"Traceback (most recent call last):\n  somewhere\n{error}")


@pytest.mark.parametrize(
    ("recorded", "replayed", "words"),
    [
        pytest.param(Outcome("COMPLETE", (0.5,)), Outcome("COMPLETE", (0.5,)), "", id="the same"),
        pytest.param(Outcome("COMPLETE", (0.5,)), Outcome("COMPLETE", (0.5 + 1e-12,)), "", id="but for rounding"),
        pytest.param(
            Outcome("COMPLETE", (0.5,)), Outcome("COMPLETE", (0.51,)), "score was 0.5, and is 0.51 now", id="a value"
        ),
        pytest.param(Outcome("COMPLETE", (0.5, 3.0)), Outcome("COMPLETE", (0.5, 4.0)), "", id="a latency"),
        pytest.param(
            Outcome("PRUNED", reports={0: 0.5, 1: 0.6}), Outcome("PRUNED", reports={0: 0.5, 1: 0.7}),
            "step 1 reported 0.6, and now 0.7", id="a report",
        ),
        pytest.param(Outcome("FAIL", reports={0: 0.5}), Outcome("FAIL", reports={0: 0.5, 1: 0.6}), "", id="further on"),
        pytest.param(
            Outcome("FAIL"), Outcome("COMPLETE", (0.5,)), "the trial ended FAIL, and now COMPLETE", id="another state"
        ),
        pytest.param(failed("ValueError: a"), failed("ValueError: a"), "", id="the same error"),
        pytest.param(
            failed("ValueError: a"), failed("OSError: b"), "it failed by 'ValueError: a', and now by 'OSError: b'",
            id="another error",
        ),
        pytest.param(
            Outcome("PRUNED", reports={0: float("nan")}), Outcome("PRUNED", reports={0: float("nan")}), "", id="NaN"
        ),
    ],
)  # fmt: skip
def test_the_first_difference_is_told(recorded: Outcome, replayed: Outcome, words: str) -> None:
    assert difference(recorded, replayed, ["score"]) == words


def entry(variant: str, hour: int, state: str = "done") -> LedgerEntry:
    at = datetime(2026, 11, 24, hour, tzinfo=UTC)
    return LedgerEntry(f"toy/{variant}/{hour}", "toy", variant, "f", state, "HPO/1", {}, "", at)  # type: ignore[arg-type]


ENTRIES = [entry("system", 2), entry("classical", 1), entry("classical", 4, "failed"), entry("deep", 9, "claimed")]


@pytest.mark.parametrize(
    ("variant", "study", "found"),
    [
        pytest.param(None, None, "toy/system/2", id="the last of the chain"),
        pytest.param("classical", None, "toy/classical/4", id="the newest, though it failed"),
        pytest.param(None, "toy/classical/1", "toy/classical/1", id="by its name"),
        pytest.param("deep", "toy/deep/9", "toy/deep/9", id="by its name, while it is tuned"),
    ],
)
def test_the_study_is_found(variant: str | None, study: str | None, found: str) -> None:
    assert find_study(ENTRIES, "toy", variant, study).study == found


def test_a_study_that_is_still_tuned_has_to_be_named() -> None:
    with pytest.raises(FlowError, match=r"none of deep; on record, newest first: toy/deep/9, toy/classical/4"):
        find_study(ENTRIES, "toy", "deep", None)


def test_what_evertune_raised_is_its_message_and_what_caused_it_is_told() -> None:
    assert readable(ObjectiveError("the rule; the remedy")) == "shared.errors.ObjectiveError: the rule; the remedy"
    error = ObjectiveError("the rule")
    error.__cause__ = ZeroDivisionError("by zero")
    assert "ZeroDivisionError: by zero" in readable(error)
