"""Where the time of a chain goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from benchmarks.chain import Interval, covered, flow_rows

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def between(begin_s: float, end_s: float) -> Interval:
    return NOON + timedelta(seconds=begin_s), NOON + timedelta(seconds=end_s)


def test_trials_side_by_side_count_once():
    assert covered([between(8, 9), between(0, 4), between(1, 2), between(3, 5)]) == 6


def test_a_flows_time_is_that_of_its_trials_and_fits_and_the_rest():
    flows = {
        "DataPrepFlow": (between(0, 7), []),
        "DeepHPOFlow": (between(7, 20), [between(9, 15), between(10, 18)]),
    }

    assert flow_rows(flows) == [("  DataPrepFlow", 7, 0, 7, "-"), ("  DeepHPOFlow", 13, 9, 4, "-")]
