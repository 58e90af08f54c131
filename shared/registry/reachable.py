"""Whether MLflow is there, asked before anything is tuned for it. Nothing heavy is imported."""

from __future__ import annotations

import socket
from functools import cache
from urllib.parse import SplitResult, urlsplit

from shared.errors import ServiceError

TIMEOUT_S = 10


def check(uri: str) -> None:
    """Ask a database or a server whether it is there, since MLflow would try for a long time.

    uri: the tracking URI; what is neither (a file, a name that a plugin knows) is not looked at.

    Raises:
        ServiceError: it doesn't answer. The message has no credentials in it.
    """
    parts = urlsplit(uri)
    if not parts.hostname:
        return
    try:
        if parts.scheme.startswith("postgresql"):
            socket.create_connection((parts.hostname, parts.port or 5432), timeout=TIMEOUT_S).close()
        elif parts.scheme in ("http", "https"):
            _request(parts)
    except OSError as err:
        raise ServiceError(
            f"MLflow must be reachable, but {_address(parts)} isn't ({err.strerror or err}); "
            "check MLFLOW_TRACKING_URI, or unset it to use the embedded registry"
        ) from None


check_once = cache(check)


def _request(parts: SplitResult) -> None:
    """Any answer will do but a gateway's for a server that is gone: logging in and certificates are MLflow's own."""
    import ssl
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    try:
        urlopen(f"{parts.scheme}://{_address(parts)}{parts.path.rstrip('/')}/health", timeout=TIMEOUT_S).close()
    except HTTPError as err:
        if err.code >= 500:
            raise
    except URLError as err:
        if not isinstance(err.reason, ssl.SSLError):
            raise err.reason if isinstance(err.reason, OSError) else err from None
    except HTTPException as err:
        raise ConnectionError(f"its answer is not HTTP: {err!r}") from None


def _address(parts: SplitResult) -> str:
    """Host, and port if there is one, without credentials."""
    return parts.netloc.rpartition("@")[2]
