"""One walk finds what three walks of their own find: references, codings, human text; whatever the resource looks like."""

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.spec import load_spec
from fhir_server.interactions.references import Links, references
from fhir_server.interactions.survey import rewrite, survey
from fhir_server.search.types.special import prose_of, text_names
from terminology.ingest import codings_of

SPEC = load_spec()
NAMES = text_names(SPEC)
URL = "urn:uuid:00000000-0000-4000-8000-000000000001"
LINKS = Links("http://localhost/fhir/", {URL: "Patient/1"}, {"Group/local": "Group/1"}, {"Patient?a=1": "Patient/2"})
texts = st.sampled_from(["a text", "x", URL, "Group/local", "http://localhost/fhir/Patient/9", "Patient?a=1", "Group/7/_history/2", "#c"])
leaves = st.one_of(texts, st.integers(0, 3), st.none(), st.booleans())
names = st.sampled_from(
    ["reference", "system", "code", "display", "text", "div", "meta", "entry", "coding", "valueReference", "valueUri", "name", "given"]
)
trees = st.recursive(leaves, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=4)), max_leaves=25)
bundle = st.just({"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "Basic", "subject": {"reference": URL, "display": "x"}}}]})
resources = st.dictionaries(names, trees, max_size=5).map(lambda made: {"resourceType": "Basic", **made})
whole = st.one_of(resources, st.tuples(resources, bundle).map(lambda pair: {**pair[0], "contained": [pair[1]]}), bundle)


@settings(max_examples=400, deadline=None)
@given(whole)
def test_a_survey_is_what_the_three_walks_give_and_the_rewriting(res: dict[str, Any]) -> None:
    before = copy.deepcopy(res)
    seen = survey(res, SPEC, LINKS)
    assert res == before
    assert seen.res == rewrite(res, LINKS, SPEC)
    assert seen.sent == references(res)
    assert seen.texts == references(seen.res)
    if seen.codings is not None:
        assert [id(one) for one in seen.codings] == [id(one) for one in codings_of(seen.res)]
        assert seen.prose == prose_of(seen.res, NAMES)


@settings(max_examples=200, deadline=None)
@given(whole)
def test_without_links_nothing_is_replaced(res: dict[str, Any]) -> None:
    seen = survey(res, SPEC)
    assert seen.res is res
    assert seen.sent == seen.texts == references(res)
    assert seen.codings is None or [id(one) for one in seen.codings] == [id(one) for one in codings_of(res)]
    assert seen.prose is None or seen.prose == prose_of(res, NAMES)


def test_a_resource_of_r4_keeps_what_was_noted_also_where_links_were_replaced() -> None:
    coding = {"system": "http://loinc.org", "code": "718-7", "display": "Hemoglobin"}
    res = {"resourceType": "Observation", "meta": {"tag": [coding]}, "code": {"coding": [coding], "text": "Hb"}, "subject": {"reference": URL}}
    seen = survey(res, SPEC, LINKS)
    assert seen.res["subject"] == {"reference": "Patient/1"}
    assert seen.codings == [coding, coding]
    assert seen.prose == [["Hb"], ["Hemoglobin"]]


def test_what_is_rewritten_once_more_is_looked_through_anew() -> None:
    res = {"resourceType": "Observation", "code": {"coding": [{"system": URL, "code": "1"}]}}
    seen = survey(res, SPEC, LINKS)
    assert seen.res["code"]["coding"][0]["system"] == "Patient/1"
    assert seen.codings is None
    assert seen.prose is None
