"""uvicorn's HTTP/1.1 protocol with two limits it lacks: the time and the bytes that a request's head may take.

Without them a client that sends one header byte a second holds a connection for ever (Slowloris), and one that never ends its headers
fills the memory. RFC 9110 section 15.5.9 (408), RFC 6585 section 5 (431).
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10.0
HEAD_BYTES = 65_536
PAUSE_SECONDS = 0.1
TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class GuardedProtocol(HttpToolsProtocol):
    """One client connection. (A class because uvicorn's protocol is one.)"""

    head_timer: asyncio.TimerHandle | None = None
    head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """A new connection owes us a request head."""
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Count head bytes before they reach the parser."""
        if self.head_timer is not None:
            self.head_bytes += len(data) if b"\r\n\r\n" not in data else data.index(b"\r\n\r\n")
            if self.head_bytes > HEAD_BYTES:
                self._refuse_later()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A further request on a kept connection begins."""
        super().on_message_begin()
        if self.head_timer is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._head_done()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._head_done()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self.head_bytes = 0
        self.head_timer = self.loop.call_later(HEAD_SECONDS, self._refuse, TOO_SLOW)

    def _head_done(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None

    def _refuse_later(self) -> None:
        """After a pause, in which nothing more is read: who sends nothing but such heads cannot keep a processor busy."""
        self._head_done()
        self.transport.pause_reading()
        self.head_timer = self.loop.call_later(PAUSE_SECONDS, self._refuse, TOO_LONG)

    def _refuse(self, answer: bytes) -> None:
        self._head_done()
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()
