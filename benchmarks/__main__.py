"""`python -m benchmarks [PART ...]`: measure, print, keep as JSON. Parts and options: `--help`."""

from enum import StrEnum
from typing import Annotated

import typer

from benchmarks import chain, engine, overhead, production, pruning, quality, retune, samplers, serving, storage
from benchmarks.report import keep, show

# What each part measures, by the number of runs and of seeds.
PARTS = {
    "overhead": lambda repeat, _: overhead.measure(repeat),
    "chain": lambda repeat, _: chain.measure(repeat),
    "quality": lambda _, seeds: quality.measure(seeds),
    "engine": lambda repeat, _: engine.measure(repeat),
    "storage": lambda repeat, _: storage.measure(repeat),
    "pruning": lambda _, seeds: pruning.measure(seeds),
    "samplers": lambda _, seeds: samplers.measure(seeds),
    "retune": lambda *_: retune.measure(),
    "serving": lambda *_: serving.measure(),
    "swapping": lambda *_: serving.measure_swaps(),
    "production": lambda repeat, _: production.measure(repeat),
}
Part = StrEnum("Part", list(PARTS))
ASKED_FOR = {"storage", "pruning", "samplers", "retune"}  # long ones, of choices that were made


def main(
    parts: Annotated[
        list[Part] | None, typer.Argument(help="which benchmarks; default: all but storage, pruning, samplers, retune")
    ] = None,
    repeat: Annotated[int, typer.Option(help="runs of each command; medians are printed")] = 3,
    seeds: Annotated[int, typer.Option(help="split seeds of the quality benchmark; seeds of samplers, pruning")] = 5,
) -> None:
    for part in parts or [part for part in Part if part not in ASKED_FOR]:
        table = PARTS[part](repeat, seeds)
        show(table)
        keep(table)


if __name__ == "__main__":
    typer.run(main)
