"""`python -m benchmarks [overhead] [chain] [quality] [storage]`: measure, print, keep as JSON. Options: `--help`."""

from enum import StrEnum
from typing import Annotated

import typer

from benchmarks import chain, overhead, quality, storage
from benchmarks.report import keep, show


class Part(StrEnum):
    overhead = "overhead"
    chain = "chain"
    quality = "quality"
    storage = "storage"


def main(
    parts: Annotated[list[Part] | None, typer.Argument(help="which benchmarks; default: all but storage")] = None,
    repeat: Annotated[int, typer.Option(help="runs of each command; medians are printed")] = 3,
    seeds: Annotated[int, typer.Option(help="split seeds of the quality benchmark")] = 5,
) -> None:
    for part in parts or [Part.overhead, Part.chain, Part.quality]:
        match part:
            case Part.overhead:
                table = overhead.measure(repeat)
            case Part.chain:
                table = chain.measure(repeat)
            case Part.quality:
                table = quality.measure(seeds)
            case Part.storage:
                table = storage.measure(repeat)
        show(table)
        keep(table)


if __name__ == "__main__":
    typer.run(main)
