"""Closure tables of terminology clients, in the collection `closures`: one document per client and name, replaced only by who read it last.

{_id: {client, name}, stamp, version, systems: [[url, version]], codes: [[system, code, version]]}. https://hl7.org/fhir/R4/terminology-service.html#closure
"""

import uuid
from typing import Any

from pymongo.errors import DuplicateKeyError

from fhir_server.store.mongo.client import Database
from fhir_server.store.mongo.errors import surfaced

CLOSURES = "closures"
Row = dict[str, Any]


async def read(database: Database, client: str, name: str) -> Row | None:
    """The table of a client, None if it was never initialised."""
    with surfaced():
        return await database[CLOSURES].find_one({"_id": {"client": client, "name": name}})


async def count(database: Database, client: str, limit: int) -> int:
    """How many tables a client keeps, counted to `limit`."""
    with surfaced():  # documents compare field by field, so that this is a range of the `_id` index
        return await database[CLOSURES].count_documents({"_id": {"$gte": {"client": client}, "$lt": {"client": client + "\0"}}}, limit=limit)


async def write(database: Database, client: str, name: str, fields: Row, stamp: str | None) -> bool:
    """Keep a table whose last state had this stamp (None: whatever there was is replaced); False if another call was quicker."""
    key = {"client": client, "name": name}
    row = {"_id": key, "stamp": uuid.uuid4().hex, **fields}
    with surfaced():
        if stamp is not None:
            return bool((await database[CLOSURES].replace_one({"_id": key, "stamp": stamp}, row)).matched_count)
        try:
            await database[CLOSURES].replace_one({"_id": key}, row, upsert=True)
        except DuplicateKeyError:  # two calls initialise the same table at the same moment
            return False
    return True
