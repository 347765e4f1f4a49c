"""$everything and $lastn as searches."""

import random

import pytest

from conformance.outcome import Refusal
from fhir_server.query.clauses import NOTHING
from fhir_server.search import everything as compartment
from fhir_server.search.lastn import lastn
from tests.bench.synthetic import person, practice
from tests.search.test_run import lab, patient
from tests.search.world import BASE, context, everything, fill, found, link


@pytest.fixture
async def world(store):
    await fill(
        store,
        [
            *practice(),
            *person(1, random.Random(1)),
            *person(2, random.Random(2)),
            patient("q", "Quiet", "Q", "1990"),
            lab("q1", "q", "718-7", "5", "2020-01-01"),
            lab("q2", "q", "718-7", "6", "2021-01-01"),
            lab("q3", "q", "2345-7", "90", "2019"),
        ],
    )
    return context(store)


async def of(ctx, rid, *pairs, visible=everything):
    return await compartment.everything(ctx, "Patient", rid, pairs, visible=visible, path=f"Patient/{rid}/$everything")


async def test_everything_is_the_compartment_and_what_it_refers_to(world):
    bundle = await of(world, "p1")
    matches = found(bundle)
    assert matches[0] == "Patient/p1"
    assert len(matches) == 39
    assert not any("p2" in one for one in matches)
    assert "Organization/org" in found(bundle, "include")
    assert any(one.startswith("Practitioner/") for one in found(bundle, "include"))
    assert not set(matches) & set(found(bundle, "include"))
    assert found(await of(world, "p1", ("_type", "Patient,Organization")), "include") == ["Organization/org"]


async def test_everything_brings_whatever_its_resources_refer_to(store):
    """https://hl7.org/fhir/R4/patient-operation-everything.html: "any resource referenced from those, including binaries and attachments"."""
    about = {"subject": {"reference": "Patient/q"}}
    scan = {"contentType": "image/png", "url": "Binary/scan"}
    team = {"member": {"reference": "Practitioner/d"}, "onBehalfOf": {"reference": f"{BASE}/Organization/o"}}
    own = {"url": "http://x/device", "valueReference": {"reference": "Medication/ext"}}
    await fill(
        store,
        [
            patient("q", "Quiet", "Q", "1990"),
            patient("other", "Other", "O", "1990"),
            {"resourceType": "DocumentReference", "id": "doc", "status": "current", **about, "content": [{"attachment": scan}], "extension": [own]},
            {"resourceType": "CareTeam", "id": "team", **about, "participant": [team]},
            {"resourceType": "Binary", "id": "scan", "contentType": "image/png", "data": "AAAA"},
            {"resourceType": "Binary", "id": "else", "contentType": "image/png", "data": "AAAA"},
            {"resourceType": "Practitioner", "id": "d"},
            {"resourceType": "Organization", "id": "o", "name": "O"},
            {"resourceType": "Medication", "id": "ext", "code": {"text": "m"}},
            lab("theirs", "other", "718-7", "5", "2020-01-01"),
        ],
    )
    bundle = await of(context(store), "q")
    assert sorted(found(bundle)) == ["CareTeam/team", "DocumentReference/doc", "Patient/q"]
    assert sorted(found(bundle, "include")) == ["Binary/scan", "Medication/ext", "Organization/o", "Practitioner/d"]


async def test_everything_pages_without_loss(world):
    whole, query, seen = found(await of(world, "p1")), (("_count", "7"),), []
    cursor = ()
    for _ in range(10):
        bundle = await of(world, "p1", *query, *cursor)
        seen += found(bundle)
        text = link(bundle, "next")
        if not text:
            break
        cursor = (("_cursor", text.rpartition("_cursor=")[2]),)
    assert seen == whole


async def test_everything_is_narrowed_by_type_date_and_stamp(world):
    assert found(await of(world, "q", ("_type", "Observation"), ("start", "2020"), ("end", "2020-12"))) == ["Observation/q1"]
    assert found(await of(world, "q", ("_since", "2999-01-01T00:00:00Z"))) == []
    with pytest.raises(Refusal):
        await of(world, "q", ("foo", "1"))


async def test_everything_shows_only_what_is_visible(world):
    bundle = await of(world, "p1", visible=lambda rtype: NOTHING if rtype in ("Observation", "Practitioner") else everything(rtype))
    kinds = {one.split("/")[0] for one in (*found(bundle), *found(bundle, "include"))}
    assert "Observation" not in kinds
    assert "Practitioner" not in kinds


async def test_lastn_gives_the_newest_of_each_code(world):
    async def last(*pairs):
        return found(await lastn(world, pairs, visible=everything, path="Observation/$lastn"))

    assert await last(("patient", "q"), ("code", "718-7,2345-7")) == ["Observation/q2", "Observation/q3"]
    assert await last(("patient", "q"), ("code", "718-7"), ("max", "5")) == ["Observation/q2", "Observation/q1"]
    for wrong in ((("code", "1"),), (("patient", "q"),), (("patient", "q"), ("code", "1"), ("max", "0"))):
        with pytest.raises(Refusal):
            await last(*wrong)


async def test_the_last_of_each_kind_with_their_ties(store):
    def lab(rid, day, *codes, text=""):
        code = {"coding": [{"system": "http://x", "code": one} for one in codes]} if codes else {"text": text}
        return {"resourceType": "Observation", "id": rid, "status": "final", "code": code, "subject": {"reference": "Patient/a"}} | (
            {"effectiveDateTime": f"2024-05-{day:02d}"} if day else {}
        )

    kinds = [lab("a1", 9, "a"), lab("b1", 8, "b"), lab("a2", 7, "a"), lab("c1", 6, "c"), lab("c2", 6, "c"), lab("c3", 6, "c"), lab("c4", 5, "c")]
    texts = [lab("t1", 4, text="Text"), lab("t2", 3, text="text"), lab("t3", 2, text="t e x t"), lab("u1", 0, "u"), lab("u2", 0, "u")]
    await fill(store, [*kinds, *texts])
    ctx = context(store)

    async def last(*pairs):
        made = await lastn(ctx, [("patient", "a"), *pairs], visible=everything, path="Observation/$lastn")
        return [one["resource"]["id"] for one in made.get("entry", ())]

    assert await last(("code", "a,b,c")) == ["a1", "b1", "c1", "c2", "c3"]
    assert await last(("code", "a,b,c"), ("max", "2")) == ["a1", "b1", "a2", "c1", "c2", "c3"]
    assert await last(("code:missing", "false")) == ["a1", "b1", "c1", "c2", "c3", "t1", "t2", "t3", "u1"]
    await fill(store, [lab("ab", 1, "a", "b")])
    assert await last(("code", "a,b")) == ["a1"], "a and b are of one kind through an older observation with both"
    assert await last(("code", "a,b"), ("max", "3")) == ["a1", "b1", "a2"]
    assert await last(("code-value-quantity", "a$gt1")) == []
