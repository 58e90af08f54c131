"""Load on one URL over kept connections: `python -m benchmarks.serving_load URL CONNECTIONS SECONDS < body.json`.

Prints as JSON the requests per second, the milliseconds of the median and of the slowest hundredth, and the failures.
"""

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit

import numpy as np


async def ask(host: str, port: int, request: bytes, until: float) -> list[tuple[float, bool]]:
    """Seconds and success of each request of one connection."""
    reader, writer = await asyncio.open_connection(host, port)
    took = []
    while (begun := time.perf_counter()) < until:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
        await reader.readexactly(length)
        took.append((time.perf_counter() - begun, head.split(b" ", 2)[1] == b"200"))
    writer.close()
    return took


async def load(url: str, connections: int, seconds: float, body: bytes) -> dict[str, float]:
    parts = urlsplit(url)
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    begun = time.perf_counter()
    asked = [ask(str(parts.hostname), int(parts.port or 80), request, begun + seconds) for _ in range(connections)]
    answers = [answer for connection in await asyncio.gather(*asked) for answer in connection]
    wall = time.perf_counter() - begun
    p50, p99 = np.percentile([took * 1000 for took, _ in answers], [50, 99])
    failed = sum(not good for _, good in answers)
    return {"per_s": len(answers) / wall, "p50_ms": float(p50), "p99_ms": float(p99), "failed": failed}


if __name__ == "__main__":
    url, connections, seconds = sys.argv[1:]
    print(json.dumps(asyncio.run(load(url, int(connections), float(seconds), sys.stdin.buffer.read()))))
