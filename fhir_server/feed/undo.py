"""Undoing a patient merge from what was recorded: links, activity, numbers, keys, aliases and references as they were before.

What was written for the survivor after the merge stays with the survivor; it is listed, so that a person can look at it. Links, numbers, keys and
aliases count again with the first transaction; references beyond `AT_ONCE` follow in transactions of their own, which the background worker goes on
with where this process ends (state `undoing`, the references left in the merge's document).
"""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from conformance.outcome import conflict, not_found
from fhir_server.feed.intake import Feed
from fhir_server.feed.ledger import GENERATION, KIND
from fhir_server.feed.meeting import Means, Write, version
from fhir_server.feed.numbers import forgetting, identity_of
from fhir_server.feed.provenance import merge_provenance
from fhir_server.feed.rewrite import redirected
from fhir_server.search.aliases import settled
from fhir_server.sources import Source
from fhir_server.store import Tx
from fhir_server.store.inbox import Document

AT_ONCE = 1000
UNDOING = "undoing"
WAIT_SECONDS = 20.0  # a person waits so long for the references; then the worker goes on alone


async def undo(feed: Feed, id: str, who: str) -> Document:
    """Undo one merge in a transaction; what was restored. Raises Refusal 404 (no such merge), 409 (not to be undone any more)."""

    async def body(tx: Tx) -> Document:
        found = await feed.inbox.load(tx, "merges", [id])
        if id not in found:
            raise not_found("merge", id)
        merge = found[id]
        if merge["operation"] != "merge" or not merge["retired"].startswith("Patient/"):
            raise conflict("only merges of patients can be undone")
        if merge["state"] in ("undone", UNDOING):
            raise conflict("this merge was undone before")
        return await _undo(feed.mean(Source(merge["source"])), tx, merge, who)

    done = await feed.store.transact(body)
    await settled(feed.store)
    deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
    while done["left"] and asyncio.get_running_loop().time() < deadline:
        done["left"] = await continue_undoing(feed, id)
    return done


async def continue_undoing(feed: Feed, id: str) -> int:
    """Put back the next references of a merge that is being undone, in a transaction of their own; how many are left."""

    async def body(tx: Tx) -> int:
        merge = (await feed.inbox.load(tx, "merges", [id]))[id]
        if merge["state"] != UNDOING:
            return 0
        means = feed.mean(Source(merge["source"]))
        writes: dict[str, Write] = {}
        await _put_back(tx, merge, merge["left"][:AT_ONCE], writes)
        await _commit(means, tx, merge, merge["undone"]["who"], writes)
        merge["left"] = merge["left"][AT_ONCE:]
        merge["state"] = UNDOING if merge["left"] else "undone"
        await feed.inbox.save(tx, "merges", [merge])
        return len(merge["left"])

    return await feed.store.transact(body)


async def _put_back(tx: Tx, merge: Document, refs: Sequence[str], writes: dict[str, Write]) -> None:
    """Add to `writes` these resources as they refer to the retired patient again."""
    stored = await tx.get_many([(rtype, rid) for rtype, _, rid in (ref.partition("/") for ref in refs)])
    for (rtype, rid), one in stored.items():
        if one.res is not None:
            writes[f"{rtype}/{rid}"] = Write(redirected(one.res, merge["survivor"], merge["retired"]), one)


async def _commit(means: Means, tx: Tx, merge: Document, who: str, writes: dict[str, Write]) -> None:
    """Write these with a Provenance that says that a merge was undone, and by whom."""
    record = merge_provenance({**merge, "at": datetime.now(UTC)}, [version(write) for write in writes.values()])
    record["activity"] = {"text": "merge undone"}
    record["agent"].append({"who": {"display": who or "operator"}})
    await means.commit(tx, [*(replace(one, as_is=True) for one in writes.values()), Write({**record, "id": str(uuid.uuid4())}, None)])


async def _undo(means: Means, tx: Tx, merge: Document, who: str) -> Document:
    survivor, retired = merge["survivor"], merge["retired"]
    await _touch(means, tx, merge)
    touched = list(dict.fromkeys(merge.get("touched", ())))
    pairs = [(rtype, rid) for rtype, _, rid in (ref.partition("/") for ref in [survivor, retired, *merge.get("chain", ())])]
    stored = await tx.get_many(pairs)
    writes: dict[str, Write] = {}
    await _put_back(tx, merge, touched[:AT_ONCE], writes)
    _restore_patients(merge, stored, writes)
    await _restore_keys(means, tx, merge)
    await _commit(means, tx, merge, who, writes)
    merge["undone"], merge["left"] = {"at": datetime.now(UTC), "who": who}, touched[AT_ONCE:]
    merge["state"] = UNDOING if merge["left"] else "undone"
    await means.inbox.save(tx, "merges", [merge])
    return {"merge": merge["_id"], "survivor": survivor, "restored": retired, "resources": sorted(writes), "left": len(merge["left"])}


async def _touch(means: Means, tx: Tx, merge: Document) -> None:
    """Count on the states of both patients (of this and any message about them one waits for the other); the survivor's loses the old numbers."""
    patients = (merge["survivor"], merge["retired"])
    states = await means.inbox.load(tx, KIND, patients)
    counted = {ref: {"sources": {}, **states.get(ref, {}), "_id": ref, "n": states.get(ref, {}).get("n", 0) + 1} for ref in patients}
    survivor = forgetting(counted[merge["survivor"]], [(system, value) for system, value in merge.get("numbers", ())])
    await means.inbox.save(tx, KIND, [survivor, counted[merge["retired"]]])


def _restore_patients(merge: Document, stored: Any, writes: dict[str, Write]) -> None:
    survivor, retired, before = merge["survivor"], merge["retired"], merge["before"]
    old, new = (stored.get(tuple(ref.split("/"))) for ref in (retired, survivor))
    if old is None or new is None:
        raise conflict("one of the two patients was deleted since")
    writes[retired] = Write(_with(old.res, active=before["old"].get("active"), link=before["old"].get("link", [])), old)
    taken = {(system, value) for system, value in merge.get("numbers", ())}
    numbers = [one for one in new.res.get("identifier", []) if identity_of(one) not in taken]
    gone = {retired, *merge.get("chain", ())}
    links = [link for link in new.res.get("link", []) if not (link.get("type") == "replaces" and link.get("other", {}).get("reference") in gone)]
    writes[survivor] = Write(_with(new.res, identifier=numbers, link=links), new)
    for ref in merge.get("chain", ()):
        earlier = stored.get(tuple(ref.split("/")))
        if earlier is not None and earlier.res is not None:
            writes[ref] = Write(redirected(earlier.res, survivor, retired), earlier)


def _with(res: dict[str, Any], **elements: Any) -> dict[str, Any]:
    return {name: value for name, value in {**res, **elements}.items() if value not in (None, [])}


async def _restore_keys(means: Means, tx: Tx, merge: Document) -> None:
    """Keys and aliases name the restored patient again."""
    survivor, retired = merge["survivor"], merge["retired"]
    documents = await means.inbox.load(tx, KIND, merge["keys"])
    for document in documents.values():
        document["tracks"] = [
            {**one, "ref": retired if one["ref"] == survivor else one["ref"], "patient": retired if one["patient"] == survivor else one["patient"]}
            for one in document["tracks"]
        ]
        document.pop("retired", None)
    counter = (await means.inbox.load(tx, KIND, [GENERATION])).get(GENERATION, {"_id": GENERATION, "n": 1})
    number = counter["n"] + 1
    aliases = [{"_id": alias, "ref": retired, "g": number} for alias in merge.get("aliases", ())]
    own = {"_id": f"alias|{retired}", "ref": "", "g": number}
    await means.inbox.save(tx, KIND, [{**counter, "n": number}, *documents.values(), *aliases, own])
