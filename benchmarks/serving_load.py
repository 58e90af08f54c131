"""Load on one URL over kept connections: `python -m benchmarks.serving_load URL CONNECTIONS SECONDS [TYPE] < body`.

Prints as JSON the requests per second, the milliseconds of the median and of the slowest hundredth, and the failures.
"""

import asyncio
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
import uvloop

JSON = "application/json"
VERSION = re.compile(rb'"version":(\d+)')


@dataclass(frozen=True)
class Answer:
    """begun: seconds on the clock `time.perf_counter`, when the request was due; version: none in other servers."""

    begun: float
    took_s: float
    good: bool
    version: int | None


async def ask(host: str, port: int, request: bytes, until: float, every_s: float = 0.0) -> list[Answer]:
    """The answers on one connection: one request after the other, or one each `every_s`, timed from when it was due."""
    reader, writer = await asyncio.open_connection(host, port)
    answers: list[Answer] = []
    due = time.perf_counter() + every_s * np.random.default_rng().random()
    while max(due, time.perf_counter()) < until:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
        found = VERSION.search(await reader.readexactly(length))
        now = time.perf_counter()
        answers.append(Answer(due, now - due, head.split(b" ", 2)[1] == b"200", int(found[1]) if found else None))
        due = due + every_s if every_s else now
    writer.close()
    return answers


async def load(
    url: str, connections: int, seconds: float, body: bytes, content_type: str = JSON, per_s: float = 0.0
) -> list[Answer]:
    """The answers on all connections. per_s: requests in a second, all connections together; 0: as many as can be."""
    parts = urlsplit(url)
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {content_type}\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    until, every_s = time.perf_counter() + seconds, connections / per_s if per_s else 0.0
    asked = [ask(str(parts.hostname), int(parts.port or 80), request, until, every_s) for _ in range(connections)]
    return [answer for connection in await asyncio.gather(*asked) for answer in connection]


def p99_ms(answers: Sequence[Answer]) -> float:
    return float(np.percentile([answer.took_s * 1000 for answer in answers], 99))


def summary(answers: Sequence[Answer]) -> dict[str, float]:
    wall = max(a.begun + a.took_s for a in answers) - min(a.begun for a in answers)
    p50 = float(np.median([answer.took_s * 1000 for answer in answers]))
    failed = sum(not answer.good for answer in answers)
    return {"per_s": len(answers) / wall, "p50_ms": p50, "p99_ms": p99_ms(answers), "failed": failed}


if __name__ == "__main__":
    url, connections, seconds, *types = sys.argv[1:]
    print(json.dumps(summary(uvloop.run(load(url, int(connections), float(seconds), sys.stdin.buffer.read(), *types)))))
