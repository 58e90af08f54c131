"""How long a request's head and trailers may be: uvicorn's fast parser takes them at any length."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 512 * 1024  # with what comes together with its last line: up to 256 KiB of the body


class ShortHeads(HttpToolsProtocol):
    """Closes a connection on which a head, a chunk's extensions or the trailers of a body go on and on.

    All that comes counts, until the parser has found the end of a head, a part of a body, or its end.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._length = 0

    def data_received(self, data: bytes) -> None:
        self._length += len(data)
        if self._length > HEAD_BYTES:
            self.send_400_response("The head is too long.")
        else:
            super().data_received(data)

    def on_headers_complete(self) -> None:
        self._length = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._length = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._length = 0
        super().on_message_complete()
