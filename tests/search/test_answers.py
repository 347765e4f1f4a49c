"""What an answer says beside its resources: `self`, contained matches, explanations, references to this server."""

import json

import pytest

from conformance.outcome import Refusal
from fhir_server.interactions.indexing import index_of
from fhir_server.query.match import matches
from fhir_server.search.extract import PATIENT, narrowed
from fhir_server.search.parse import criteria
from tests.search.world import BASE, ask, context, fill, found, link

DRUGS = [{"resourceType": "Medication", "id": code, "code": {"coding": [{"system": "http://rx", "code": code}]}} for code in ("99", "77")]
ORDER = {
    "resourceType": "MedicationRequest",
    "id": "m",
    "status": "active",
    "intent": "order",
    "subject": {"reference": "Patient/a"},
    "contained": DRUGS,
}
OWN = {"resourceType": "Medication", "id": "own", "code": {"coding": [{"system": "http://rx", "code": "99"}]}, "contained": [DRUGS[1]]}


async def test_self_shows_the_count_that_was_applied(store):
    bundle = await ask(context(store, max_page_size=200), "Patient?_count=1000000")
    assert link(bundle, "self") == "Patient?_count=200"


async def test_only_contained_resources_that_match_are_returned(store):
    await fill(store, [ORDER, OWN])
    ctx = context(store)
    bundle = await ask(ctx, "Medication?code=99&_contained=true&_containedType=contained")
    assert [one["fullUrl"] for one in bundle["entry"]] == [f"{BASE}/MedicationRequest/m#99"]
    bundle = await ask(ctx, "Medication?code=99&_contained=both&_containedType=contained")
    assert [one["fullUrl"] for one in bundle["entry"]] == [f"{BASE}/Medication/own", f"{BASE}/MedicationRequest/m#99"]
    bundle = await ask(ctx, "Medication?code=77&_contained=both&_containedType=contained")
    assert [one["fullUrl"] for one in bundle["entry"]] == [f"{BASE}/Medication/own#77", f"{BASE}/MedicationRequest/m#77"]


async def test_a_page_never_has_more_contained_resources_than_asked_for(store):
    """https://hl7.org/fhir/R4/search.html#count: a server SHALL NOT return more resources than requested."""
    many = [{"resourceType": "Medication", "id": f"m{at}", "code": {"coding": [{"code": "99"}]}} for at in range(7)]
    await fill(store, [ORDER | {"id": f"r{at}", "contained": many[: at % 4 * 2]} for at in range(8)] + [OWN])
    ctx = context(store)
    for how, more in (("true", 0), ("both", 1)):
        query = f"Medication?code=99&_contained={how}&_containedType=contained"
        whole = [one["fullUrl"] for one in (await ask(ctx, f"{query}&_count=100"))["entry"]]
        assert len(whole) == len(set(whole)) == 24 + more
        for count in (1, 3, 4, 7):
            seen, url = [], f"{query}&_count={count}"
            while url:
                bundle = await ask(ctx, url)
                assert len(bundle.get("entry", ())) <= count
                seen += [one["fullUrl"] for one in bundle.get("entry", ())]
                url = link(bundle, "next")
            assert seen == whole, count
        assert (await ask(ctx, f"{query}&_summary=count"))["total"] == 24 + more
        assert (await ask(ctx, f"{query}&_count=2&_total=accurate"))["total"] == 24 + more
        assert "total" not in await ask(ctx, f"{query}&_count=2")


async def test_summary_and_elements_leave_what_both_leave(store):
    """https://hl7.org/fhir/R4/search.html#summary, #elements"""
    narrative = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">x</div>'}
    await fill(store, [{"resourceType": "Patient", "id": "a", "gender": "male", "maritalStatus": {"text": "m"}, "text": narrative}])
    ctx = context(store)
    for query, left in (
        ("_elements=gender,maritalStatus", {"gender", "maritalStatus"}),
        ("_summary=true&_elements=gender,maritalStatus", {"gender"}),
        ("_summary=data&_elements=maritalStatus,text", {"maritalStatus"}),
        ("_summary=text&_elements=gender,text", {"text"}),
    ):
        (entry,) = (await ask(ctx, f"Patient?{query}"))["entry"]
        assert set(entry["resource"]) - {"resourceType", "id", "meta"} == left, query


async def test_a_named_query_is_refused_under_lenient_handling_too(store):
    """https://hl7.org/fhir/R4/search.html#query: servers SHALL refuse what they do not recognise."""
    for query in ("_query=current-high-risk", "_query=x&family=a", "_query:exact=x"):
        with pytest.raises(Refusal, match="_query"):
            await ask(context(store, lenient=True), f"Patient?{query}")
    assert "ignored" in json.dumps(await ask(context(store, lenient=True), "Patient?nonsense=1"))


async def test_counts_are_explained_too(store):
    await fill(store, [{"resourceType": "Patient", "id": "a", "identifier": [{"value": "7"}]}])
    bundle = await ask(context(store), "Patient?identifier=7&_summary=count&_explain=true")
    assert bundle["total"] == 1
    assert "k_id" in json.dumps(bundle["entry"])


async def test_the_searches_of_chains_are_explained(store):
    lab = {"resourceType": "Observation", "id": "o", "status": "final", "code": {"coding": [{"code": "x"}]}, "subject": {"reference": "Patient/a"}}
    await fill(store, [{"resourceType": "Patient", "id": "a", "name": [{"family": "Abel"}]}, lab])
    ctx = context(store)
    told = json.dumps((await ask(ctx, "Patient?_has:Observation:patient:code=x&_explain=true"))["entry"][-1])
    assert "Observation indexes: k_d" in told
    assert "Patient indexes: _id_" in told
    told = json.dumps((await ask(ctx, "Observation?subject:Patient.family=abel&_explain=true"))["entry"][-1])
    assert "Patient indexes" in told
    assert "Observation indexes: p_k_d" in told


@pytest.mark.parametrize("query", ["date=ge2013", "date=lt2013-05-01T10:00:00Z", "date=ap2013", "patient=a&date=sa2013"])
async def test_open_bounds_are_explained(store, query):
    await fill(store, [{"resourceType": "Observation", "id": "o", "status": "final", "code": {"text": "x"}, "effectiveDateTime": "2013"}])
    bundle = await ask(context(store), f"Observation?{query}&_explain=true")
    assert "_d" in json.dumps(bundle["entry"][-1])


async def test_a_search_of_all_types_says_what_it_needs(store):
    with pytest.raises(Refusal, match="_type"):
        await ask(context(store), "?name=peter")


async def test_absolute_references_to_this_server_are_found_as_relative_ones(store):
    ctx = context(store)
    res = {"resourceType": "Observation", "id": "o", "status": "final", "code": {"text": "x"}, "subject": {"reference": f"{BASE}/Patient/a"}}
    index = index_of(ctx, res)
    for value in ("Patient/a", "a", f"{BASE}/Patient/a"):
        assert matches(criteria(ctx, "Observation", [("subject", value)]), index), value
    assert not matches(criteria(ctx, "Observation", [("subject", "http://other/fhir/Patient/a")]), index)
    judged = narrowed(ctx.spec, "Observation", frozenset({PATIENT}), BASE)(res)
    assert judged["p"] == "Patient/a", "rights are judged by the same index document"


async def test_totals_count_what_fits_and_what_is_asked(store):
    await fill(store, [{"resourceType": "Patient", "id": f"p{number}", "gender": "male"} for number in range(12)])
    ctx = context(store, search_total=10)
    assert (await ask(ctx, "Patient?gender=male&_count=20"))["total"] == 12
    assert "total" not in await ask(ctx, "Patient?gender=male&_count=5")
    assert (await ask(ctx, "Patient?gender=male&_count=5&_total=accurate"))["total"] == 12
    assert len(found(await ask(ctx, "Patient?gender=male&_count=5&_total=none"))) == 5


async def test_who_asks_for_the_newest_is_not_told_how_many_there_are_unless_asked(store):
    lab = {"resourceType": "Observation", "status": "final", "code": {"coding": [{"code": "x"}]}, "subject": {"reference": "Patient/a"}}
    await fill(store, [lab | {"id": f"o{day}", "effectiveDateTime": f"2024-05-0{day}"} for day in range(1, 6)])
    ctx = context(store)
    newest = "Observation?patient=a&code=x&_sort=-date"
    assert "total" not in await ask(ctx, f"{newest}&_count=2")
    assert (await ask(ctx, f"{newest}&_count=2&_total=accurate"))["total"] == 5
    assert (await ask(ctx, f"{newest}&_count=5"))["total"] == 5
    assert (await ask(ctx, "Observation?patient=a&code=x&_count=2"))["total"] == 5
    assert found(await ask(ctx, f"{newest}&_count=2&date=ge2024-05-02")) == ["Observation/o5", "Observation/o4"]
