"""Custom search parameters and the jobs that index them, kept in the collection `search_params`; and the rewriting of index documents.

One document per definition: {_id: url, rid, code, type, bases, expression, facts, state: indexing | ready | failed, at, done, total, place: [type, id], owner, until, error}.
Jobs are leased: the owner renews `until` with every block; when it is past, another process goes on at `place`.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from pymongo import ReturnDocument, UpdateOne

from fhir_server.query.clauses import Index
from fhir_server.store.mongo.client import Database
from fhir_server.store.mongo.document import SHOWN, stored
from fhir_server.store.mongo.errors import surfaced

Row = dict[str, Any]
PARAMS = "search_params"
FIELDS = ("k", "r", "t", "p", "d", "g", "c")  # of an index document
BLOCK = 200


async def rows(database: Database) -> list[Row]:
    """All custom parameters, by url."""
    with surfaced():
        return await database[PARAMS].find({}).sort("_id", 1).to_list()


async def one(database: Database, url: str) -> Row | None:
    """The parameter with this url."""
    with surfaced():
        return await database[PARAMS].find_one({"_id": url})


async def begin(database: Database, row: Row) -> None:
    """Keep a definition, to be indexed from the start; what is ready under the same url is withdrawn with it."""
    with surfaced():
        await database[PARAMS].replace_one({"_id": row["_id"]}, row, upsert=True)


async def forget(database: Database, url: str) -> None:
    """The definition is gone."""
    with surfaced():
        await database[PARAMS].delete_one({"_id": url})


async def claim(database: Database, owner: str, now: datetime, lease: timedelta, settled: datetime) -> Row | None:
    """One job that nobody works on, leased to `owner`; None if there is none. Jobs younger than `settled` wait: not every process may write for them yet."""
    free = {"state": "indexing", "at": {"$lt": settled}, "$or": [{"until": None}, {"until": {"$lt": now}}, {"owner": owner}]}
    with surfaced():
        return await database[PARAMS].find_one_and_update(
            free, {"$set": {"owner": owner, "until": now + lease}}, return_document=ReturnDocument.AFTER
        )


async def note(database: Database, row: Row, owner: str, changes: Row) -> bool:
    """Keep the progress of a job; False if the lease was lost or the definition changed meanwhile."""
    with surfaced():
        done = await database[PARAMS].update_one({"_id": row["_id"], "at": row["at"], "owner": owner}, {"$set": changes})
    return done.matched_count == 1


async def rewrite(database: Database, rtype: str, after: str, index_of: Callable[[Row], Index], block: int = BLOCK) -> tuple[int, str]:
    """Index the next block of a type again, behind id `after`: (how many, the last id, '' at the end).

    A resource that changes meanwhile keeps what its writer indexed: only the version that was read is touched. Bodies kept as blobs stay as they were indexed.
    """
    with surfaced():
        found = await database[rtype].find({"_id": {"$gt": after}}, SHOWN).sort("_id", 1).limit(block).to_list()
        writes = [_update(row, index_of(stored(rtype, row).res or {})) for row in found if "blob" not in row]
        if writes:
            await database[rtype].bulk_write(writes, ordered=False)
    return len(found), found[-1]["_id"] if len(found) == block else ""


def _update(row: Row, index: Index) -> UpdateOne:
    gone = {name: "" for name in FIELDS if name not in index}
    return UpdateOne({"_id": row["_id"], "vid": row["vid"]}, {"$set": index, **({"$unset": gone} if gone else {})})


async def size(database: Database, rtypes: Sequence[str]) -> int:
    """How many resources of these types there are, counted."""
    with surfaced():
        return sum([await database[rtype].count_documents({}) for rtype in rtypes])
