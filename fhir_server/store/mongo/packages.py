"""The installed FHIR packages of an exchange: one document each, {_id: 'name#version', blob, at, removed}, its archive as a blob.

Servers keep copies on their shelves; this is what they agree on. `removed` says when one was taken away, None while it is installed.
"""

from datetime import datetime
from typing import Any

from fhir_server.store.mongo.errors import surfaced
from fhir_server.store.mongo.store import MongoStore

Row = dict[str, Any]
PACKAGES = "packages"


async def rows(store: MongoStore) -> dict[str, Row]:
    """All that are, or were, installed, by 'name#version'."""
    with surfaced():
        return {row["_id"]: row for row in await store.database[PACKAGES].find({}).to_list()}


async def put(store: MongoStore, name: str, data: bytes, now: datetime) -> None:
    """Install an archive under its 'name#version', in place of one that has it."""
    with surfaced():
        digest = await store.blobs.put(data)
        await store.blobs.own(digest, f"package/{name}", None)
        await store.database[PACKAGES].replace_one({"_id": name}, {"blob": digest, "at": now, "removed": None}, upsert=True)


async def read(store: MongoStore, row: Row) -> bytes:
    """The archive."""
    with surfaced():
        return await store.blobs.get(row["blob"])


async def remove(store: MongoStore, name: str, now: datetime) -> None:
    """Take one away, for all servers."""
    with surfaced():
        await store.database[PACKAGES].update_one({"_id": name}, {"$set": {"removed": now}}, upsert=True)
