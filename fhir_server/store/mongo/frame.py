"""A transaction as its commands see it: over the lean channel of the embedded server, or through a session of PyMongo.

Both speak the same commands, so that what is read and written in a transaction is said once. A command in a transaction costs PyMongo 250-350 µs of
CPU and the lean channel a fifth of that, and a message of a feed needs a dozen. A frame serves one command at a time. Whatever a command raises,
the transaction is over. https://www.mongodb.com/docs/manual/core/transactions/
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from bson.raw_bson import RawBSONDocument
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.store.mongo.client import Database
from fhir_server.store.mongo.document import CODEC, INLINE_BYTES, RAW, Document, decoded
from fhir_server.store.mongo.lean import failures

BATCH = 1000  # rows of one answer
MOST_AT_ONCE = 1000  # documents in one command, and not more bytes than one document may have
SENT = RAW.with_options(type_registry=CODEC.type_registry)


class Frame(Protocol):
    """One open transaction."""

    async def command(self, command: Document) -> Document:
        """The server's answer, decoded exactly. Raises PyMongoError."""

    async def rows(self, command: Document) -> list[Document]:
        """All rows of a `find` or `aggregate` command. Raises PyMongoError."""

    async def commit(self) -> None:
        """Commit. Raises PyMongoError, labelled UNKNOWN_COMMIT where the outcome is not known."""

    async def abort(self) -> None:
        """Roll back what was not committed. Raises PyMongoError where the transaction is gone already, or nobody answers."""


class DriverFrame:
    """A transaction of a session of PyMongo."""

    def __init__(self, database: Database, session: AsyncClientSession) -> None:
        self.database, self.session = database, session

    async def command(self, command: Document) -> Document:
        """See `Frame`. The answer is taken as raw BSON, because PyMongo decodes a command's answer without our decimals."""
        answer: RawBSONDocument = await self.database.command(command, codec_options=SENT, session=self.session)
        return decoded(bytes(answer.raw))

    async def rows(self, command: Document) -> list[Document]:
        """See `Frame`."""
        cursor = await self.database.cursor_command(batched(command), codec_options=CODEC, session=self.session)
        return await cursor.to_list()

    async def commit(self) -> None:
        """See `Frame`."""
        await self.session.commit_transaction()

    async def abort(self) -> None:
        """See `Frame`."""
        if self.session.in_transaction:
            await self.session.abort_transaction()


def batched(command: Document) -> Document:
    """A `find` or `aggregate` command and how its answer is cut."""
    if "aggregate" in command:
        return {**command, "cursor": {"batchSize": BATCH}}
    return command if "batchSize" in command else {**command, "batchSize": BATCH}


async def insert(frame: Frame, collection: str, documents: Sequence[RawBSONDocument]) -> None:
    """Insert documents, in order. Raises DuplicateKeyError among others."""
    for part in _parts(documents, [len(one.raw) for one in documents]):
        await _written(frame, {"insert": collection, "documents": part, "ordered": True})


async def update(frame: Frame, collection: str, updates: Sequence[Document]) -> int:
    """Make the updates ({q, u, upsert, multi}), in order; how many documents matched or were made."""
    sizes = [len(one["u"].raw) if isinstance(one["u"], RawBSONDocument) else 0 for one in updates]
    return sum([await _written(frame, {"update": collection, "updates": part, "ordered": True}) for part in _parts(updates, sizes)])


async def delete(frame: Frame, collection: str, deletes: Sequence[Document]) -> int:
    """Make the deletions ({q, limit}); how many documents are gone."""
    return sum([await _written(frame, {"delete": collection, "deletes": part, "ordered": True}) for part in _parts(deletes, [0] * len(deletes))])


async def _written(frame: Frame, command: Document) -> int:
    answer = await frame.command(command)
    for failure in failures(answer, 1).values():
        raise failure
    return int(answer["n"])


def _parts(items: Sequence[Any], sizes: Sequence[int]) -> Iterator[list[Any]]:
    """The items in pieces that a command can carry."""
    part: list[Any] = []
    total = 0
    for item, size in zip(items, sizes, strict=True):
        if part and (len(part) == MOST_AT_ONCE or total + size > INLINE_BYTES):
            yield part
            part, total = [], 0
        part.append(item)
        total += size
    if part:
        yield part
