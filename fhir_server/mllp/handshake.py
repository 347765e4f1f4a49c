"""TLS for the MLLP door, with handshakes that cannot fail unseen: asyncio's own server drops a client whose handshake fails without a word to anybody.

An expired certificate is the commonest reason for a feed to fall silent, so it must be counted and logged; and who may not connect is turned away before
a handshake costs anything.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

SECONDS = 10.0
BACKLOG = 100
CROWDED_SECONDS = 0.5  # wait after an accept that failed, as it does where no file descriptor is left
Accepted = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Admits = Callable[[str, int], bool]  # (address, handshakes under way) -> it may go on; a refusal is counted by whoever refuses
Failed = Callable[[str, str], None]  # (address, kind of error)


@dataclass(slots=True, eq=False)
class TlsServer:
    """A listening server. Its connections are handed over when their handshake is done."""

    sockets: tuple[socket.socket, ...]
    accepted: Accepted
    admits: Admits
    failed: Failed
    context: ssl.SSLContext
    tasks: "set[asyncio.Task[None]]" = field(default_factory=set)
    under_way: int = 0

    def start(self) -> None:
        """Accept from now on."""
        for listening in self.sockets:
            self._run(self._accept(listening))

    def close(self) -> None:
        """Accept no more, and give up what is under way."""
        for task in list(self.tasks):
            task.cancel()
        for listening in self.sockets:
            listening.close()

    def _run(self, work: "Awaitable[None]") -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, address = await asyncio.get_running_loop().sock_accept(listening)
            except OSError:
                await asyncio.sleep(CROWDED_SECONDS)
                continue
            self._run(self._greet(connection, str(address[0])))

    async def _greet(self, connection: socket.socket, address: str) -> None:
        """The handshake of one connection."""
        if not self.admits(address, self.under_way):
            connection.close()
            return
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader, self.accepted)
        self.under_way += 1
        try:
            async with asyncio.timeout(SECONDS):
                await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, connection, ssl=self.context)
        except (OSError, TimeoutError, asyncio.CancelledError) as error:
            self.failed(address, type(error).__name__)
            connection.close()
        finally:
            self.under_way -= 1


async def listen(host: str, port: int, *, share_port: bool) -> tuple[socket.socket, ...]:
    """Listening sockets for every address of the host. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    made: list[socket.socket] = []
    with contextlib.ExitStack() as stack:
        for family, address in dict.fromkeys((one[0], one[4]) for one in found):
            one = stack.enter_context(socket.create_server(address[:2], family=family, backlog=BACKLOG, reuse_port=share_port))
            one.setblocking(False)
            made.append(one)
        stack.pop_all()
    return tuple(made)
