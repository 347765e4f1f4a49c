"""Back up a tenant's database to one file, and restore it into an empty one.

The file is gzip over BSON documents: {format, version, made}, then per collection {collection, indexes} and parts, each {collection, size,
crc} followed by so many bytes of rows, at last {end, counts}. All of it is one snapshot of the database, taken while it serves. Left out is
what has no meaning elsewhere: floors of writers, guards. https://www.mongodb.com/docs/manual/reference/read-concern-snapshot/
"""

import asyncio
import gzip
import os
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import bson
from bson.codec_options import CodecOptions
from bson.errors import InvalidBSON
from bson.raw_bson import RawBSONDocument
from pymongo import IndexModel, ReplaceOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import OperationFailure

from conformance.outcome import refuse
from fhir_server.store.mongo.client import Client
from fhir_server.store.mongo.document import RAW, Document
from fhir_server.store.mongo.errors import surfaced
from fhir_server.store.mongo.guard import GUARDS
from fhir_server.store.mongo.horizon import WRITERS
from fhir_server.store.mongo.indexes import is_type
from fhir_server.store.mongo.read import HISTORY
from fhir_server.store.mongo.store import MongoStore

FORMAT, VERSION = "fhir-exchange backup", 1
INBOX = "inbox"
LEFT_OUT = frozenset({GUARDS, WRITERS})
PART_ROWS, PART_BYTES = 500, 4 * 1024 * 1024
HISTORY_WINDOW_SECONDS = 6 * 3600  # a snapshot must stay readable as long as a backup may take
LONGEST_RECORD = 1024 * 1024
WINDOW = "minSnapshotHistoryWindowInSeconds"
PLAIN: "CodecOptions[Document]" = CodecOptions()
Progress = Callable[[str, int], None]  # (collection, documents so far)


class BadArchive(ValueError):
    """The file is not a whole backup of a version that this exchange reads; the text says why."""


def _silent(collection: str, count: int) -> None:
    """No progress is shown."""


async def backup(store: MongoStore, target: Path, progress: Progress = _silent) -> dict[str, int]:
    """Write the backup, readable by its owner only; documents per collection. The file appears under its name when it is whole."""
    unfinished = target.with_name(target.name + ".part")
    with surfaced():
        names = sorted(name for name in await store.database.list_collection_names() if name not in LEFT_OUT and not name.startswith("system."))
        async with _kept_history(store.client), store.client.start_session(snapshot=True) as session:
            with unfinished.open("wb") as plain, gzip.GzipFile(fileobj=plain, mode="wb", compresslevel=4) as packed:
                os.chmod(unfinished, 0o600)
                packed.write(bson.encode({"format": FORMAT, "version": VERSION, "made": await _now(store)}))
                counts = {name: await _dump(store, name, packed, session, progress) for name in names}
                packed.write(bson.encode({"end": True, "counts": counts}))
    unfinished.replace(target)
    return counts


async def _now(store: MongoStore) -> Any:
    return (await store.client.admin.command("hello"))["localTime"]


@asynccontextmanager
async def _kept_history(client: Client) -> AsyncIterator[None]:
    """Ask the server to keep old snapshots longer meanwhile; where the user may not, its own setting bounds how long a backup can take."""
    before = None
    try:
        before = (await client.admin.command({"getParameter": 1, WINDOW: 1}))[WINDOW]
        await client.admin.command({"setParameter": 1, WINDOW: max(before, HISTORY_WINDOW_SECONDS)})
    except OperationFailure:
        before = None
    try:
        yield
    finally:
        if before is not None:
            await client.admin.command({"setParameter": 1, WINDOW: before})


async def _dump(store: MongoStore, name: str, packed: gzip.GzipFile, session: AsyncClientSession, progress: Progress) -> int:
    indexes = [dict(row) async for row in await store.database[name].list_indexes()]
    packed.write(bson.encode({"collection": name, "indexes": indexes}))
    total, size = 0, 0
    rows: list[RawBSONDocument] = []
    collection: AsyncCollection[Any] = store.database.get_collection(name, codec_options=RAW)
    async for row in collection.find({}, session=session, batch_size=PART_ROWS):
        rows.append(row)
        size += len(row.raw)
        if len(rows) >= PART_ROWS or size >= PART_BYTES:
            total += await _part(name, rows, packed)
            rows, size = [], 0
            progress(name, total)
    total += await _part(name, rows, packed)
    progress(name, total)
    return total


async def _part(name: str, rows: list[RawBSONDocument], packed: gzip.GzipFile) -> int:
    """One part is written apart from the rows, each of which may be 16 MB: a head, then the rows as they are."""
    if rows:
        data = b"".join(row.raw for row in rows)
        packed.write(bson.encode({"collection": name, "size": len(data), "crc": zlib.crc32(data)}))
        await asyncio.to_thread(packed.write, data)
    return len(rows)


async def restore(store: MongoStore, source: Path, progress: Progress = _silent) -> dict[str, int]:
    """Fill a store without content, which nobody serves meanwhile; documents per collection. Raises BadArchive, Refusal 409 if it holds any.

    A file that is cut off is found out at its end: drop the database then and restore again.
    """
    with surfaced():
        await _refuse_unless_empty(store)
        counts: dict[str, int] = {}
        with gzip.open(source, "rb") as packed:
            documents = _documents(packed)
            _check_head(next(documents, {}))
            for head in documents:
                if head.get("end"):
                    if head["counts"] != counts:
                        raise BadArchive("the backup does not hold as many documents as it says")
                    return counts
                await _fill(store, head, packed, counts, progress)
        raise BadArchive("the backup is cut off: its end is missing")


async def _refuse_unless_empty(store: MongoStore) -> None:
    for name in await store.database.list_collection_names():
        if _is_content(name) and await store.database[name].find_one({}, {"_id": 1}) is not None:
            raise refuse("conflict", f"the store is not empty (it has {name}): a backup is restored into an empty one only")


def _is_content(name: str) -> bool:
    """True for what clients and senders gave: resources, their history, messages. The rest is the exchange's own keeping."""
    return is_type(name) or name in (HISTORY, INBOX)


def _documents(packed: gzip.GzipFile) -> Iterator[Document]:
    """The records between the rows."""
    while length := _read(packed, 4, 0):
        size = int.from_bytes(length, "little")
        if not 5 <= size <= LONGEST_RECORD:
            raise BadArchive("the file is damaged, or not a backup of this exchange")
        try:
            yield bson.decode(length + _read(packed, size - 4), PLAIN)
        except InvalidBSON as error:
            raise BadArchive("the file is damaged") from error


def _read(packed: gzip.GzipFile, size: int, least: int | None = None) -> bytes:
    """`size` bytes; `least` 0: or none at all, at the end."""
    try:
        data = packed.read(size)
    except (EOFError, OSError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
        raise BadArchive("the file is cut off, damaged, or not a backup of this exchange") from error
    if len(data) < size and (least is None or data):
        raise BadArchive("the file is cut off")
    return data


def _rows(data: bytes) -> Iterator[RawBSONDocument]:
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        yield RawBSONDocument(data[at : at + size])
        at += size


def _check_head(head: Document) -> None:
    if head.get("format") != FORMAT:
        raise BadArchive("the file is not a backup of this exchange")
    if head["version"] != VERSION:
        raise BadArchive(f"the backup has version {head['version']}, this exchange reads {VERSION}")


async def _fill(store: MongoStore, head: Document, packed: gzip.GzipFile, counts: dict[str, int], progress: Progress) -> None:
    name = head["collection"]
    if "indexes" in head:
        counts[name] = 0
        await _prepare(store, name, head["indexes"])
        return
    data = _read(packed, head["size"])
    if zlib.crc32(data) != head["crc"]:
        raise BadArchive("the file is damaged: a checksum does not fit")
    rows = list(_rows(data))
    if _is_content(name):
        await store.database[name].insert_many(rows, ordered=False)
    else:  # an exchange that ever served this store left keys and leases there: what the backup has of the same id takes their place
        await store.database[name].bulk_write([ReplaceOne({"_id": row["_id"]}, row, upsert=True) for row in rows], ordered=False)
    counts[name] += len(rows)
    progress(name, counts[name])


async def _prepare(store: MongoStore, name: str, indexes: list[Document]) -> None:
    if is_type(name):
        await store.ensure([name])  # with the indexes of this version, which need not be those of the backup's
        return
    models = []
    for index in indexes:
        options = {key: value for key, value in index.items() if key not in ("v", "key", "ns")}
        if index["name"] != "_id_":
            models.append(IndexModel(list(index["key"].items()), **options))
    if models:
        await store.database[name].create_indexes(models)
