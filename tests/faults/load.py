"""A writing process for the fault tests: `python -m tests.faults.load MODE URI DATABASE JOURNAL [SECONDS]`.

It writes each acknowledged fact as one JSON line to JOURNAL before it goes on, so that the parent can kill it at any moment and knows what
must be there. Modes: mixed (creates, updates, deletes, transactions of several types), guarded (64 equal guarded creates), hold (opens a
transaction that touched a guard and waits).
"""

import asyncio
import itertools
import json
import random
import sys
import time
import uuid
from pathlib import Path
from typing import IO

from conformance.outcome import Refusal
from fhir_server.query.clauses import Keys
from fhir_server.store import Change, Stored, Tx
from fhir_server.store.mongo.store import MongoStore, open_store

TYPES = ("Patient", "Observation", "Encounter")


def resource(rtype: str, rid: str, mark: str) -> tuple[dict, dict]:
    """A resource and its index: content and index carry the same mark, so that disagreement shows."""
    return {"resourceType": rtype, "id": rid, "mark": mark, "text": "x" * 400}, {"k": [f"mark={mark}"]}


def change(rtype: str, rid: str, mark: str, prior: Stored | None, method: str = "PUT") -> Change:
    res, index = resource(rtype, rid, mark)
    return Change(rtype, rid, res, index, prior, method)


def note(journal: IO[str], **fact: object) -> None:
    journal.write(json.dumps(fact) + "\n")
    journal.flush()


async def writer(store: MongoStore, journal: IO[str], ends: float) -> None:
    mine: list[tuple[str, str]] = []
    while time.monotonic() < ends:
        try:
            await random.choice((create, create, bundle, revise, remove))(store, journal, mine)
        except Refusal as refusal:
            note(journal, refused=refusal.status)
            await asyncio.sleep(0.05)


async def create(store: MongoStore, journal: IO[str], mine: list[tuple[str, str]]) -> None:
    made = await store.insert(change("Patient", uuid.uuid4().hex, uuid.uuid4().hex, None, "POST"))
    note(journal, made=[[made.rtype, made.rid, made.vid, made.res["mark"]]])
    mine.append((made.rtype, made.rid))


async def bundle(store: MongoStore, journal: IO[str], mine: list[tuple[str, str]]) -> None:
    """20 resources that must all be there, or none: they share a mark."""
    mark = uuid.uuid4().hex
    changes = [change(rtype, uuid.uuid4().hex, mark, None, "POST") for rtype, _ in zip(itertools.cycle(TYPES), range(20))]

    async def body(tx: Tx) -> list[Stored]:
        return await tx.put(changes[:10]) + await tx.put(changes[10:])

    made = await store.transact(body)
    note(journal, made=[[one.rtype, one.rid, one.vid, mark] for one in made])
    mine += [(one.rtype, one.rid) for one in made]


async def revise(store: MongoStore, journal: IO[str], mine: list[tuple[str, str]]) -> None:
    if not mine:
        return
    rtype, rid = random.choice(mine)
    mark = uuid.uuid4().hex

    async def body(tx: Tx) -> Stored:
        return (await tx.put([change(rtype, rid, mark, await tx.get(rtype, rid))]))[0]

    made = await store.transact(body)
    note(journal, made=[[rtype, rid, made.vid, mark]])


async def remove(store: MongoStore, journal: IO[str], mine: list[tuple[str, str]]) -> None:
    if len(mine) < 50:
        return
    rtype, rid = mine.pop(random.randrange(len(mine)))

    async def body(tx: Tx) -> Stored:
        return (await tx.put([Change(rtype, rid, None, {}, await tx.get(rtype, rid), "DELETE")]))[0]

    gone = await store.transact(body)
    note(journal, gone=[rtype, rid, gone.vid])


async def guarded(store: MongoStore, journal: IO[str], key: str) -> None:
    async def body(tx: Tx) -> Stored:
        await tx.guard([key])
        found = await tx.find("Patient", Keys((f"mark={key}",)), limit=2)
        return found[0] if found else (await tx.put([change("Patient", uuid.uuid4().hex, key, None, "POST")]))[0]

    made = await store.transact(body)
    note(journal, made=[[made.rtype, made.rid, made.vid, key]])


async def hold(store: MongoStore, journal: IO[str]) -> None:
    async def body(tx: Tx) -> None:
        await tx.guard(["held"])
        await tx.put([change("Patient", "held", "held", None)])
        note(journal, holding=True)
        await asyncio.sleep(60)

    await store.transact(body)


async def main(mode: str, uri: str, name: str, journal: Path, seconds: float) -> None:
    store = await open_store(uri, name=name, transaction_seconds=10)
    with journal.open("a") as written:
        note(written, started=True)
        ends = time.monotonic() + seconds
        if mode == "guarded":
            await asyncio.gather(*(guarded(store, written, "one") for _ in range(32)))
        elif mode == "hold":
            await hold(store, written)
        else:
            await asyncio.gather(*(writer(store, written, ends) for _ in range(8)))
        note(written, ended=True)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]), float((sys.argv[5:] or ["0"])[0])))
