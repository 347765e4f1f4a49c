"""Nothing bypasses the one visibility rule: every path, for a caller who may see one patient's data only."""

import pytest
import pytest_asyncio

from fhir_server.context import Right
from fhir_server.query.clauses import NOTHING, Ids
from fhir_server.search.keys import compartment
from tests.server.rest.calls import Exchange, rid_of, text_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECRET = "secret"


def rights(rest: Exchange, actions: str = "cruds") -> tuple[Right, ...]:
    """What belongs to Patient/mine."""
    spec = rest.ctx.spec
    return tuple(Right(rtype, frozenset(actions), compartment(spec, "Patient", "mine", rtype)) for rtype in ("Patient", "Observation", "Encounter"))


def observation(rid: str, patient: str) -> dict:
    return {
        "resourceType": "Observation",
        "id": rid,
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": f"Patient/{patient}"},
        "valueString": SECRET,
    }


@pytest_asyncio.fixture(loop_scope="module")
async def mine(rest: Exchange) -> Exchange:
    for patient in ("mine", "theirs"):
        body = {
            "resourceType": "Patient",
            "id": patient,
            "identifier": [{"system": "http://h", "value": patient}],
            "name": [{"text": SECRET if patient == "theirs" else "me"}],
        }
        assert (await rest("PUT", f"Patient/{patient}", body)).status == 201
        assert (await rest("PUT", f"Observation/{patient}", observation(patient, patient))).status == 201
    return rest.by(*rights(rest))


async def test_what_is_covered_is_served(mine: Exchange) -> None:
    for url in ("Patient/mine", "Observation/mine", "Patient/mine/_history", "Patient/mine/_history/1", "Observation", "Patient/mine/Observation"):
        assert (await mine("GET", url)).status == 200, url
    assert (await mine("PUT", "Observation/mine", observation("mine", "mine"))).status == 200
    assert (await mine("POST", "Observation", observation("x", "mine"))).status == 201
    assert (await mine("DELETE", "Observation/mine")).status == 204


@pytest.mark.parametrize(
    "url",
    [
        "Patient/theirs",
        "Observation/theirs",
        "Patient/theirs/_history",
        "Patient/theirs/_history/1",
        "Observation/theirs/_history/1",
        "Patient/theirs/$meta",
    ],
)
async def test_what_is_not_covered_reads_like_what_never_was(mine: Exchange, url: str) -> None:
    theirs, none = await mine("GET", url), await mine("GET", url.replace("theirs", "none"))
    assert (theirs.status, text_of(theirs).replace("theirs", "none")) == (none.status, text_of(none)) == (404, text_of(none))


@pytest.mark.parametrize(
    "url",
    [
        "_history",
        "Patient/_history",
        "Observation/_history",
        "Observation",
        "Patient",
        "?_type=Patient,Observation",
        "Patient?identifier=http://h|theirs",
    ],
)
async def test_lists_leave_out_what_is_not_covered(mine: Exchange, url: str) -> None:
    reply = await mine("GET", url)
    assert reply.status == 200
    assert "theirs" not in text_of(reply).replace("h|theirs", "").replace("h%7Ctheirs", "")


async def test_a_deleted_resource_that_was_not_covered_is_404_and_stays_out_of_history(rest: Exchange, mine: Exchange) -> None:
    for name in ("theirs", "mine"):
        await rest("DELETE", f"Observation/{name}")
    assert (await mine("GET", "Observation/theirs")).status == 404
    assert (await mine("GET", "Observation/mine")).status == 410
    history = await mine("GET", "Observation/_history")
    assert [row["fullUrl"].rpartition("/")[2] for row in history.res["entry"]] == ["mine", "mine"]
    everything = await mine("GET", "_history")
    assert "theirs" not in text_of(everything)


async def test_a_version_from_before_the_resource_became_ours_is_not_shown(rest: Exchange, mine: Exchange) -> None:
    moved = observation("theirs", "mine") | {"valueString": "now ours"}
    await rest("PUT", "Observation/theirs", moved)
    assert (await mine("GET", "Observation/theirs")).status == 200
    assert (await mine("GET", "Observation/theirs/_history/1")).status == 404
    history = await mine("GET", "Observation/theirs/_history")
    assert [row["response"]["etag"] for row in history.res["entry"]] == ['W/"2"']


async def test_writes_are_judged_by_old_and_new_state(rest: Exchange, mine: Exchange) -> None:
    assert (await mine("PUT", "Observation/theirs", observation("theirs", "mine"))).status == 404
    assert (await mine("PUT", "Observation/mine", observation("mine", "theirs"))).status == 403
    assert (await mine("POST", "Observation", observation("x", "theirs"))).status == 403
    assert (await mine("PUT", "Observation/new", observation("new", "mine"))).status == 404
    patch = b'[{"op":"replace","path":"/valueString","value":"y"}]'
    assert (await mine("PATCH", "Observation/theirs", body=patch, media="application/json-patch+json")).status == 404
    assert (await mine("DELETE", "Observation/theirs")).status == 204
    assert (await mine("DELETE", "Observation?_id=theirs")).status == 204
    assert (await rest("GET", "Observation/theirs")).res["meta"]["versionId"] == "1"
    assert (await rest("GET", "Observation/new")).status == 404


async def test_conditional_interactions_do_not_find_what_is_not_covered(mine: Exchange) -> None:
    body = {"resourceType": "Patient", "identifier": [{"system": "http://h", "value": "theirs"}]}
    assert (await mine("PUT", "Patient?identifier=http://h|theirs", body)).status == 403
    assert (await mine("POST", "Patient", body, if_none_exist="identifier=http://h|theirs")).status == 403
    entry = {
        "request": {"method": "POST", "url": "Observation"},
        "resource": observation("o", "mine") | {"focus": [{"reference": "Patient?identifier=http://h|theirs"}]},
    }
    reply = await mine("POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
    assert reply.status == 412
    assert "theirs" not in text_of(reply)


async def test_bundle_entries_are_judged_one_by_one(mine: Exchange) -> None:
    entries = [
        {"request": {"method": "GET", "url": "Patient/theirs"}},
        {"request": {"method": "PUT", "url": "Observation/theirs"}, "resource": observation("theirs", "mine")},
    ]
    reply = await mine("POST", "", {"resourceType": "Bundle", "type": "batch", "entry": entries})
    assert [row["response"]["status"][:3] for row in reply.res["entry"]] == ["404", "404"]
    for entry in entries:
        reply = await mine("POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
        assert reply.status in (403, 404)
        assert SECRET not in text_of(reply)


async def test_referrers_that_may_not_be_read_are_not_named(rest: Exchange, mine: Exchange) -> None:
    await rest(
        "PUT",
        "Encounter/e",
        {"resourceType": "Encounter", "id": "e", "status": "finished", "class": {"code": "AMB"}, "subject": {"reference": "Patient/mine"}},
    )
    await rest("PUT", "Observation/theirs", observation("theirs", "theirs") | {"encounter": {"reference": "Encounter/e"}})
    reply = await mine("DELETE", "Encounter/e")
    assert reply.status == 409
    assert "theirs" not in text_of(reply)
    assert (await mine("DELETE", "Encounter/e?_cascade=delete")).status == 409
    assert (await rest("GET", "Encounter/e")).status == 200


@pytest.mark.parametrize(
    ("action", "method", "url"),
    [
        ("r", "GET", "Patient/mine"),
        ("s", "GET", "Patient"),
        ("s", "GET", "Patient/_history"),
        ("d", "DELETE", "Patient/mine"),
        ("c", "POST", "Patient"),
        ("u", "PUT", "Patient/mine"),
    ],
)
async def test_a_missing_right_is_403(rest: Exchange, mine: Exchange, action: str, method: str, url: str) -> None:
    body = {"resourceType": "Patient", "id": "mine"} if method in ("PUT", "POST") else None
    without = rest.by(Right("*", frozenset("cruds") - {action}))
    assert (await without(method, url, body)).status == 403
    assert (await rest.by()(method, url, body)).status == 403
    assert (await rest.by(Right("Observation", frozenset("cruds")))(method, url, body)).status == 403


async def test_an_empty_clause_sees_nothing(rest: Exchange, mine: Exchange) -> None:
    nobody = rest.by(Right("*", frozenset("cruds"), NOTHING))
    for url in ("Patient/mine", "Patient/mine/_history"):
        assert (await nobody("GET", url)).status in (403, 404)
    other = rest.by(Right("*", frozenset("cruds"), Ids(("x",))))
    assert (await other("GET", "Patient/mine")).status == 404
    assert (await other("PUT", "Patient/x", {"resourceType": "Patient", "id": "x"})).status == 404
    assert (await rest("PUT", "Patient/x", {"resourceType": "Patient", "id": "x"})).status == 201
    assert rid_of(await other("PUT", "Patient/x", {"resourceType": "Patient", "id": "x"})) == "x"


async def test_meta_of_a_type_shows_labels_of_what_is_seen_only(rest: Exchange) -> None:
    """https://hl7.org/fhir/R4/resource-operation-meta.html"""
    for rid in ("mine", "theirs"):
        assert (await rest("PUT", f"Patient/{rid}", {"resourceType": "Patient", "id": rid, "meta": {"tag": [{"code": rid}]}})).status == 201
    own = rest.by(Right("Patient", frozenset("rs"), level="patient", who="Patient/mine"))
    for url in ("Patient/$meta", "$meta"):
        assert text_of(await rest("GET", url)).count("theirs") == 1
        reply = await own("GET", url)
        assert ("mine" in text_of(reply), "theirs" in text_of(reply)) == (True, False)
    assert (await own("GET", "Observation/$meta")).status == 403
