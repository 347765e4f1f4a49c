"""The definitions of R4 over REST: read, search, paging, hidden by stored ones, written by administrators only."""

from dataclasses import replace
from typing import Any

import pytest

from conformance.published import kinds, published
from conformance.spec import DEFINITIONS, Spec, load_spec
from conformance.validate import checker
from fhir_server.context import Right
from fhir_server.search.definitions import rows
from fhir_server.search.shelved import Shelved
from tests.server.rest.calls import Exchange

pytestmark = pytest.mark.asyncio(loop_scope="module")
COUNTS = {
    "StructureDefinition": 655,
    "ValueSet": 1316,
    "CodeSystem": 1062,
    "SearchParameter": 1400,
    "OperationDefinition": 50,
    "CompartmentDefinition": 6,
}
CORE = "http://hl7.org/fhir/StructureDefinition/"
ALL = frozenset("cruds")


@pytest.fixture
def shelved(rest: Exchange) -> Exchange:
    """The exchange of the other tests, with the definitions in its view."""
    return Exchange(replace(rest.ctx, store=Shelved(rest.ctx.store, rest.ctx.spec)))


def ids(bundle: Any) -> list[str]:
    return [entry["resource"]["id"] for entry in bundle.get("entry", ())]


def own(url: str, rid: str) -> dict[str, Any]:
    return {"resourceType": "ValueSet", "id": rid, "url": url, "status": "active", "name": "Own"}


async def test_read(shelved: Exchange) -> None:
    reply = await shelved("GET", "StructureDefinition/Patient")
    assert reply.status == 200
    assert reply.headers["ETag"] == 'W/"1"'
    assert reply.res is not None
    assert reply.res["url"] == CORE + "Patient"
    assert reply.res["meta"]["versionId"] == "1"
    name = next(each for each in reply.res["snapshot"]["element"] if each["path"] == "Patient.name")
    assert (name["min"], name["max"], name["short"]) == (0, "*", "A name associated with the patient")
    assert len(reply.res["differential"]["element"]) > 20
    assert (await shelved("GET", "StructureDefinition/Patient/_history/1")).status == 200
    assert (await shelved("GET", "StructureDefinition/Patient/_history/2")).status == 404
    assert len((await shelved("GET", "StructureDefinition/Patient/_history")).res["entry"]) == 1  # type: ignore[index]
    assert (await shelved("GET", "StructureDefinition/NoSuchThing")).status == 404


async def test_every_operation_named_by_the_capability_statement_can_be_read(shelved: Exchange) -> None:
    """https://hl7.org/fhir/R4/capabilitystatement-definitions.html#CapabilityStatement.rest.resource.operation.definition"""
    rest = (await shelved("GET", "metadata")).res["rest"][0]  # type: ignore[index]
    named = {one["definition"]: one["name"] for row in (rest, *rest["resource"]) for one in row.get("operation", ())}
    assert len(named) > 15
    for url, name in named.items():
        found = (await shelved("GET", f"OperationDefinition?url={url}")).res["entry"]  # type: ignore[index]
        assert [one["resource"]["code"] for one in found] == [name]
        res = (await shelved("GET", f"OperationDefinition/{ids({'entry': found})[0]}")).res
        assert res is not None
        assert res["url"] == url
        if url.startswith("urn:"):
            assert checker(load_spec(), "OperationDefinition", warnings=False)(res) == []


@pytest.mark.parametrize("kind", sorted(COUNTS))
async def test_all_of_a_kind_by_pages(shelved: Exchange, kind: str) -> None:
    total = await shelved("GET", f"{kind}?_summary=count")
    assert total.res is not None
    assert total.res["total"] == COUNTS[kind]
    seen: list[str] = []
    url = f"{kind}?_count=400&_elements=url"
    while url:
        page = (await shelved("GET", url)).res or {}
        seen += ids(page)
        url = next((link["url"].split("/fhir/")[1] for link in page["link"] if link["relation"] == "next"), "")
    assert len(seen) == len(set(seen)) == COUNTS[kind]
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (f"StructureDefinition?url={CORE}Patient", ["Patient"]),
        ("StructureDefinition?name=observation-v&_count=3", None),
        ("StructureDefinition?kind=primitive-type&name:exact=positiveInt", ["positiveInt"]),
        ("StructureDefinition?_id=Patient,Observation", ["Observation", "Patient"]),
        ("StructureDefinition?_id=Patient,nowhere&url:missing=false", ["Patient"]),
        ("SearchParameter?code=phonetic&base=Patient&_sort=-name", ["individual-phonetic"]),
        ("CompartmentDefinition?code=Patient", ["patient"]),
        ("OperationDefinition?name=Validate", ["Resource-validate"]),
        ("ValueSet?url=http://hl7.org/fhir/ValueSet/administrative-gender", ["administrative-gender"]),
        ("CodeSystem?system=http://hl7.org/fhir/administrative-gender", ["administrative-gender"]),
        ("CodeSystem?url=urn:nothing", []),
    ],
)
async def test_search(shelved: Exchange, query: str, expected: list[str] | None) -> None:
    reply = await shelved("GET", query)
    assert reply.status == 200, reply.res
    assert reply.res is not None
    found = ids(reply.res)
    assert found if expected is None else sorted(found) == sorted(expected)


async def test_sorted_by_name_with_stored_ones_between(shelved: Exchange) -> None:
    for rid, name in (("zz", "AAA"), ("aa", "ZZZZ")):
        assert (await shelved("PUT", f"ValueSet/{rid}", own("urn:oid:1.2.3", rid) | {"name": name})).status == 201
    seen: list[str] = []
    url = "ValueSet?_sort=-name&_count=500"
    while url:
        page = (await shelved("GET", url)).res or {}
        seen += [entry["resource"].get("name", "").lower() for entry in page["entry"]]
        url = next((link["url"].split("/fhir/")[1] for link in page["link"] if link["relation"] == "next"), "")
    assert len(seen) == COUNTS["ValueSet"] + 2
    named = [each for each in seen if each]
    assert named[0] == "zzzz"
    assert "aaa" in named[-3:]


async def test_a_stored_one_hides_the_published_one(shelved: Exchange) -> None:
    url = "http://hl7.org/fhir/ValueSet/administrative-gender"
    assert (await shelved("PUT", "ValueSet/administrative-gender", own("urn:oid:1.2.3.4", "administrative-gender"))).status == 201
    assert (await shelved("GET", "ValueSet/administrative-gender")).res["url"] == "urn:oid:1.2.3.4"  # type: ignore[index]
    assert ids((await shelved("GET", f"ValueSet?url={url}")).res) == []
    assert (await shelved("GET", "ValueSet?_summary=count")).res["total"] == COUNTS["ValueSet"]  # type: ignore[index]
    assert (await shelved("DELETE", "ValueSet/administrative-gender")).status in (200, 204)
    assert (await shelved("GET", "ValueSet/administrative-gender")).status == 410
    assert ids((await shelved("GET", f"ValueSet?url={url}")).res) == []


async def test_writing_takes_an_administrator(shelved: Exchange) -> None:
    other = shelved.by(Right("*", ALL))
    for kind in DEFINITIONS:
        assert (await other("GET", f"{kind}?_summary=count")).status == 200
    for method, url in (("POST", "ValueSet"), ("PUT", "ValueSet/own")):
        reply = await other(method, url, own("urn:oid:1.2.3", "own"))
        assert reply.status == 403
        assert "administrator" in str(reply.res)
    entry = {"resource": own("urn:oid:1.2.3", "own"), "request": {"method": "PUT", "url": "ValueSet/own"}}
    assert (await other("POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": [entry]})).status == 403
    assert (await other("DELETE", "ValueSet/own")).status == 403
    assert (await shelved("POST", "ValueSet", own("urn:oid:1.2.3", "own"))).status == 201


async def test_reading_takes_a_right(shelved: Exchange) -> None:
    other = shelved.by(Right("Patient", ALL))
    assert (await other("GET", "StructureDefinition/Patient")).status == 403
    assert (await other("GET", "StructureDefinition")).status == 403


async def test_by_type_of_the_system_search(shelved: Exchange) -> None:
    reply = await shelved("GET", "?_type=StructureDefinition,ValueSet&_id=Patient,administrative-gender")
    assert ids(reply.res) == ["Patient", "administrative-gender"]


ERRATA = {"required": 10, "value": 1, "invariant": 4}  # as R4 published them: SearchParameters without base, a long id, sdf-4 of logical patterns


@pytest.mark.slow
async def test_what_is_served_is_valid(shelved: Exchange) -> None:
    found: dict[str, int] = {}
    for kind in kinds(load_spec()):
        check = checker(load_spec(), kind, warnings=False)
        for rid in published(load_spec(), kind):
            stored = await shelved.ctx.store.get(kind, rid)
            assert stored is not None
            assert stored.res is not None
            for issue in check(stored.res):
                found[issue.code] = found.get(issue.code, 0) + 1
    assert found == ERRATA


async def test_by_url_only_what_is_asked_for_is_read(rest: Exchange) -> None:
    spec = Spec(load_spec().tables)
    one = Exchange(replace(rest.ctx, store=Shelved(rest.ctx.store, spec), spec=spec))
    reply = await one("GET", f"StructureDefinition?url={CORE}Patient,{CORE}Observation&status=draft,active&_sort=name")
    assert sorted(ids(reply.res)) == ["Observation", "Patient"]
    assert len(rows(spec, "StructureDefinition")) == 2
    assert ids((await one("GET", f"StructureDefinition?url={CORE}Patient&status=retired")).res) == []
    assert "Patient" in ids((await one("GET", "StructureDefinition?name:exact=Patient")).res)
    assert len(rows(spec, "StructureDefinition")) == COUNTS["StructureDefinition"]
