"""What the page on storages says, by its figures."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.storage import GRPC_OURS, OURS
from benchmarks.storage_docs import markdown, recommendation


def table(alone: float, proxied: float) -> dict[str, Any]:
    rows = [(OURS, "1", "1,000", 300.0), (GRPC_OURS, "1", "1,000", 90.0), (OURS, "100", "4", 9.0)]
    rows += [(OURS, "32", "1,000", alone), (GRPC_OURS, "32", "1,000", proxied)]
    return {
        "title": "Storages", "columns": ["storage", "workers", "trials before", "trials/s"], "rows": rows, "cores": 2,
        "packages": {"optuna": "5"}, "measured_at": "2030-01-01T00:00", "notes": ["OURS over RDB: 20."],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("alone", "proxied", "says"), [(400.0, 100.0, "No proxy has to be deployed"), (100.0, 400.0, "From 32 workers on")]
)
def test_a_proxy_is_recommended_where_it_is_faster(alone: float, proxied: float, says: str) -> None:
    assert says in recommendation(table(alone, proxied))


def test_the_page_has_the_picture_the_figures_and_the_notes() -> None:
    page = markdown(table(400.0, 100.0)).splitlines()
    assert "![Trials per second by workers](storage.svg)" in page
    assert f"| {OURS} | 32 | 1,000 | 400 |" in page
    assert page[-1] == "OURS over RDB: 20."
