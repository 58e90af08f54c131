"""What the benchmark of the model server makes of the answers that it heard."""

from __future__ import annotations

import pytest

from benchmarks.serving_load import Answer, summary
from benchmarks.serving_swaps import windows


def test_a_swap_lasts_from_the_move_to_the_first_answer_of_the_new_version():
    answers = [
        Answer(0.0, 1.0, True, 1),
        Answer(2.0, 1.5, True, 1),
        Answer(2.5, 2.0, True, 2),
        Answer(4.0, 0.1, True, 2),
    ]
    assert windows(answers, [(1.5, 2)]) == [(1.5, 4.1)]
    with pytest.raises(ValueError, match="empty"):
        windows(answers, [(5.0, 3)])  # a version that never was live is no swap


def test_the_summary_counts_what_failed_and_takes_the_rate_from_the_first_to_the_last():
    answers = [Answer(i * 0.5, 0.1 * (i + 1), i != 3, 1) for i in range(5)]
    found = summary(answers)
    assert (found["per_s"], found["failed"]) == (pytest.approx(5 / 2.5), 1)
    assert (found["p50_ms"], found["p99_ms"]) == (pytest.approx(300), pytest.approx(496))
