"""The MLLP door: connections in, one answer per block out, one block of a connection at a time.

A connection's next block is read only after the answer to the last one was written (back-pressure by TCP). Every way a connection can end
is counted and logged with its reason; a block is always answered or its loss is counted. The door knows nothing of HL7: `handle` turns a
block's content into an answer, `reject` answers a block that could not be taken whole.
"""

import asyncio
import contextlib
import logging
import ssl
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any

from fhir_server.mllp.framing import COMMIT_BYTES, Broken, Event, Frame, Framer, Noise, wrap
from fhir_server.mllp.handshake import BACKLOG, TlsServer, listen
from fhir_server.settings import Settings

LOG = logging.getLogger("fhir.mllp")
CHUNK = 65536
LARGE = 1024 * 1024  # a block beyond this needs one of the few places for large blocks
LARGE_PLACES = 8
QUIET_SECONDS = 0.2
MAX_NOISE = 65536


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end: address, name in the client certificate ('' without one), and this connection's own id."""

    address: str
    certificate: str
    connection: str


Stored = Callable[[], Awaitable[None]]
Handle = Callable[[bytes, Peer, Stored], Awaitable[bytes | None]]
Reject = Callable[[bytes, str], bytes | None]


@dataclass(slots=True)
class Door:
    """A running MLLP door; `counts` holds its counters by name ('frames', 'closed:idle'), `observe` is told of each as well, for a metrics library."""

    settings: Settings
    handle: Handle
    reject: Reject
    counts: Counter[str] = field(default_factory=Counter)
    observe: Callable[[str, int], None] | None = None
    server: asyncio.Server | TlsServer | None = None
    port: int = 0
    closing: bool = False
    tasks: "dict[asyncio.Task[None], bool]" = field(default_factory=dict)  # connection task -> busy with a block
    writers: dict[str, asyncio.StreamWriter] = field(default_factory=dict)  # open connections by Peer.connection
    large: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LARGE_PLACES))

    def note(self, what: str, number: int = 1) -> None:
        """Count something that happened."""
        self.counts[what] += number
        if self.observe is not None:
            self.observe(what, number)

    async def push(self, connection: str, content: bytes) -> bool:
        """Send a block that answers nothing just received (a later application ACK); False if that connection is gone, or does not read."""
        writer = self.writers.get(connection)
        if writer is None or writer.is_closing():
            return False
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            if await _write(self, writer, content):
                return True
            self.note("closed:not-read")
            writer.transport.abort()
        return False

    async def close(self, grace: float = 15.0) -> None:
        """Accept no more; let blocks in work be answered for up to `grace` seconds, then close every connection."""
        self.closing = True
        if self.server is not None:
            self.server.close()
        for task, busy in list(self.tasks.items()):
            if not busy:
                task.cancel()
        if self.tasks:
            await asyncio.wait(list(self.tasks), timeout=grace)
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def open_door(
    settings: Settings, handle: Handle, reject: Reject, *, share_port: bool = False, observe: Callable[[str, int], None] | None = None
) -> Door:
    """Listen as the settings say; `share_port` lets several processes accept on one port. Raises ValueError if the address is not safe to open."""
    check_address(settings)
    door = Door(settings, handle, reject, observe=observe)

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _connection(door, reader, writer)

    context = tls_context(settings)
    if context is None:
        door.server = await asyncio.start_server(
            accepted, settings.mllp_host, settings.mllp_port, reuse_port=share_port or None, limit=CHUNK, backlog=BACKLOG
        )
    else:
        sockets = await listen(settings.mllp_host, settings.mllp_port, share_port=share_port)
        door.server = TlsServer(sockets, accepted, partial(_admitted, door), partial(_no_handshake, door), context)
        door.server.start()
    door.port = int(door.server.sockets[0].getsockname()[1])
    return door


def _admitted(door: Door, address: str, under_way: int) -> bool:
    """True if a client may begin a TLS handshake."""
    refused = "" if _is_allowed(door.settings, address) else "not-allowed"
    if not refused and len(door.tasks) + under_way >= door.settings.mllp_max_connections:
        refused = "too-many"
    if refused:
        _closed(door, address, refused)
    return not refused


def _no_handshake(door: Door, address: str, error: str) -> None:
    """A client that speaks no TLS, or shows no certificate that is trusted."""
    _closed(door, address, "tls", error=error)


def _closed(door: Door, address: str, reason: str, **more: str) -> None:
    """A connection that was never served: it is counted and logged like one that was."""
    door.note("connections")
    door.note(f"closed:{reason}")
    LOG.warning("connection closed", extra={"fields": {"peer": address, "reason": reason, **more}})


def check_address(settings: Settings) -> None:
    """Raises ValueError where MLLP would be open to a network without client certificates or an allow-list."""
    protected = bool(settings.mllp_allow) or bool(settings.mllp_tls_cert and settings.mllp_tls_client_ca)
    if not protected and not _is_loopback(settings.mllp_host):
        raise ValueError(
            "FHIR_MLLP_HOST is not a loopback address: set FHIR_MLLP_TLS_CERT, FHIR_MLLP_TLS_KEY and FHIR_MLLP_TLS_CLIENT_CA, or FHIR_MLLP_ALLOW"
        )
    for network in _networks(settings.mllp_allow):
        ip_network(network, strict=False)


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """The TLS context of the door; client certificates are required where a client CA is given. None: plain TCP."""
    if not settings.mllp_tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.mllp_tls_cert, settings.mllp_tls_key or None)
    if settings.mllp_tls_client_ca:
        context.load_verify_locations(settings.mllp_tls_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _networks(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _is_allowed(settings: Settings, address: str) -> bool:
    networks = _networks(settings.mllp_allow)
    return not networks or any(ip_address(address) in ip_network(network, strict=False) for network in networks)


def _peer(writer: asyncio.StreamWriter) -> Peer:
    certificate: dict[str, Any] = writer.get_extra_info("peercert") or {}
    names = [value for key, value in certificate.get("subjectAltName", ()) if key == "DNS"][:1]  # of those that have no common name any more
    names += [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    address = str((writer.get_extra_info("peername") or ("",))[0])
    return Peer(address, names[-1] if names else "", uuid.uuid4().hex)


async def _connection(door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection from accept to close; the reason it ended is counted and logged."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a connection is served by a task")
    peer = _peer(writer)
    door.tasks[task] = False
    door.note("connections")
    reason = "failure"
    try:
        reason = await _serve(door, reader, writer, peer, task)
    except asyncio.CancelledError:
        reason = "shutdown"
    except (ConnectionError, ssl.SSLError) as error:
        reason = "reset" if isinstance(error, ConnectionError) else "tls"
    finally:
        del door.tasks[task]
        door.writers.pop(peer.connection, None)
        door.note(f"closed:{reason}")
        LOG.info("connection closed", extra={"fields": {"peer": peer.address, "reason": reason, "connection": peer.connection}})
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(writer.wait_closed(), 2.0)


async def _serve(door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer, task: "asyncio.Task[None]") -> str:
    """Serve blocks until the connection ends; returns why it ended."""
    if not _is_allowed(door.settings, peer.address):
        return "not-allowed"
    if len(door.tasks) > door.settings.mllp_max_connections:
        return "too-many"
    door.writers[peer.connection] = writer
    framer, noise, place = Framer(door.settings.mllp_max_frame), 0, _Place(door.large)
    try:
        while not door.closing:
            events, ended = await _next(door, reader, framer, place)
            for event in events:
                noise += event.size if isinstance(event, Noise) else 0
                door.tasks[task] = True
                if not await _answer(door, writer, event, peer):
                    return "not-read"
                door.tasks[task] = False
            if ended:
                return ended
            if noise > MAX_NOISE:
                return "noise"
    finally:
        place.leave()
    return "shutdown"


class _Place:
    """A connection's claim on one of the few places for large blocks, so that memory stays bounded whatever the number of connections."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places, self._taken = places, False

    async def take(self) -> None:
        if not self._taken:
            await self._places.acquire()
            self._taken = True

    def leave(self) -> None:
        if self._taken:
            self._places.release()
            self._taken = False


async def _next(door: Door, reader: asyncio.StreamReader, framer: Framer, place: _Place) -> tuple[list[Event], str]:
    """The next events and, if the connection is over, why. A silent sender within a block is given up after the read time-out."""
    if framer.buffered > LARGE:
        await place.take()
    elif not framer.inside:
        place.leave()
    seconds = QUIET_SECONDS if framer.waiting else door.settings.mllp_read_seconds if framer.inside else door.settings.mllp_idle_seconds
    try:
        async with asyncio.timeout(seconds or None):
            data = await reader.read(CHUNK)
    except TimeoutError:
        if framer.waiting:
            return framer.quiet(), ""
        return (framer.close(), "read-timeout") if framer.inside else ([], "idle")
    if not data:
        return framer.close(), "end"
    return framer.receive(data), ""


async def _answer(door: Door, writer: asyncio.StreamWriter, event: Event, peer: Peer) -> bool:
    """Answer one event; False if the answer could not be written in time."""
    if isinstance(event, Noise):
        door.note("noise_bytes", event.size)
        return True
    if isinstance(event, Broken):
        door.note(f"broken:{event.reason}")
        LOG.warning(
            "block not taken", extra={"fields": {"peer": peer.address, "reason": event.reason, "size": event.size, "connection": peer.connection}}
        )
        if not await _not_taken(door, writer):
            return False
        answer = door.reject(event.head, event.reason)
    elif event.data in COMMIT_BYTES:
        door.note("commit_bytes")
        return True
    else:
        door.note("frames")
        answer = await _handled(door, writer, event, peer)
    if answer is None:
        door.note("unanswered")
        return True
    return await _write(door, writer, answer)


async def _not_taken(door: Door, writer: asyncio.StreamWriter) -> bool:
    """MLLP release 2: say by the commit byte NAK that a block is not in safe storage; False if it could not be written in time."""
    return not door.settings.mllp_commit_bytes or await _write(door, writer, COMMIT_BYTES[1])


async def _handled(door: Door, writer: asyncio.StreamWriter, event: Frame, peer: Peer) -> bytes | None:
    """The answer to one block. The border of this door: whatever fails behind it is logged by its kind and answered."""
    committed = False

    async def stored() -> None:
        nonlocal committed
        committed = True
        if door.settings.mllp_commit_bytes:
            await _write(door, writer, COMMIT_BYTES[0])

    try:
        answer = await door.handle(event.data, peer, stored)
        if not committed:
            await _not_taken(door, writer)
        return answer
    except Exception as error:
        door.note("failures")
        LOG.error("message failed", extra={"fields": {"error": type(error).__name__, "connection": peer.connection}}, exc_info=_without_text(error))
        if not committed:
            await _not_taken(door, writer)
        return door.reject(event.data[:4096], "failure")


def _without_text(error: BaseException) -> Any:
    """The exception with its kind and place but without its text, which could repeat a patient's data."""
    kind = type(type(error).__name__, (Exception,), {})
    return (kind, kind(), error.__traceback__)


async def _write(door: Door, writer: asyncio.StreamWriter, content: bytes) -> bool:
    """Write one block; False if the other end does not take it within the write time-out."""
    writer.write(wrap(content))
    try:
        async with asyncio.timeout(door.settings.mllp_write_seconds):
            await writer.drain()
    except TimeoutError:
        return False
    return True
