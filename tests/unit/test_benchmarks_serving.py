"""What the benchmark of the model server makes of the answers that it heard."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.sandbox import Sandbox
from benchmarks.serving import serving
from benchmarks.serving_load import Answer, summary
from benchmarks.serving_swaps import due, swapped, windows

ENDING = "print('no port', flush=True); raise SystemExit(3)"
ASLEEP = "import time; print('no port', flush=True); time.sleep(60)"


def test_a_swap_lasts_from_the_move_to_the_first_answer_of_the_new_version():
    answers = [
        Answer(0.0, 1.0, True, 1),
        Answer(2.0, 1.5, True, 1),
        Answer(2.5, 2.0, True, 2),
        Answer(4.0, 0.1, True, 2),
    ]
    assert windows(answers, [(1.5, 2)]) == [(1.5, 4.1)]
    with pytest.raises(RuntimeError, match=r"these never did: \[3\]"):
        windows(answers, [(1.5, 2), (5.0, 3)])


def test_requests_count_where_they_were_due_however_long_their_answers_took():
    answers = [Answer(0.0, 5.0, True, 1), Answer(2.0, 1.5, True, 1), Answer(3.5, 0.1, True, 1)]
    assert due(answers, 1.0, 3.0) == [answers[1]]


def test_answers_that_failed_are_no_swap():
    answers = [Answer(0.0, 1.0, True, 1), Answer(1.0, 1.0, False, None), Answer(2.0, 1.0, True, 2)]
    assert swapped(answers) == 1


@pytest.mark.parametrize(
    ("code", "within_s", "why"), [(ENDING, 60, "has ended with 3"), (ASLEEP, 4, "still runs")], ids=["ended", "asleep"]
)
def test_the_last_words_of_a_server_that_does_not_get_ready_are_told(tmp_path: Path, code, within_s, why):
    with (
        pytest.raises(RuntimeError, match=rf"must be ready within {within_s} s, but {why}:\nno port"),
        serving(Sandbox(tmp_path), [sys.executable, "-c", code], "http://127.0.0.1:1", within_s=within_s),
    ):
        pytest.fail("it is not ready")


def test_the_summary_counts_what_failed_and_takes_the_rate_from_the_first_to_the_last():
    answers = [Answer(i * 0.5, 0.1 * (i + 1), i != 3, 1) for i in range(5)]
    found = summary(answers)
    assert (found["per_s"], found["failed"]) == (pytest.approx(5 / 2.5), 1)
    assert (found["p50_ms"], found["p99_ms"]) == (pytest.approx(300), pytest.approx(496))
