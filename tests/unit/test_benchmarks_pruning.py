"""A pruner's figures are those of the same seeds without pruning, side by side."""

from __future__ import annotations

import pytest

from benchmarks.pruning import Run, table


def run(pruner: str, seed: int, wall_s: float, best: float) -> Run:
    return Run("classical", pruner, seed, wall_s, cpu_s=wall_s / 2, steps=int(wall_s), pruned=3, best=best)


def test_what_is_saved_is_the_median_of_the_seeds_and_the_loss_is_in_standard_deviations() -> None:
    plain = [run("none", seed, wall_s, best) for seed, (wall_s, best) in enumerate([(10, 1.0), (30, 2.0), (20, 3.0)])]
    auto = [run("auto", seed, wall_s, best) for seed, (wall_s, best) in enumerate([(10, 1.0), (10, 1.4), (10, 3.0)])]
    rows = {
        row[1]: dict(zip(table([*plain, *auto]).columns, row, strict=True)) for row in table([*plain, *auto]).rows[:2]
    }
    assert rows["none"]["x wall"] == 1.0
    assert rows["auto"]["x wall"] == rows["auto"]["x CPU"] == rows["auto"]["x steps"] == 2.0
    assert rows["auto"]["loss, SD"] == pytest.approx(0.2)
    assert rows["auto"]["seed"] == "all 3"
