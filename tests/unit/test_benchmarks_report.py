"""The figures of a benchmark are kept with the machine that they were measured on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks import overhead, report
from shared.training import threads


def test_the_cores_are_told_also_where_the_system_knows_no_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    report.keep(report.Table("speed", "Speed", ["seconds"], [[1.5]]))
    kept = json.loads((tmp_path / "speed.json").read_text())
    assert (kept["rows"], kept["cores"]) == ([[1.5]], threads.cores())


def test_a_flow_is_compared_to_optuna_alone_and_to_optuna_with_its_process():
    assert overhead.compared(flow=[10, 12, 30], inside=[0.4, 0.5, 0.6], process=[2, 3, 4]) == (0.5, 3, 24, 4)
    assert overhead.RATIOS == ("flow / Optuna alone", "flow / Optuna with its process")
