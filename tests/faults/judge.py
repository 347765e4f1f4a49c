"""What must hold of a store after any fault, given what the writers noted as acknowledged."""

import json
from collections import defaultdict
from pathlib import Path

from fhir_server.store.mongo.store import MongoStore
from tests.faults.load import TYPES


def facts(journals: list[Path]) -> list[dict]:
    """All whole lines; the last line of a killed writer may be cut off."""
    found = []
    for journal in journals:
        for line in journal.read_text().splitlines() if journal.exists() else []:
            if line.endswith("}"):
                found.append(json.loads(line))
    return found


async def judge(store: MongoStore, journals: list[Path]) -> int:
    """Nothing acknowledged is lost, no transaction is half there, index and content agree, versions are complete; how many were acknowledged."""
    noted = facts(journals)
    made = [tuple(row) for fact in noted for row in fact.get("made", ())]
    for rtype, rid, vid, mark in made:
        version = await store.version(rtype, rid, vid)
        assert version is not None, "an acknowledged version is lost"
        assert version.res["mark"] == mark
    for rtype, rid, vid in (tuple(fact["gone"]) for fact in noted if "gone" in fact):
        tombstone = await store.version(rtype, rid, vid)
        assert tombstone is not None, "an acknowledged deletion is lost"
        assert tombstone.res is None
    await _whole(store)
    return len(made)


async def _whole(store: MongoStore) -> None:
    first_versions: dict[str, int] = defaultdict(int)
    versions: dict[tuple[str, str], set[int]] = defaultdict(set)
    for rtype in TYPES:
        async for row in store.database[rtype].find({}):
            assert row["k"] == [f"mark={row['res']['mark']}"], "index and content disagree"
            assert await store.database[rtype].count_documents({"k": row["k"][0], "_id": row["_id"]}) == 1
            versions[rtype, row["_id"]].add(row["vid"])
            first_versions[row["res"]["mark"]] += row["vid"] == 1
    async for row in store.database["history"].find({}):
        versions[row["t"], row["i"]].add(row["v"])
        if row["v"] == 1:
            first_versions[row["res"]["mark"]] += 1
    assert set(first_versions.values()) <= {0, 1, 20}, "a transaction is half there"
    for numbers in versions.values():
        assert numbers == set(range(1, max(numbers) + 1)), "a version is missing"
