"""The benchmark of warm studies runs what the flows run, without a pruner."""

from __future__ import annotations

from benchmarks.retune import spec
from shared.domain import StrategySpec


def test_its_studies_have_the_sampler_of_the_flows_and_no_pruner() -> None:
    found = spec("warm", 0, "old")
    assert (found.sampler, found.pruner) == (StrategySpec(), StrategySpec(name="NopPruner"))
