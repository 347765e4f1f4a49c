"""A lean channel to the embedded server for the hottest commands: read one, find a page, insert one.

PyMongo's asynchronous client spends 250-350 µs of CPU on a command (pool, sessions, two tasks per answer), several times what the rest of a
read takes; over the private Unix socket, which needs neither authentication nor TLS nor discovery, the same command costs about 50 µs here.
Only OP_MSG, one request at a time per connection. Whatever is out of the ordinary (a lost connection, a server that is not primary) raises
PyMongo's AutoReconnect, and the caller takes PyMongo's way, which waits and retries. DECISIONS.md has the figures.

https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/#op_msg
"""

import asyncio
import struct
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import bson
from bson.binary import UUID_SUBTYPE, Binary
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.errors import AutoReconnect, DuplicateKeyError, InvalidURI, OperationFailure, PyMongoError, WriteConcernError, WTimeoutError
from pymongo.uri_parser import parse_uri

from fhir_server.store.mongo.document import CODEC, Document
from fhir_server.store.mongo.errors import DUPLICATE_KEY, STOPPING

OP_MSG = 2013
MOST_CONNECTIONS = 64
MORE_ROWS = 100
LONGEST_ANSWER_SECONDS = 60.0
SWEEP_SECONDS = 5.0
MOST_UNDER_WAY = 2  # insert commands per collection at once: others wait for it and travel together, which costs both sides less than one by one
BATCH_BYTES, BATCH_DOCUMENTS = 16 * 1024 * 1024, 100
HEAD = struct.Struct("<iiiiIB")  # length, request id, response to, opcode, flags, kind of the only section
WTIMEOUT = 64
CLIENT: Document = {"driver": {"name": "fhir-exchange lean", "version": "1"}, "os": {"type": sys.platform}}


class _Wire(asyncio.Protocol):
    """One connection; at most one question is open."""

    def __init__(self, pool: "Lean") -> None:
        self.pool = pool
        self.transport: asyncio.Transport | None = None
        self.waiting: asyncio.Future[bytes] | None = None
        self.asked = 0.0
        self.buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from asyncio's

    def data_received(self, data: bytes) -> None:
        """Collect the answer; hand it over when it is whole."""
        if self.buffer or len(data) < 4 or len(data) != int.from_bytes(data[:4], "little"):
            self.buffer += data
            if len(self.buffer) < 4 or len(self.buffer) < int.from_bytes(self.buffer[:4], "little"):
                return
            data = bytes(self.buffer)
            self.buffer.clear()
        waiting, self.waiting = self.waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(data)

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.pool.drop(self)
        waiting, self.waiting = self.waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(AutoReconnect("the connection to the embedded database was lost"))

    def ask(self, message: bytes) -> "asyncio.Future[bytes]":
        """Send a question; its answer."""
        assert self.transport is not None
        self.waiting = asyncio.get_running_loop().create_future()
        self.asked = time.monotonic()
        self.transport.write(message)
        return self.waiting

    def close(self) -> None:
        """Give the connection up."""
        if self.transport is not None:
            self.transport.abort()


@dataclass(slots=True)
class Session:
    """A server session: one transaction at a time, numbered (lean_tx.py)."""

    lsid: Document = field(default_factory=lambda: {"id": Binary(uuid.uuid4().bytes, UUID_SUBTYPE)})
    number: int = 0


_Waiting = tuple[RawBSONDocument, "asyncio.Future[None]"]


@dataclass(slots=True, eq=False)
class _Crowd:
    """Documents of one collection and write concern that wait to be inserted, and how many batches are on their way."""

    collection: str
    concern: Document
    waiting: list[_Waiting] = field(default_factory=list)
    under_way: int = 0
    task: "asyncio.Task[None] | None" = None  # held, so that it is not collected while it runs

    def batch(self) -> list[_Waiting]:
        """The next documents that fit into one command."""
        taken: list[_Waiting] = []
        size = 0
        for document, future in self.waiting:
            size += len(document.raw)
            if taken and (size > BATCH_BYTES or len(taken) == BATCH_DOCUMENTS):
                break
            taken.append((document, future))
        del self.waiting[: len(taken)]
        return [one for one in taken if not one[1].done()] or self.batch() if taken else []


@dataclass(slots=True, eq=False)
class Lean:
    """A pool of connections to one Unix socket, for one database."""

    path: str
    database: str
    name: str = ""  # of this process, as the server shows it: by it the sessions of a dead one are found
    free: list[_Wire] = field(default_factory=list)
    wires: set[_Wire] = field(default_factory=set)
    opening: int = 0
    queue: "deque[asyncio.Future[_Wire]]" = field(default_factory=deque)
    crowds: dict[tuple[Any, ...], _Crowd] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)  # of transactions, free ones
    _sweeper: asyncio.TimerHandle | None = None

    async def command(self, command: Document, codec: "CodecOptions[Document]" = CODEC, *, database: str = "") -> Document:
        """A command's answer, decoded exactly. Raises AutoReconnect for a lost connection, OperationFailure for the server's refusal."""
        answer = bson.decode((await self._exchange(_message(command, database or self.database)))[HEAD.size :], codec)
        if answer.get("ok") != 1:
            _refuse(answer)
        return answer

    async def rows(
        self, command: Document, codec: "CodecOptions[Document]" = CODEC, made: Callable[[Document], Document] | None = None
    ) -> list[Document]:
        """All rows of a find or aggregate command, each as `made` makes it. Its cursor is read to the end, so it should have a limit."""
        cursor = (await self.command(command, codec))["cursor"]
        rows: list[Document] = cursor["firstBatch"] if made is None else [made(row) for row in cursor["firstBatch"]]
        while cursor["id"]:
            collection = command.get("find") or command["aggregate"]
            more = {"getMore": bson.Int64(cursor["id"]), "collection": collection, "batchSize": MORE_ROWS}
            cursor = (await self.command(more, codec))["cursor"]
            rows += cursor["nextBatch"] if made is None else [made(row) for row in cursor["nextBatch"]]
        return rows

    async def insert(self, collection: str, document: RawBSONDocument, concern: Document) -> None:
        """Insert one document; what arrives while others are on their way travels together. Raises DuplicateKeyError, WriteConcernError
        (written, but not acknowledged as asked), else as `command`.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        crowd = self.crowds.setdefault((collection, *concern.items()), _Crowd(collection, concern))
        crowd.waiting.append((document, future))
        if crowd.under_way < MOST_UNDER_WAY:
            crowd.under_way += 1
            crowd.task = asyncio.get_running_loop().create_task(self._carry(crowd))
        await future

    async def _carry(self, crowd: "_Crowd") -> None:
        """Insert what waits, batch after batch, and tell each caller what became of its document."""
        batch: list[_Waiting] = []
        try:
            while batch := crowd.batch():
                command = {
                    "insert": crowd.collection,
                    "documents": [document for document, _ in batch],
                    "ordered": False,
                    "writeConcern": crowd.concern,
                }
                try:
                    answer = await self.command(command)
                except PyMongoError as error:
                    _tell(batch, dict.fromkeys(range(len(batch)), error))
                else:
                    _tell(batch, failures(answer, len(batch)))
        finally:  # whatever ends this task, nobody waits for ever
            crowd.under_way -= 1
            left = [*batch, *crowd.waiting]
            crowd.waiting.clear()
            _tell(left, dict.fromkeys(range(len(left)), AutoReconnect("the insert was given up")))

    async def _exchange(self, message: bytes) -> bytes:
        wire = self.free.pop() if self.free else await self._another()
        try:
            answer = await wire.ask(message)
        except BaseException:  # also a cancelled request: the answer that is still to come must not meet the next question
            wire.close()
            raise
        self._release(wire)
        return answer

    def _release(self, wire: _Wire) -> None:
        while self.queue:
            next_one = self.queue.popleft()
            if not next_one.done():
                next_one.set_result(wire)
                return
        self.free.append(wire)

    async def _another(self) -> _Wire:
        if len(self.wires) + self.opening >= MOST_CONNECTIONS:
            waiting: asyncio.Future[_Wire] = asyncio.get_running_loop().create_future()
            self.queue.append(waiting)
            return await waiting
        self.opening += 1
        try:
            _, wire = await asyncio.get_running_loop().create_unix_connection(lambda: _Wire(self), self.path)
        except OSError as error:
            raise AutoReconnect("the embedded database cannot be reached") from error
        finally:
            self.opening -= 1
        self.wires.add(wire)
        if self._sweeper is None:
            self._sweep()
        try:
            await wire.ask(_message({"hello": 1, "client": {**CLIENT, "application": {"name": self.name[:128]}}}, "admin"))
        except BaseException:
            wire.close()
            raise
        return wire

    def drop(self, wire: _Wire) -> None:
        """A connection ended: it is not used again, and one that waits for a place opens its own."""
        self.wires.discard(wire)
        if wire in self.free:
            self.free.remove(wire)
        while self.queue:
            waiting = self.queue.popleft()
            if not waiting.done():
                waiting.set_exception(AutoReconnect("the connection to the embedded database was lost"))
                return

    def _sweep(self) -> None:
        """Give up connections whose answer does not come (a stopped server)."""
        late = time.monotonic() - LONGEST_ANSWER_SECONDS
        for wire in list(self.wires):
            if wire.waiting is not None and wire.asked < late:
                wire.close()
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def close(self) -> None:
        """Close all connections."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for wire in list(self.wires):
            wire.close()


def _message(command: Document, database: str) -> bytes:
    body = bson.encode({**command, "$db": database}, codec_options=CODEC)
    return HEAD.pack(len(body) + HEAD.size, 1, 0, OP_MSG, 0, 0) + body


def failures(answer: Document, sent: int) -> dict[int, PyMongoError]:
    """By position in the batch: why a document was not written, or not acknowledged as asked."""
    found: dict[int, PyMongoError] = {}
    if "writeConcernError" in answer:
        failure = answer["writeConcernError"]
        late = WTimeoutError if failure["code"] == WTIMEOUT else WriteConcernError
        found = {at: late("the write was not acknowledged as asked", failure["code"], failure) for at in range(sent)}
    for failure in answer.get("writeErrors", ()):
        kind = DuplicateKeyError if failure["code"] == DUPLICATE_KEY else OperationFailure
        found[failure["index"]] = kind("an insert failed", failure["code"], failure)
    return found


def _tell(batch: "Sequence[_Waiting]", failures: Mapping[int, PyMongoError]) -> None:
    for at, (_, future) in enumerate(batch):
        if not future.done():  # a cancelled caller does not wait any more
            if at in failures:
                future.set_exception(failures[at])
            else:
                future.set_result(None)


def _refuse(answer: Document) -> None:
    code = int(answer.get("code", 0))
    if code in STOPPING:
        raise AutoReconnect("the embedded database is not ready for this now")
    raise OperationFailure("the database refused a command", code, answer)


def lean_for(uri: str, database: str, name: str) -> Lean | None:
    """The channel for a URI that names exactly one Unix socket without credentials (the embedded server), else None."""
    try:
        parsed = parse_uri(uri)
    except (InvalidURI, ValueError):
        return None
    nodes = parsed["nodelist"]
    plain = len(nodes) == 1 and str(nodes[0][0]).endswith(".sock") and not parsed["username"] and not parsed["options"].get("tls")
    return Lean(str(nodes[0][0]), database, name) if plain and parsed["options"].get("directConnection") else None
