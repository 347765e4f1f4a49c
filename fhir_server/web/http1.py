"""uvicorn's HTTP/1.1 protocol with two limits it lacks: the time and the bytes that a request's head may take.

Without them a client that sends one header byte a second holds a connection for ever (Slowloris), and one that never ends its headers
fills the memory. RFC 9110 section 15.5.9 (408), RFC 6585 section 5 (431).
"""

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from conformance.codec import encode
from conformance.outcome import Issue, outcome

HEAD_SECONDS = 10.0
HEAD_BYTES = 65_536
PAUSE_SECONDS = 0.1


def _refusal(status: int, code: str, text: str) -> bytes:
    """A whole answer that closes the connection, for what never becomes a request: an OperationOutcome as everywhere."""
    body = encode(outcome([Issue("fatal", code, text)]))
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nconnection: close\r\ncontent-type: application/fhir+json;charset=utf-8\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


BROKEN = _refusal(400, "structure", "what was sent is not HTTP/1.1")
TOO_SLOW = _refusal(408, "timeout", f"the head of the request did not come within {HEAD_SECONDS:.0f} seconds")
TOO_LONG = _refusal(431, "too-long", f"the head of the request is longer than {HEAD_BYTES} bytes")


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

    def send_400_response(self, msg: str) -> None:
        """What the parser cannot read."""
        self._refuse(BROKEN)

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
