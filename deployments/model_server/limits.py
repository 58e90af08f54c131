"""What a request may cost, and who may ask: its body's size, how many are answered at a time, bearer tokens."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.errors import ConfigError

OPEN = {"/healthz", "/readyz", "/ping", "/health"}  # Kubernetes' probes have no token


@dataclass(frozen=True)
class Limits:
    """pending: requests that are read, wait for a thread or are predicted; body_s: how long a body may take to come."""

    body_bytes: int = 16 * 1024 * 1024
    body_s: float = 30.0
    pending: int = 64


def check_host(host: str, tokens: Sequence[str]) -> None:
    """Without tokens only this machine may ask.

    Raises:
        ConfigError: there is no token, and others could.
    """
    if tokens or host == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigError(
            f"a server that others reach must ask for a token, but on {host} EVERTUNE_SERVE_TOKENS isn't set; "
            "set it to one or more, with commas between, or listen on 127.0.0.1"
        )


class Threads:
    """As many threads as cores predict; the event loop only reads and writes."""

    def __init__(self, n: int, limits: Limits) -> None:
        self.limits = limits
        self.pending = 0
        self._pool = ThreadPoolExecutor(n, thread_name_prefix="predict")

    async def run(self, request: Request, work: Any, *args: Any) -> Any:
        """`work(*args, body)` in a thread.

        Raises:
            HTTPException: 413, the body is too long; 429, too many requests are pending; 408, the body doesn't come.
        """
        with self._place():
            body = await self._body(request)
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args, body)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self.pending >= self.limits.pending:
            said = f"at most {self.limits.pending} requests are answered at a time; ask again"
            raise HTTPException(429, said, {"Retry-After": "1"})
        self.pending += 1
        try:
            yield
        finally:
            self.pending -= 1

    async def _body(self, request: Request) -> bytes:
        self._check(int(request.headers.get("content-length", 0)))
        parts, length = [], 0
        try:
            async with asyncio.timeout(self.limits.body_s):
                async for part in request.stream():
                    length += len(part)
                    self._check(length)
                    parts.append(part)
        except (TimeoutError, ClientDisconnect):
            raise HTTPException(408, f"a body must come within {self.limits.body_s:g} s") from None
        return b"".join(parts)

    def _check(self, length: int) -> None:
        if length > self.limits.body_bytes:
            said = f"a body must have at most {self.limits.body_bytes} bytes; send fewer rows at a time"
            raise HTTPException(413, said, {"Connection": "close"})


class BearerTokens:
    """Refuses requests without one of the tokens, but for probes."""

    def __init__(self, app: ASGIApp, tokens: Sequence[str]) -> None:
        self.app = app
        self._known = [f"Bearer {token}".encode() for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN or self._knows(scope):
            await self.app(scope, receive, send)
        else:
            said = {"detail": "a request must have the header `Authorization: Bearer <token>` with a known token"}
            await JSONResponse(said, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        """Each token is compared, so that the time tells nothing."""
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return sum(hmac.compare_digest(given, token) for token in self._known) > 0
