"""Versions: create, update, delete, read again, history; exact decimals; the rules of `fhir_server/store/__init__.py`."""

from decimal import Decimal

import pytest

from conformance import codec
from conformance.outcome import Refusal
from fhir_server.query.clauses import And, Everything, Ids, Keys, Not, Or, Patient, Prefix
from fhir_server.store import Change, Sort, Stored, Tx
from fhir_server.store.mongo import history
from fhir_server.store.mongo.store import MongoStore


def change(rid: str, res: dict | None = None, prior: Stored | None = None, method: str = "PUT", rtype: str = "Patient", **index: object) -> Change:
    body = {"resourceType": rtype, "id": rid, **(res or {})} if method != "DELETE" else None
    return Change(rtype, rid, body, index, prior, method)


async def put(store: MongoStore, *changes: Change) -> list[Stored]:
    async def body(tx: Tx) -> list[Stored]:
        return await tx.put(changes)

    return await store.transact(body)


async def test_an_insert_is_read_back_with_version_and_stamp(store: MongoStore):
    made = await store.insert(change("a", {"active": True}, method="POST"))
    assert made.vid == 1
    assert made.res["meta"] == {"versionId": "1", "lastUpdated": made.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")}
    read = await store.get("Patient", "a")
    assert read == made
    assert list(read.res) == ["resourceType", "id", "meta", "active"]


async def test_an_id_is_taken_once(store: MongoStore):
    await store.insert(change("a", method="POST"))
    with pytest.raises(Refusal) as refused:
        await store.insert(change("a", method="POST"))
    assert refused.value.status == 409


@pytest.mark.parametrize(
    "text", ["1.00", "1e-7", "0.0000001", "1E2", "-0.0", "123456789012345678901234567890.1234", "1E-6000", "0", "12", "9" * 34, "-0"]
)
async def test_numbers_come_back_as_spelt(store: MongoStore, text: str):
    res = codec.decode(b'{"resourceType":"Basic","id":"n","extension":[{"valueDecimal":%s},{"a":[1,%s]}]}' % (text.encode(), text.encode()))
    await store.insert(Change("Basic", "n", res, {}, None, "POST"))
    back = (await store.get("Basic", "n")).res
    assert codec.encode(back["extension"]) == codec.encode(res["extension"])
    await put(store, Change("Basic", "n", {**res, "active": True}, {}, await store.get("Basic", "n"), "PUT"))
    assert codec.encode((await store.version("Basic", "n", 1)).res["extension"]) == codec.encode(res["extension"])


@pytest.mark.parametrize("number", [2**31 - 1, 2**31, -(2**31) - 1, 10**12, 2**63 - 1, -(2**63), 2**63, 10**30])
async def test_integers_of_every_width_come_back_as_plain_numbers(store: MongoStore, number: int):
    made = await store.insert(change("n", {"x": number, "y": [{"z": number}]}, method="POST"))
    back = await store.get("Patient", "n")
    assert back == made
    assert (type(back.res["x"]), type(back.res["y"][0]["z"])) == (int, int)
    assert codec.encode(back.res["x"]) == str(number).encode()


async def test_decimals_are_native_in_the_database(store: MongoStore):
    await store.insert(change("d", {"x": Decimal("1.50")}, method="POST"))
    found = await store.database["Patient"].find_one({"res.x": {"$gt": 1}})
    assert str(found["res"]["x"]) == "1.50"


async def test_a_life_create_update_delete_recreate(store: MongoStore):
    first = (await put(store, change("a", {"active": True}, k=["one"])))[0]
    second = (await put(store, change("a", {"active": False}, first, k=["two"])))[0]
    gone = (await put(store, change("a", None, second, "DELETE")))[0]
    assert (gone.vid, gone.res, gone.method) == (3, None, "DELETE")
    assert await store.get("Patient", "a") == gone or (await store.get("Patient", "a")).res is None
    fourth = (await put(store, change("a", {"active": True}, await store.get("Patient", "a"))))[0]
    assert fourth.vid == 4
    assert first.at < second.at < gone.at < fourth.at
    versions = await store.history("Patient", "a", limit=10)
    assert [one.vid for one in versions] == [4, 3, 2, 1]
    assert [one.method for one in versions] == ["PUT", "DELETE", "PUT", "PUT"]
    assert [one.res and one.res["active"] for one in versions] == [True, None, False, True]
    for one in versions:
        same = await store.version("Patient", "a", one.vid)
        assert (same.vid, same.at, same.res, same.method) == (one.vid, one.at, one.res, one.method)
    assert await store.version("Patient", "a", 5) is None
    assert await store.version("Patient", "b", 1) is None
    assert await store.get("Patient", "b") is None


async def test_history_of_a_resource_pages_in_both_directions(store: MongoStore):
    last = (await put(store, change("a")))[0]
    for _ in range(6):
        last = (await put(store, change("a", None, last)))[0]
    for ascending in (False, True):
        seen, after = [], ()
        while page := await store.history("Patient", "a", limit=3, after=after, ascending=ascending):
            seen += [one.vid for one in page]
            after = page[-1].position
        assert seen == sorted(range(1, 8), reverse=not ascending)


async def test_history_of_types_pages_without_loss_in_both_directions(store: MongoStore):
    made = []
    for number in range(7):
        made += await put(store, change(f"p{number}"), change(f"o{number}", rtype="Observation"))
    made += await put(store, *(change(one.rid, None, one, "DELETE", one.rtype) for one in made[:4]))
    made += await put(store, *(change(one.rid, None, one, "PUT", one.rtype) for one in made[4:9]))
    expected = sorted(((one.at, one.rtype, one.rid, one.vid) for one in made), key=lambda one: (one[1], one[2], -one[3]))
    expected.sort(key=lambda one: one[0], reverse=True)
    for rtype in (None, "Patient", "Observation"):
        mine = [one for one in expected if rtype in (None, one[1])]
        for ascending in (False, True):
            for limit in (1, 2, 3, 100):
                seen, after = [], ()
                while page := await store.history(rtype, None, limit=limit, after=after, ascending=ascending):
                    seen += [(one.at, one.rtype, one.rid, one.vid) for one in page]
                    after = page[-1].position
                assert seen == (mine[::-1] if ascending else mine)
    middle = expected[8][0]
    since = await store.history(None, None, since=middle, limit=100)
    until = await store.history(None, None, until=middle, limit=100)
    assert {(one.rtype, one.rid, one.vid) for one in since} == {one[1:] for one in expected if one[0] >= middle}
    assert {(one.rtype, one.rid, one.vid) for one in until} == {one[1:] for one in expected if one[0] < middle}


@pytest.mark.parametrize("few", [2000, 1])
async def test_history_is_limited_to_what_the_clause_shows(store: MongoStore, few: int, monkeypatch: pytest.MonkeyPatch):
    """Whether the matching resources are few enough to be named, or all versions are looked through."""
    monkeypatch.setattr(history, "FEW", few)
    monkeypatch.setattr(history, "PAGE", 2)
    kept, _, gone, gone_hidden = await put(
        store, change("kept", k=["s"]), change("hidden", k=["x"]), change("gone", k=["s"]), change("gone_hidden", k=["x"])
    )
    await put(store, change("gone", None, gone, "DELETE"), change("gone_hidden", None, gone_hidden, "DELETE"), change("kept", None, kept, k=["s"]))
    seen = await store.history("Patient", None, limit=10, clause=Keys(("s",)))
    assert {(one.rid, one.vid) for one in seen} == {("kept", 1), ("kept", 2), ("gone", 1), ("gone", 2)}
    assert await store.history("Patient", "hidden", limit=10, clause=Keys(("s",))) == []


async def test_find_sorts_pages_and_counts(store: MongoStore):
    await put(store, *(change(f"p{number}", k=[f"n={number % 3}", f"name~{number}"], p=f"Patient/{number}") for number in range(10)))
    found = await store.find("Patient", Or((Keys(("n=0", "n=1")), Ids(("p2",)))), sort=[Sort("_id", True)], limit=3)
    assert [one.rid for one in found] == ["p9", "p7", "p6"]
    more = await store.find("Patient", Or((Keys(("n=0", "n=1")), Ids(("p2",)))), sort=[Sort("_id", True)], limit=3, after=found[-1].position)
    assert [one.rid for one in more] == ["p4", "p3", "p2"]
    assert await store.count("Patient", And((Prefix("name~"), Not(Patient(("Patient/1",)))))) == 9
    assert await store.count("Patient", Everything(), limit=4) == 4
    assert [one.rid async for one in store.export("Patient", Keys(("n=2",)))] == ["p2", "p5", "p8"]
    assert await store.types() == {"Patient"}


async def test_get_many_gives_the_newest_tombstones_where_asked(store: MongoStore):
    for _ in range(2):
        (made,) = await put(store, change("a", prior=await store.get("Patient", "a")))
        await put(store, change("a", prior=made, method="DELETE"))
    await put(store, change("b"))
    refs = [("Patient", "a"), ("Patient", "b"), ("Patient", "c")]
    assert set(await store.get_many(refs)) == {("Patient", "b")}
    found = await store.get_many(refs, tombstones=True)
    assert {ref: (one.vid, one.res is None) for ref, one in found.items()} == {("Patient", "a"): (4, True), ("Patient", "b"): (1, False)}


async def test_a_tombstone_keeps_its_type_where_the_index_has_texts(store: MongoStore):
    (made,) = await put(store, change("a", t=["code~x"], k=["a=b"]))
    await put(store, change("a", prior=made, method="DELETE"))
    gone = await store.get("Patient", "a")
    assert (gone.rtype, gone.vid, gone.res) == ("Patient", 2, None)


async def test_get_many_leaves_out_what_is_not_there(store: MongoStore):
    made = await put(store, change("a"), change("b", rtype="Observation"), change("c"))
    await put(store, change("c", None, made[2], "DELETE"))
    refs = [("Patient", "a"), ("Observation", "b"), ("Patient", "c"), ("Patient", "d"), ("Device", "a")]
    assert set(await store.get_many(refs)) == {("Patient", "a"), ("Observation", "b")}


async def test_a_transaction_is_all_or_nothing(store: MongoStore):
    async def body(tx: Tx) -> None:
        await tx.put([change("a")])
        assert (await tx.get("Patient", "a")).vid == 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.transact(body)
    assert await store.get("Patient", "a") is None


async def test_bodies_beyond_the_document_limit_are_kept_as_blobs(store: MongoStore):
    big = {"data": "x" * (20 * 1024 * 1024)}
    made = await store.insert(change("big", big, method="POST", rtype="Binary"))
    assert made.vid == 1
    assert (await store.get("Binary", "big")).res == made.res
    second = (await put(store, change("big", {"data": "small"}, made, rtype="Binary")))[0]
    assert second.vid == 2
    assert (await store.version("Binary", "big", 1)).res == made.res
    assert [len(one.res["data"]) for one in await store.history("Binary", None, limit=5)] == [5, len(big["data"])]


@pytest.mark.parametrize("res", [{"a\x00b": 1}, {"text": "\ud800"}, {"x": [{"$ref": "a", "$id": "b"}]}])
async def test_what_cannot_be_stored_is_refused(store: MongoStore, res: dict):
    with pytest.raises(Refusal) as refused:
        await store.insert(change("a", res, method="POST"))
    assert refused.value.status == 422


async def test_unusual_names_are_stored_exactly(store: MongoStore):
    res = {"$set": {"a.b": 1, "$where": "x"}, "": "empty", "a.b": [{"$gt": 1}, "a text that ends in $ref"]}
    made = await store.insert(change("a", res, method="POST"))
    assert (await store.get("Patient", "a")).res == made.res
    await put(store, change("a", res, made))
    assert (await store.get("Patient", "a")).res["$set"] == res["$set"]


async def test_a_search_does_not_need_the_index_it_would_use(store: MongoStore):
    """Between the creation of a collection and that of its indexes, and in a snapshot older than them."""
    await store.insert(change("a", method="POST", rtype="Organization", k=["x=1"]))
    await store.database["Organization"].drop_index("k_id")
    clause = Keys(("x=1",))

    async def inside(tx: Tx) -> list[Stored]:
        return await tx.find("Organization", clause, sort=[Sort("_id")], limit=2)

    assert [one.rid for one in await store.find("Organization", clause, sort=[Sort("_id")], limit=2)] == ["a"]
    assert [one.rid for one in await store.transact(inside)] == ["a"]
    assert await store.count("Organization", clause) == 1
