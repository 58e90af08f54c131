"""What a request may cost, and who may ask: its body's size, how many are answered at a time, bearer tokens."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.errors import ConfigError

CLOSE = {"Connection": "close"}  # with an answer to a request whose body isn't read to its end
OPEN = {"/healthz", "/readyz", "/ping", "/health"}  # Kubernetes' probes have no token


@dataclass(frozen=True)
class Limits:
    """pending: requests that are read, wait or are predicted; pending_bytes: of their bodies together.

    body_bytes: of one body; body_s: how long it may take to come.
    """

    body_bytes: int = 16 * 1024 * 1024
    body_s: float = 30.0
    pending: int = 64
    pending_bytes: int = 64 * 1024 * 1024


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


class Pending:
    """The requests that aren't answered yet, and the memory of their bodies."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._requests = self._bytes = 0

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytearray]:
        """A request's body, until the request is answered.

        Raises:
            HTTPException: 413, it is too long; 429, too much is pending; 408, it doesn't come.
        """
        self._check_pending(self._requests < self.limits.pending, f"{self.limits.pending} requests")
        self._requests += 1
        body = bytearray()
        try:
            await self._read(request, body)
            yield body
        finally:
            self._requests -= 1
            self._bytes -= len(body)

    async def _read(self, request: Request, body: bytearray) -> None:
        self._check_length(int(request.headers.get("content-length", 0)))
        try:
            async with asyncio.timeout(self.limits.body_s):
                async for part in request.stream():
                    self._check_length(len(body) + len(part))
                    self._add(part, body)
        except (TimeoutError, ClientDisconnect):
            raise HTTPException(408, f"a body must come within {self.limits.body_s:g} s", CLOSE) from None

    def _add(self, part: bytes, body: bytearray) -> None:
        most = self.limits.pending_bytes
        self._check_pending(self._bytes + len(part) <= most, f"{most} bytes")
        self._bytes += len(part)
        body += part

    def _check_length(self, length: int) -> None:
        if length > self.limits.body_bytes:
            said = f"a body must have at most {self.limits.body_bytes} bytes; send fewer rows at a time"
            raise HTTPException(413, said, CLOSE)

    def _check_pending(self, has_place: bool, most: str) -> None:
        if not has_place:
            said = f"at most {most} are answered at a time; ask again"
            raise HTTPException(429, said, CLOSE | {"Retry-After": "1"})


class BearerTokens:
    """Refuses requests without one of the tokens, but for probes, whose state says whether they have it: `is_known`."""

    def __init__(self, app: ASGIApp, tokens: Sequence[str]) -> None:
        self.app = app
        self._known = [token.encode() for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        is_known = scope.setdefault("state", {})["is_known"] = self._knows(scope)
        if is_known or scope["path"] in OPEN:
            await self.app(scope, receive, send)
        else:
            said = {"detail": "a request must have the header `Authorization: Bearer <token>` with a known token"}
            await JSONResponse(said, 401, CLOSE | {"WWW-Authenticate": "Bearer"})(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        """Each token is compared, so that the time tells nothing."""
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, found = given.partition(b" ")
        return scheme.lower() == b"bearer" and sum(hmac.compare_digest(found.strip(), one) for one in self._known) > 0
