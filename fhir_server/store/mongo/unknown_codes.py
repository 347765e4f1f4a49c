"""Codes that nothing here knows, counted per source, in the collection `unknown_codes`: the work list of who maps local codes.

{_id: {source, system, code}, count, display, first, last}; display: how the sender called it first.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from fhir_server.store.mongo.client import Database
from fhir_server.store.mongo.errors import surfaced

UNKNOWN = "unknown_codes"
Key = tuple[str, str, str]  # source, system, code
FIELDS = ("source", "system", "code")


async def prepare(database: Database) -> None:
    """The index that lists the most frequent first."""
    with surfaced():
        await database[UNKNOWN].create_index([("count", -1), ("_id", 1)], name="count")


async def add(database: Database, counts: Mapping[Key, tuple[int, str]], now: datetime) -> None:
    """Adds what a process has counted."""
    updates = []
    for key, (count, display) in counts.items():
        first = {"first": now, **({"display": display} if display else {})}
        updates.append(
            UpdateOne(
                {"_id": dict(zip(FIELDS, key, strict=True))}, {"$inc": {"count": count}, "$set": {"last": now}, "$setOnInsert": first}, upsert=True
            )
        )
    if updates:
        with surfaced():
            await _write(database, updates)


async def _write(database: Database, updates: list[UpdateOne]) -> None:
    """Two processes may insert the same code at the same moment: the one that came second is tried again, then as an update."""
    try:
        await database[UNKNOWN].bulk_write(updates, ordered=False)
    except BulkWriteError as error:
        failures = error.details.get("writeErrors", [])
        if not failures or any(each.get("code") != 11000 for each in failures):
            raise
        await database[UNKNOWN].bulk_write([updates[each["index"]] for each in failures], ordered=False)


async def listed(database: Database, given: Mapping[str, str], limit: int) -> list[dict[str, Any]]:
    """The most frequent codes; given: source and system to keep to."""
    wanted = {f"_id.{name}": value for name, value in given.items() if name in FIELDS}
    with surfaced():
        rows = await database[UNKNOWN].find(wanted).sort([("count", -1), ("_id", 1)]).limit(limit).to_list()
    return [{**row.pop("_id"), **row} for row in rows]


async def forget(database: Database, given: Mapping[str, str]) -> int:
    """Removes the rows of a source, system or code that have been dealt with; how many there were. Without any of them nothing is removed."""
    wanted = {f"_id.{name}": value for name, value in given.items() if name in FIELDS and value}
    if not wanted:
        return 0
    with surfaced():
        return (await database[UNKNOWN].delete_many(wanted)).deleted_count
