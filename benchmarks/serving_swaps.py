"""Versions that are swapped under load: `python -m benchmarks.serving_swaps NAME URL SECONDS SWAPS < body.json`.

The load is 70 % of what the server can answer. Prints as JSON the failures and the slowest hundredth, in milliseconds:
of the requests that were due between the move of an alias and the first answer of the version at it, and of those in
as long a time before the move; the medians of all swaps, and the worst ratio.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from statistics import median

import uvloop

from benchmarks.serving_load import Answer, load, p99_ms, summary
from shared.registry import aliases

CONNECTIONS, SHARE, WARM_S, CAPACITY_S = 8, 0.7, 2.0, 6.0
BEGIN_S = 10.0  # until the first move


async def measure(name: str, url: str, seconds: float, swaps: int, body: bytes) -> dict[str, float]:
    await load(url, CONNECTIONS, WARM_S, body)
    per_s = SHARE * summary(await load(url, CONNECTIONS, CAPACITY_S, body))["per_s"]
    moves: list[tuple[float, int]] = []
    answers, _ = await asyncio.gather(
        load(url, CONNECTIONS, seconds, body, per_s=per_s), move(name, moves, swaps, (seconds - BEGIN_S) / swaps)
    )
    spans = windows(answers, moves)
    during = [p99_ms(due(answers, begin, end)) for begin, end in spans]
    before = [p99_ms(due(answers, begin - (end - begin), begin)) for begin, end in spans]
    ratios = [d / b for d, b in zip(during, before, strict=True)]
    return {
        "per_s": summary(answers)["per_s"], "failed": summary(answers)["failed"], "swaps": swapped(answers),
        "p99_during_ms": median(during), "p99_before_ms": median(before),
        "ratio": median(ratios), "worst": max(ratios),
    }  # fmt: skip


async def move(name: str, moves: list[tuple[float, int]], swaps: int, every_s: float) -> None:
    """Let the champion be the next version, again and again."""
    await asyncio.sleep(BEGIN_S)
    for version in range(2, swaps + 2):
        moves.append((time.perf_counter(), version))
        await asyncio.to_thread(aliases.point, name, aliases.CHAMPION, version)
        await asyncio.sleep(every_s)


def due(answers: Sequence[Answer], begin: float, end: float) -> list[Answer]:
    """The answers to what was due in this time.

    Raises:
        RuntimeError: there is none, since the server fell behind.
    """
    if found := [answer for answer in answers if begin <= answer.begun <= end]:
        return found
    raise RuntimeError(f"{SHARE:.0%} of what the server can answer must keep its pace, but it fell seconds behind")


def swapped(answers: Sequence[Answer]) -> int:
    """How many versions have taken another's place; what failed says none."""
    return len({answer.version for answer in answers if answer.good}) - 1


def windows(answers: Sequence[Answer], moves: Sequence[tuple[float, int]]) -> list[tuple[float, float]]:
    """From each move to the first answer of its version.

    Raises:
        RuntimeError: one never went live.
    """
    seen = {answer.version for answer in answers}
    if never := [version for _, version in moves if version not in seen]:
        raise RuntimeError(f"each version must go live after its move, but these never did: {never}")
    return [(begin, min(a.begun + a.took_s for a in answers if a.version == version)) for begin, version in moves]


if __name__ == "__main__":
    name, url, seconds, swaps = sys.argv[1:]
    print(json.dumps(uvloop.run(measure(name, url, float(seconds), int(swaps), sys.stdin.buffer.read()))))
