"""Prometheus' view of the server: requests, their latency, and the version that is live."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.model_server.live import LiveModel

BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class LiveModels:
    """What the live models say of themselves, whenever they are asked."""

    def __init__(self, models: Sequence[LiveModel]) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        version = GaugeMetricFamily("evertune_model_version", "The version that is live.", labels=["use_case"])
        trouble = GaugeMetricFamily(
            "evertune_model_trouble", "1: it may not be the registry's champion.", labels=["use_case"]
        )
        swaps = CounterMetricFamily("evertune_model_swaps", "Versions that took another's place.", labels=["use_case"])
        for live in self._models:
            if served := live.served:
                version.add_metric([live.name], served.version.version)
            trouble.add_metric([live.name], bool(live.trouble))
            swaps.add_metric([live.name], live.swaps)
        return iter((version, trouble, swaps))


class Measured:
    """Counts and times requests by path and status; paths that there aren't are `other`."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry, paths: Collection[str]) -> None:
        self.app = app
        self._paths = frozenset(paths)
        self._requests = Counter(
            "evertune_requests", "Requests by path and status.", ["path", "status"], registry=registry
        )
        self._seconds = Histogram(
            "evertune_request_seconds",
            "From request to answer.",
            ["path"],
            buckets=BUCKETS_S,
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        begun, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._requests.labels(path, status).inc()
            self._seconds.labels(path).observe(time.perf_counter() - begun)
