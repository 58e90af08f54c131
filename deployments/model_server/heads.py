"""How long a request's head may be: uvicorn's fast parser takes one of any length."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 512 * 1024  # with what comes together with its last line: up to 256 KiB of the body


class ShortHeads(HttpToolsProtocol):
    """Closes a connection whose request line and headers go on and on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head, self._length = True, 0

    def data_received(self, data: bytes) -> None:
        self._length += len(data) if self._in_head else 0
        if self._length > HEAD_BYTES:
            self.send_400_response("The head is too long.")
        else:
            super().data_received(data)

    def on_headers_complete(self) -> None:
        self._in_head, self._length = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        super().on_message_complete()
