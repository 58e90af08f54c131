"""`python -m benchmarks [PART ...]`: measure, print, keep as JSON. Parts and options: `--help`."""

from enum import StrEnum
from typing import Annotated

import typer

from benchmarks import chain, engine, overhead, pruning, quality, retune, samplers, storage
from benchmarks.report import keep, show


class Part(StrEnum):
    overhead = "overhead"
    chain = "chain"
    quality = "quality"
    engine = "engine"
    storage = "storage"
    pruning = "pruning"
    samplers = "samplers"
    retune = "retune"


def main(
    parts: Annotated[list[Part] | None, typer.Argument(help="which benchmarks; default: the first four")] = None,
    repeat: Annotated[int, typer.Option(help="runs of each command; medians are printed")] = 3,
    seeds: Annotated[int, typer.Option(help="split seeds of the quality benchmark; seeds of samplers, pruning")] = 5,
) -> None:
    for part in parts or [Part.overhead, Part.chain, Part.quality, Part.engine]:
        match part:
            case Part.overhead:
                table = overhead.measure(repeat)
            case Part.chain:
                table = chain.measure(repeat)
            case Part.quality:
                table = quality.measure(seeds)
            case Part.engine:
                table = engine.measure(repeat)
            case Part.storage:
                table = storage.measure(repeat)
            case Part.pruning:
                table = pruning.measure(seeds)
            case Part.samplers:
                table = samplers.measure(seeds)
            case Part.retune:
                table = retune.measure()
        show(table)
        keep(table)


if __name__ == "__main__":
    typer.run(main)
