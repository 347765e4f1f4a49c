"""Ask the database for rows or numbers: by the lean channel where there is one, each command within its time, heavy ones one after another.

A command that is not answered within QUICK_SECONDS is stopped and asked again in the slow lane, where one runs at a time on this machine, for
at most SLOW_SECONDS, and the lane rests as long as it took: so searches that read much cannot take the database's processors from others. Inside a transaction there are
no lanes; its own lifetime limits it. https://www.mongodb.com/docs/manual/tutorial/terminate-running-operations/#maxtimems
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pymongo.errors import AutoReconnect, OperationFailure

from fhir_server.store.lane import Lane
from fhir_server.store.mongo.document import ZONELESS, Document, zoned
from fhir_server.store.mongo.errors import OUT_OF_TIME, code_of

if TYPE_CHECKING:
    from fhir_server.store.mongo.read import Place

BAD_VALUE = 2
QUICK_SECONDS, SLOW_SECONDS = 0.15, 30.0
BATCH = 100  # rows decoded at a stretch: about a millisecond, then others have their turn
Shape = dict[str, Any]


SLOW = Lane(rest=1.0, longest=2.0)


async def rows(place: "Place", command: Shape) -> list[Document]:
    """All rows of a `find` (of documents without their index) or `aggregate` command. Raises OperationFailure (out of time among others)."""
    if place.frame is not None:  # its snapshot may be older than the index, and a failed command would end the transaction
        return await place.frame.rows(_unhinted(command))
    try:
        return await _rows(place, command, QUICK_SECONDS)
    except OperationFailure as error:
        if _hint_missed(error, command):
            return await rows(place, _unhinted(command))
        if code_of(error) not in OUT_OF_TIME:
            raise
    async with SLOW.turn():
        return await _rows(place, command, SLOW_SECONDS)


async def count(place: "Place", command: Shape) -> int:
    """The answer of a `count` command; a transaction takes none, it gets the same as an aggregation."""
    if place.frame is not None:
        stages: list[Shape] = [{"$match": command["query"]}, *([{"$limit": command["limit"]}] if "limit" in command else []), {"$count": "n"}]
        answer = await place.frame.rows({"aggregate": command["count"], "pipeline": stages})
        return int(answer[0]["n"]) if answer else 0
    found = await quick_count(place, command, QUICK_SECONDS)
    if found is not None:
        return found
    async with SLOW.turn():
        return await _count(place, command | {"maxTimeMS": int(SLOW_SECONDS * 1000)})


async def quick_count(place: "Place", command: Shape, seconds: float) -> int | None:
    """The same outside of transactions, None if it takes longer."""
    try:
        return await _count(place, command | {"maxTimeMS": int(seconds * 1000)})
    except OperationFailure as error:
        if _hint_missed(error, command):
            return await quick_count(place, _unhinted(command), seconds)
        if code_of(error) not in OUT_OF_TIME:
            raise
    return None


def _unhinted(command: Shape) -> Shape:
    return {name: value for name, value in command.items() if name != "hint"}


def _hint_missed(error: OperationFailure, command: Shape) -> bool:
    """True if the index that the command names is not there, as between the creation of a collection and that of its indexes."""
    return "hint" in command and code_of(error) == BAD_VALUE


async def _count(place: "Place", command: Shape) -> int:
    if place.lean is not None:
        with suppress(AutoReconnect):  # then PyMongo's way, which waits for the server
            return int((await place.lean.command(command))["n"])
    return int((await place.database.command(command, codec_options=place.database.codec_options))["n"])


async def _rows(place: "Place", command: Shape, seconds: float) -> list[Document]:
    timed = command | {"maxTimeMS": int(seconds * 1000)}
    if place.lean is not None:
        with suppress(AutoReconnect):
            if "find" not in command:
                return await place.lean.rows(timed | _batches(command))
            return await place.lean.rows(timed | _batches(command), ZONELESS, zoned)
    return await _driver_rows(place, timed)


def _batches(command: Shape) -> Shape:
    """How the answer is cut: a page in one batch, with room for one more row so that the database sees its end and closes the cursor; else pieces."""
    if "aggregate" in command:
        return {"cursor": {"batchSize": BATCH}}
    limit = command.get("limit", 0)
    return {"batchSize": limit + 1 if 0 < limit <= BATCH else BATCH}


async def _driver_rows(place: "Place", command: Shape) -> list[Document]:
    """The same by the driver's cursors, which retry."""
    if "aggregate" in command:
        more: dict[str, Any] = {name: command[name] for name in ("maxTimeMS", "allowDiskUse", "hint") if name in command}
        return await (await place.database[command["aggregate"]].aggregate(command["pipeline"], **more)).to_list()
    cursor = place.database[command["find"]].find(command["filter"], command["projection"]).limit(command.get("limit", 0))
    if "maxTimeMS" in command:
        cursor = cursor.max_time_ms(command["maxTimeMS"])
    if "hint" in command:
        cursor = cursor.hint(command["hint"])
    return await (cursor.sort(list(command["sort"].items())) if command.get("sort") else cursor).to_list()
