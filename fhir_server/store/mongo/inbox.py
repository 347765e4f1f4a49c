"""The inbox and the feed's documents in MongoDB.

Collections: `inbox` (one document per message), `inbox_raw` (GridFS, raw bytes beyond RAW_INLINE), `feed` (identity, aliases, states), `merges`.
All of them are written with the database's own concern (majority, journaled) or inside the caller's transaction.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

from gridfs.asynchronous import AsyncGridFSBucket
from gridfs.errors import FileExists
from pymongo import ASCENDING, DESCENDING, IndexModel, ReplaceOne, ReturnDocument
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import AutoReconnect, BulkWriteError, OperationFailure, WriteConcernError

from fhir_server.store import Tx
from fhir_server.store.inbox import ACCEPTED, FAILED, REUSED, SEPARATOR, Busy, Document, Entry
from fhir_server.store.mongo.client import MAJORITY
from fhir_server.store.mongo.document import encoded, raw
from fhir_server.store.mongo.errors import DUPLICATE_KEY, surfaced
from fhir_server.store.mongo.frame import Frame, batched, delete, update
from fhir_server.store.mongo.lean import Lean

NAMESPACE_EXISTS = 48
RAW_INLINE = 4 * 1024 * 1024
KINDS = ("feed", "merges")
NAMES = tuple(one.name for one in fields(Entry) if one.name != "id")
TUPLES = ("order", "problems", "refs", "flags")
WITHOUT_RAW = {"raw": 0}
INDEXES = [
    IndexModel([("key", ASCENDING)], name="key", unique=True),
    IndexModel([("first", ASCENDING)], name="first", unique=True, partialFilterExpression={"first": {"$exists": True}}),
    IndexModel([("order", ASCENDING), ("_id", ASCENDING)], name="pending", partialFilterExpression={"status": "received"}),
    IndexModel([("status", ASCENDING), ("_id", DESCENDING)], name="status"),
    IndexModel([("source", ASCENDING), ("_id", DESCENDING)], name="source"),
    IndexModel([("refs", ASCENDING)], name="refs"),
    IndexModel([("source", ASCENDING), ("_id", ASCENDING)], name="answers", partialFilterExpression={"due": True}),
]


async def prepare(database: AsyncDatabase[Document]) -> None:
    """Create the collections and their indexes; call it once at start, outside of any transaction."""
    present = set(await database.list_collection_names())
    for name in ("inbox", *KINDS):
        if name not in present:
            try:
                await database.create_collection(name, check_exists=False)
            except OperationFailure as error:
                if error.code != NAMESPACE_EXISTS:  # another worker that starts at the same moment was first
                    raise
    await database["inbox"].create_indexes(INDEXES)
    names = ("tracks.ref", "ref", "patients", "orders", "g")
    await database["feed"].create_indexes([IndexModel([(name, ASCENDING)], name=name, sparse=True) for name in names])
    await database["merges"].create_indexes([IndexModel([("refs", ASCENDING)], name="refs"), IndexModel([("state", ASCENDING)], name="state")])


def _document(entry: Entry) -> Document:
    row: Document = {name: getattr(entry, name) for name in NAMES}
    row["_id"] = entry.id
    if entry.control_id and not entry.origin:
        row["first"] = entry.key.rpartition(SEPARATOR)[0]
    row["extra"] = dict(entry.extra)
    for name in TUPLES:
        row[name] = list(row[name])
    return row


def _entry(row: Mapping[str, Any]) -> Entry:
    values = {name: row[name] for name in NAMES if name in row}
    for name in TUPLES:
        values[name] = tuple(values.get(name) or ())
    values["raw"] = bytes(values.get("raw") or b"")
    return Entry(id=row["_id"], **values)


def _taken(failures: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    """Which documents of an insert were not inserted, and in which index their key is taken; raises if there is another reason."""
    for failure in failures:
        if failure["code"] != DUPLICATE_KEY:
            raise BulkWriteError({"writeErrors": list(failures)})
    return {failure["index"]: "first" if "first" in failure.get("keyPattern", ()) else "key" for failure in failures}


def _frame(tx: Tx | None) -> Frame | None:
    """The transaction of a MongoTx."""
    return None if tx is None else tx.frame  # type: ignore[attr-defined]


def _border(tx: Tx | None) -> AbstractContextManager[None]:
    """Driver errors become refusals; inside a transaction its own border sees them, because it must know which to try again."""
    return surfaced() if tx is None else nullcontext()


@dataclass(frozen=True, slots=True)
class MongoInbox:
    """`Inbox` over one database. lean: the channel of the embedded server, if it is one."""

    database: AsyncDatabase[Document]
    lean: Lean | None = None

    async def receive(self, entries: Sequence[Entry]) -> list[tuple[Entry, bool]]:
        """See `Inbox.receive`."""
        with surfaced():
            rows = [await self._with_blob(_document(entry)) for entry in entries]
            taken = await self._insert(rows)
            again = [place for place, index in taken.items() if index == "first"]
            if again:
                for place in again:
                    del rows[place]["first"]
                    rows[place]["flags"] = [*rows[place]["flags"], REUSED]
                still = await self._insert([rows[place] for place in again])
                taken = {place: index for place, index in taken.items() if index != "first"} | {again[place]: index for place, index in still.items()}
            answers = []
            for place, entry in enumerate(entries):
                fresh = replace(entry, flags=tuple(rows[place]["flags"]))
                answers.append((await self._same(entry), False) if place in taken else (fresh, True))
            return answers

    async def _insert(self, rows: Sequence[Document]) -> dict[int, str]:
        """Insert what can be inserted; the places of the others and the name of the index in which each is taken."""
        try:
            if self.lean is not None:
                with suppress(AutoReconnect):
                    return await self._insert_lean(self.lean, rows)
            await self.database["inbox"].insert_many(rows, ordered=False)
        except BulkWriteError as error:
            return _taken(error.details["writeErrors"])
        return {}

    async def _insert_lean(self, lean: Lean, rows: Sequence[Document]) -> dict[int, str]:
        command = {"insert": "inbox", "documents": list(rows), "ordered": False, "writeConcern": MAJORITY.document}
        answer = await lean.command(command)
        if "writeConcernError" in answer:
            failure = answer["writeConcernError"]
            raise WriteConcernError("the message was not acknowledged as asked", failure["code"], failure)
        return _taken(answer.get("writeErrors", ()))

    async def _with_blob(self, row: Document) -> Document:
        if len(row["raw"]) > RAW_INLINE:
            with suppress(FileExists):  # the same entry, offered again after a failed insert
                await self._bucket().upload_from_stream_with_id(row["_id"], row["_id"], row["raw"])
            row["raw"], row["blob"] = b"", True
        return row

    async def _same(self, entry: Entry) -> Entry:
        if len(entry.raw) > RAW_INLINE:
            await self._bucket().delete(entry.id)
        row = await self.database["inbox"].find_one({"key": entry.key}, WITHOUT_RAW)
        if row is None:
            raise Busy
        return _entry(row)

    def _bucket(self) -> AsyncGridFSBucket:
        return AsyncGridFSBucket(self.database, "inbox_raw")

    async def _loaded(self, row: Document) -> Entry:
        if row.get("blob"):
            stream = await self._bucket().open_download_stream(row["_id"])
            row["raw"] = await stream.read()
        return _entry(row)

    async def get(self, id: str, *, raw: bool = False) -> Entry | None:
        """See `Inbox.get`."""
        with surfaced():
            row = await self.database["inbox"].find_one({"_id": id}, None if raw else WITHOUT_RAW)
            if row is None:
                return None
            return await self._loaded(row) if raw else _entry(row)

    async def claim(self, owner: str, until: datetime, now: datetime, limit: int) -> list[Entry]:
        """See `Inbox.claim`."""
        with surfaced():
            taken: list[Entry] = []
            free = {"status": "received", "$or": [{"until": None}, {"until": {"$lt": now}}]}
            rows = await self.database["inbox"].find(free, {"_id": 1}).sort("_id", ASCENDING).limit(limit).to_list()
            for row in rows:
                entry = await self.take(row["_id"], owner, until, now)
                if entry is not None:
                    taken.append(entry)
            return taken

    async def take(self, id: str, owner: str, until: datetime | None, now: datetime, *, accepted: bool = False) -> Entry | None:
        """See `Inbox.take`."""
        with surfaced():
            free = {"status": "received", "$or": [{"until": None}, {"until": {"$lt": now}}]}
            row = await self.database["inbox"].find_one_and_update(
                {"_id": id, "$or": [free, {"status": {"$in": sorted(FAILED | ACCEPTED if accepted else FAILED)}}]},
                {"$set": {"status": "received", "owner": owner, "until": until}, "$inc": {"attempt": 1}},
                return_document=ReturnDocument.AFTER,
            )
            return None if row is None else await self._loaded(row)

    async def extend(self, owner: str, until: datetime, *, only: str = "", besides: Collection[str] = ()) -> int:
        """See `Inbox.extend`."""
        with surfaced():
            held: Document = {
                "status": "received",
                "owner": owner,
                **({"_id": only} if only else {"_id": {"$nin": sorted(besides)}} if besides else {}),
            }
            done = await self.database["inbox"].update_many(held, {"$set": {"until": until}})
            return int(done.modified_count)

    async def release(self, id: str, owner: str) -> None:
        """See `Inbox.release`."""
        with surfaced():
            await self.database["inbox"].update_one({"_id": id, "status": "received", "owner": owner}, {"$set": {"owner": "", "until": None}})

    async def earlier(self, tx: Tx | None, entry: Entry) -> list[Entry]:
        """See `Inbox.earlier`."""
        with _border(tx):
            if not entry.order:
                return []
            before = {"status": "received", "order": {"$in": list(entry.order)}, "_id": {"$lt": entry.id}}
            found = await self._rows(tx, {"find": "inbox", "filter": before, "projection": WITHOUT_RAW, "hint": "pending"})
            return sorted([_entry(row) for row in found], key=lambda one: one.id)

    async def finish(self, tx: Tx | None, entry: Entry, changes: Mapping[str, Any]) -> None:
        """See `Inbox.finish`."""
        with _border(tx):
            held = {"_id": entry.id, "status": "received", "owner": entry.owner, "attempt": entry.attempt}
            change = {"$set": _plain(changes)}
            frame = _frame(tx)
            if frame is not None:
                matched = await update(frame, "inbox", [{"q": held, "u": change}])
            else:
                matched = (await self.database["inbox"].update_one(held, change)).matched_count
            if matched != 1:
                raise Busy

    async def claim_due(self, id: str, until: datetime, now: datetime) -> bool:
        """See `Inbox.claim_due`."""
        with surfaced():
            free = {"_id": id, "due": True, "$or": [{"until": None}, {"until": {"$lt": now}}]}
            return (await self.database["inbox"].update_one(free, {"$set": {"until": until}})).matched_count == 1

    async def mark(self, id: str, changes: Mapping[str, Any]) -> None:
        """See `Inbox.mark`."""
        with surfaced():
            await self.database["inbox"].update_one({"_id": id}, {"$set": _plain(changes)})

    async def search(self, filters: Mapping[str, Any], *, after: str = "", limit: int = 50, newest_first: bool = True) -> list[Entry]:
        """See `Inbox.search`."""
        with surfaced():
            wanted: Document = {
                name: value for name, value in filters.items() if name in ("source", "status", "event", "control_id", "order", "due", "origin")
            }
            if not isinstance(wanted.get("source", ""), str):
                wanted["source"] = {"$in": list(wanted["source"])}
            if "ref" in filters:
                # one ref within both bounds: without $elemMatch one ref above and another below would do
                wanted["refs"] = {"$elemMatch": {"$gte": filters["ref"] + "/_history/", "$lt": filters["ref"] + "/_history0"}}
            times = {sign: filters[name] for name, sign in (("received_ge", "$gte"), ("received_lt", "$lt")) if name in filters}
            if times:
                wanted["received"] = times
            if after:
                wanted["_id"] = {"$lt" if newest_first else "$gt": after}
            found = self.database["inbox"].find(wanted, WITHOUT_RAW).sort("_id", DESCENDING if newest_first else ASCENDING).limit(limit)
            if wanted.get("due") is True:
                found = found.hint("answers")  # the planner would go through all messages of the source
            return [_entry(row) for row in await found.to_list()]

    async def summary(self, since: datetime) -> list[Document]:
        """See `Inbox.summary`."""
        with surfaced():
            group = {
                "_id": {"source": "$source", "status": "$status"},
                "count": {"$sum": 1},
                "oldest": {"$min": "$received"},
                "newest": {"$max": "$received"},
                "recent": {"$sum": {"$cond": [{"$gte": ["$received", since]}, 1, 0]}},
            }
            rows = await (await self.database["inbox"].aggregate([{"$group": group}])).to_list()
            return [{**row.pop("_id"), **row} for row in rows]

    async def waiting(self) -> dict[str, datetime]:
        """See `Inbox.waiting`."""
        with surfaced():
            stages: list[Document] = [{"$match": {"status": "received"}}, {"$group": {"_id": "$source", "oldest": {"$min": "$received"}}}]
            rows = await (await self.database["inbox"].aggregate(stages)).to_list()
            return {row["_id"]: row["oldest"].replace(tzinfo=UTC) for row in rows}

    async def load(self, tx: Tx | None, kind: str, ids: Iterable[str]) -> dict[str, Document]:
        """See `Inbox.load`."""
        with _border(tx):
            wanted = sorted(set(ids))
            if not wanted:
                return {}
            rows = await self._rows(tx, {"find": kind, "filter": {"_id": {"$in": wanted}}})
            return {row["_id"]: row for row in rows}

    async def find(self, tx: Tx | None, kind: str, name: str, values: Sequence[Any], limit: int = 1000, *, after: str = "") -> list[Document]:
        """See `Inbox.find`."""
        with _border(tx):
            wanted: Document = {name: {"$in": list(values)}, **({"_id": {"$gt": after}} if after else {})}
            return await self._rows(tx, {"find": kind, "filter": wanted, "sort": {"_id": 1}, "limit": limit})

    async def beginning(self, tx: Tx | None, kind: str, prefix: str, limit: int) -> list[Document]:
        """See `Inbox.beginning`."""
        with _border(tx):
            wanted = {"_id": {"$gte": prefix, "$lt": prefix[:-1] + chr(ord(prefix[-1]) + 1)}}
            return await self._rows(tx, {"find": kind, "filter": wanted, "sort": {"_id": 1}, "limit": limit})

    async def save(self, tx: Tx | None, kind: str, documents: Sequence[Document]) -> None:
        """See `Inbox.save`."""
        with _border(tx):
            frame = _frame(tx)
            if frame is not None:
                rows = [(document["_id"], raw(encoded(document))) for document in documents]
                await update(frame, kind, [{"q": {"_id": id}, "u": row, "upsert": True} for id, row in rows])
            elif documents:
                writes = [ReplaceOne({"_id": document["_id"]}, document, upsert=True) for document in documents]
                await self.database[kind].bulk_write(writes, ordered=True)

    async def aliases(self, after: int) -> list[tuple[int, str, str]]:
        """See `Inbox.aliases`. At first all are read, also those that were stored before generations were."""
        with surfaced():
            wanted: Document = {"g": {"$gt": after}} if after else {"_id": {"$gte": "alias|", "$lt": "alias}"}}
            rows = await self._rows(None, {"find": "feed", "filter": wanted, "projection": {"g": 1, "ref": 1}, "sort": {"g": 1}})
            return [(row.get("g", 1), row["_id"].removeprefix("alias|"), row["ref"]) for row in rows]

    async def drop(self, tx: Tx | None, kind: str, ids: Sequence[str]) -> None:
        """See `Inbox.drop`."""
        with _border(tx):
            wanted = {"_id": {"$in": list(ids)}}
            frame = _frame(tx)
            if frame is not None:
                await delete(frame, kind, [{"q": wanted, "limit": 0}])
            else:
                await self.database[kind].delete_many(wanted)

    async def _rows(self, tx: Tx | None, command: Document) -> list[Document]:
        """The rows of a `find` command, in the transaction or by itself."""
        frame = _frame(tx)
        if frame is not None:
            return await frame.rows(command)
        if self.lean is not None:
            with suppress(AutoReconnect):  # then PyMongo's way, which waits for the server
                return await self.lean.rows(batched(command))
        cursor = await self.database.cursor_command(batched(command), codec_options=self.database.codec_options)
        return await cursor.to_list()


def _plain(changes: Mapping[str, Any]) -> Document:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in changes.items()}
