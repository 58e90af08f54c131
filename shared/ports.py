"""Where servers on this machine listen."""

from __future__ import annotations

from shared.errors import ServiceError


def url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def check_free(host: str, port: int, who: str) -> None:
    """Refuse a port that is taken, before anything is started.

    Raises:
        ServiceError: another process listens there, or none can.
    """
    import asyncio
    import os
    import socket

    try:
        asyncio.run(_bind(host, port))
    except OSError as err:
        why = err.strerror if isinstance(err, socket.gaierror) else os.strerror(err.errno or 0)
        raise ServiceError(
            f"{who} must have a port of this machine that is free, but {url(host, port)} isn't one ({why}); "
            "name another one with --port"
        ) from err


async def _bind(host: str, port: int) -> None:
    """As uvicorn does, to each address that the host's name stands for."""
    import asyncio

    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port, start_serving=False)
    server.close()
