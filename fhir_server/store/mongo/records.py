"""`store.records.Records` in MongoDB: one collection per kind, `_id` is the key, `until` ends a record (TTL index and every query)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pymongo import ASCENDING, IndexModel, ReturnDocument
from pymongo.errors import DuplicateKeyError, OperationFailure

from fhir_server.store.mongo.client import Database
from fhir_server.store.mongo.errors import surfaced
from fhir_server.store.records import Document, Kind

NAMESPACE_EXISTS = 48
TRIES = 3
AGE = IndexModel([("until", ASCENDING)], name="until", expireAfterSeconds=0)
MADE = IndexModel([("made", ASCENDING)], name="made")


def _alive() -> Document:
    return {"$or": [{"until": None}, {"until": {"$gt": datetime.now(UTC)}}]}


@dataclass(frozen=True, slots=True)
class MongoRecords:
    """`Records` over one database."""

    database: Database

    async def prepare(self, kinds: tuple[Kind, ...]) -> None:
        """See `Records.prepare`. Several processes may do it at once."""
        with surfaced():
            present = set(await self.database.list_collection_names())
            for kind in kinds:
                if kind.collection not in present:
                    try:
                        await self.database.create_collection(kind.collection, check_exists=False)
                    except OperationFailure as error:
                        if error.code != NAMESPACE_EXISTS:
                            raise
                own = [IndexModel([(name, ASCENDING)], name=name) for name in kind.indexed]
                await self.database[kind.collection].create_indexes([AGE, MADE, *own])

    async def insert(self, kind: Kind, key: str, document: Mapping[str, Any], until: datetime | None = None) -> bool:
        """See `Records.insert`. A key of an expired record that the database has not removed yet is free."""
        with surfaced():
            rows = self.database[kind.collection]
            for _ in range(TRIES):
                try:
                    # An update, so that `made` is the database's clock; it matches nothing alive, so it only ever inserts.
                    await rows.update_one(
                        {"_id": key, "until": {"$lte": datetime.now(UTC)}},
                        [{"$replaceWith": {"$literal": {"_id": key, **document, "until": until}}}, {"$set": {"made": "$$NOW"}}],
                        upsert=True,
                    )
                except DuplicateKeyError:
                    if await rows.find_one({"_id": key, **_alive()}, {"_id": 1}) is not None:
                        return False
                else:
                    return True
            return False

    async def get(self, kind: Kind, key: str) -> Document | None:
        """See `Records.get`."""
        with surfaced():
            return await self.database[kind.collection].find_one({"_id": key, **_alive()})

    async def find(self, kind: Kind, name: str = "", value: Any = None, *, limit: int = 1000) -> list[Document]:
        """See `Records.find`."""
        with surfaced():
            wanted = {name: value} if name else {}
            rows = self.database[kind.collection].find({**wanted, **_alive()}).sort("_id", ASCENDING).limit(limit)
            return list(await rows.to_list())

    async def change(
        self, kind: Kind, key: str, changes: Mapping[str, Any], *, where: Mapping[str, Any] | None = None, until: datetime | None = None
    ) -> Document | None:
        """See `Records.change`."""
        with surfaced():
            values = dict(changes) if until is None else {**changes, "until": until}
            return await self.database[kind.collection].find_one_and_update(
                {"_id": key, **(where or {}), **_alive()}, {"$set": values}, return_document=ReturnDocument.BEFORE
            )

    async def count(self, kind: Kind, key: str, until: datetime, step: int = 1) -> int:
        """See `Records.count`."""
        with surfaced():
            now = datetime.now(UTC)
            ended = {"$lte": [{"$ifNull": ["$until", now]}, now]}
            row = await self.database[kind.collection].find_one_and_update(
                {"_id": key},
                [
                    {
                        "$set": {
                            "count": {"$cond": [ended, step, {"$add": [{"$ifNull": ["$count", 0]}, step]}]},
                            "until": {"$cond": [ended, until, "$until"]},
                            "made": {"$ifNull": ["$made", "$$NOW"]},
                        }
                    }
                ],
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
            return int(row["count"]) if row else step

    async def remove(self, kind: Kind, key: str) -> Document | None:
        """See `Records.remove`."""
        with surfaced():
            return await self.database[kind.collection].find_one_and_delete({"_id": key, **_alive()})

    async def since(self, kind: Kind, at: datetime) -> list[Document]:
        """See `Records.since`."""
        with surfaced():
            return list(await self.database[kind.collection].find({"made": {"$gte": at}, **_alive()}).to_list())
