"""Custom SearchParameters: noted, indexed by a leased job, used only when ready, gone with their definition."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from conformance.outcome import Refusal
from conformance.spec import Spec, load_spec
from fhir_server.jobs import reindex as job
from fhir_server.search import custom
from fhir_server.store import Change
from fhir_server.store.mongo import reindexing
from tests.search.world import ask, context, fill, found

PARAM = {
    "resourceType": "SearchParameter",
    "id": "eye",
    "url": "http://example.org/eye",
    "name": "eye",
    "status": "active",
    "description": "eye colour",
    "code": "eye-colour",
    "base": ["Patient"],
    "type": "token",
    "expression": "Patient.extension('http://example.org/eye')",
}


def person(rid: str, colour: str):
    return {"resourceType": "Patient", "id": rid, "extension": [{"url": "http://example.org/eye", "valueCode": colour}]}


@pytest.fixture
async def ctx(store):
    """With a Spec of its own, so that no other test sees the custom parameter."""
    await fill(store, [PARAM, *(person(f"p{number:03d}", ("blue", "brown")[number % 2]) for number in range(450))])
    shared = load_spec()
    return replace(context(store), spec=Spec(shared.tables, shared.packages))


async def begin(ctx, param=PARAM):
    row = custom.row_of(param["id"], custom.read(ctx.spec, param), datetime.now(UTC).replace(microsecond=0))
    await reindexing.begin(ctx.store.database, row)


def worker(ctx):
    return job.Reindexer(ctx, ctx.store.database, settle=timedelta(seconds=-5))


async def test_a_parameter_is_used_when_all_is_indexed(ctx):
    with pytest.raises(Refusal):
        await ask(ctx, "Patient?eye-colour=blue")
    await begin(ctx)
    await job.refresh(worker(ctx))
    with pytest.raises(Refusal):
        await ask(ctx, "Patient?eye-colour=blue")
    await job.work(worker(ctx))
    row = await reindexing.one(ctx.store.database, PARAM["url"])
    assert (row["state"], row["done"], row["total"]) == ("ready", 450, 450)
    assert (await ask(ctx, "Patient?eye-colour=blue&_summary=count"))["total"] == 225
    assert found(await ask(ctx, "Patient?eye-colour=brown&_count=2")) == ["Patient/p001", "Patient/p003"]
    assert (await ask(ctx, "Patient?_id=p001"))["entry"][0]["resource"]["meta"]["versionId"] == "1"


async def test_another_process_goes_on_where_the_first_stopped(ctx, monkeypatch):
    await begin(ctx)
    await job.refresh(worker(ctx))
    calls = []
    real = reindexing.rewrite

    async def dies(database, rtype, after, index_of, block=reindexing.BLOCK):
        calls.append(after)
        if len(calls) == 2:
            raise ConnectionError
        return await real(database, rtype, after, index_of, block)

    monkeypatch.setattr(reindexing, "rewrite", dies)
    with pytest.raises(ConnectionError):
        await job.work(worker(ctx))
    assert (await reindexing.one(ctx.store.database, PARAM["url"]))["done"] == 200
    await job.work(worker(ctx))  # leased by the first: nothing to do
    assert len(calls) == 2
    await ctx.store.database[reindexing.PARAMS].update_one({}, {"$set": {"until": datetime.now(UTC) - timedelta(seconds=1)}})
    await job.work(worker(ctx))
    assert calls[2] == "p199"
    assert (await ask(ctx, "Patient?eye-colour=blue&_summary=count"))["total"] == 225


async def test_the_parameter_goes_with_its_definition(ctx):
    await begin(ctx)
    await job.work(worker(ctx))
    stored = await ctx.store.get("SearchParameter", "eye")

    async def body(tx):
        return await tx.put([Change("SearchParameter", "eye", None, {}, stored, "DELETE")])

    await ctx.store.transact(body)
    await job.refresh(worker(ctx))
    with pytest.raises(Refusal):
        await ask(ctx, "Patient?eye-colour=blue")


@pytest.mark.parametrize(
    "change",
    [
        {"code": "gender"},
        {"expression": "Patient.((("},
        {"base": ["Nothing"]},
        {"type": "composite"},
        {"type": "composite", "component": [{"definition": "http://example.org/none", "expression": "gender"}] * 2},
        {"status": "draft"},
        {"expression": ""},
    ],
)
def test_what_cannot_be_served_is_refused(change):
    with pytest.raises(Refusal) as refused:
        custom.read(load_spec(), {**PARAM, **change})
    assert refused.value.status == 422


async def test_a_definition_that_names_modifiers_and_comparators_allows_no_others(ctx):
    """https://hl7.org/fhir/R4/searchparameter-definitions.html#SearchParameter.comparator"""
    rules = {"modifier": ["missing"], "multipleOr": False, "multipleAnd": False}
    await begin(ctx, PARAM | rules)
    born = {"id": "bd", "url": "http://example.org/bd", "code": "bd", "type": "date", "expression": "Patient.birthDate", "comparator": ["gt"]}
    await fill(ctx.store, [PARAM | born])
    await begin(ctx, PARAM | born)
    await job.refresh(worker(ctx))
    await job.work(worker(ctx))
    for query in ("eye-colour=blue", "eye-colour:missing=false", "bd=gt1950", "bd=1950", "bd=eq1950,1960"):
        await ask(ctx, f"Patient?{query}")
    for query in ("eye-colour:not=blue", "eye-colour=blue,brown", "eye-colour=blue&eye-colour=brown", "bd=lt1950", "bd=1960,ne1950"):
        with pytest.raises(Refusal, match="definition"):
            await ask(ctx, f"Patient?{query}")


async def test_a_composite_of_published_parameters(ctx):
    """https://hl7.org/fhir/R4/search.html#composite: both parts within one contact"""
    contacts = [
        {"gender": "male", "telecom": [{"system": "phone", "value": "1"}]},
        {"gender": "female", "telecom": [{"system": "phone", "value": "2"}]},
    ]
    await fill(ctx.store, [{"resourceType": "Patient", "id": "both", "contact": contacts}])
    parts = [("individual-gender", "gender"), ("individual-telecom", "telecom")]
    made = {
        "id": "contact-of",
        "url": "http://example.org/contact-of",
        "code": "contact-of",
        "type": "composite",
        "expression": "Patient.contact",
        "component": [{"definition": f"http://hl7.org/fhir/SearchParameter/{name}", "expression": path} for name, path in parts],
    }
    await fill(ctx.store, [PARAM | made])
    await begin(ctx, PARAM | made)
    await job.refresh(worker(ctx))
    await job.work(worker(ctx))
    assert found(await ask(ctx, "Patient?contact-of=male$1")) == ["Patient/both"]
    assert found(await ask(ctx, "Patient?contact-of=female$2,x$y")) == ["Patient/both"]
    assert found(await ask(ctx, "Patient?contact-of=male$2")) == []
