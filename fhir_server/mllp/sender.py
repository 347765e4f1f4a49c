"""Sending HL7 v2 messages over MLLP: one connection, one block after another, each with its answer."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fhir_server.mllp.framing import COMMIT_BYTES, Frame, Framer, wrap

MAX_ANSWER = 4 * 1024 * 1024


@dataclass(slots=True, eq=False)
class Line:
    """An open connection to an MLLP listener."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    framer: Framer = field(default_factory=lambda: Framer(MAX_ANSWER))
    got: list[bytes] = field(default_factory=list)

    async def ask(self, message: bytes, seconds: float = 60.0) -> bytes:
        """Send a message and wait for the answer. Raises TimeoutError, ConnectionError."""
        self.writer.write(wrap(message))
        async with asyncio.timeout(seconds):
            await self.writer.drain()
            return await self.answer()

    async def answer(self) -> bytes:
        """The next block from the other end that is no commit byte (MLLP release 2). Raises ConnectionError if it closes first."""
        while not self.got:
            data = await self.reader.read(65536)
            if not data:
                raise ConnectionResetError("the other end closed without an answer")
            self.got += [event.data for event in self.framer.receive(data) if isinstance(event, Frame) and event.data not in COMMIT_BYTES]
        return self.got.pop(0)


@asynccontextmanager
async def connected(host: str, port: int, context: ssl.SSLContext | None = None) -> AsyncIterator[Line]:
    """A connection for the length of a block. Raises OSError if it cannot be made."""
    async with asyncio.timeout(10.0):
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


def trusting(authorities: str, own: str = "") -> ssl.SSLContext:
    """TLS to a door whose certificate one of these authorities signed (a PEM file); own: PEM file of our certificate and key. Raises OSError, ssl.SSLError."""
    context = ssl.create_default_context(cafile=authorities)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if own:
        context.load_cert_chain(own)
    return context


async def send_block(address: str, message: bytes) -> bool:
    """Deliver one message to 'host:port'; True if the other end answered at all."""
    host, _, port = address.rpartition(":")
    try:
        async with connected(host.strip("[]"), int(port)) as line:
            await line.ask(message, 15.0)
    except (OSError, TimeoutError):
        return False
    return True
