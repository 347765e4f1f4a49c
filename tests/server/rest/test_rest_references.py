"""Rewriting references (https://hl7.org/fhir/R4/http.html#trules): properties over generated resources."""

import copy
import html
import json
import string
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.spec import load_spec
from fhir_server.interactions.references import Links, conditional, literal, references, root_of
from fhir_server.interactions.survey import rewrite

SPEC = load_spec()
BASE = "http://localhost/fhir/"
URNS = [f"urn:uuid:00000000-0000-4000-8000-00000000000{digit}" for digit in range(5)]
TARGETS = {urn: f"Patient/{number}" for number, urn in enumerate(URNS)} | {"http://lab/x/Patient/7": "Patient/seven"}
LINKS = Links(BASE, TARGETS)
ids = st.text(string.ascii_letters + string.digits + "-.", min_size=1, max_size=12)
foreign = st.one_of(
    ids.map(lambda rid: f"Group/{rid}"), ids.map(lambda rid: f"http://elsewhere/Patient/{rid}"), st.just("#contained"), st.just("urn:oid:1.2.3")
)
known = st.sampled_from(sorted(TARGETS))
references_st = st.one_of(known, foreign)
extension = st.one_of(
    known.map(lambda url: {"url": "http://e", "valueUri": url}),
    known.map(lambda url: {"url": "http://e", "valueCanonical": url}),
    known.map(lambda url: {"url": "http://e", "valueString": url}),
    references_st.map(lambda text: {"url": "http://e", "valueReference": {"reference": text}}),
)
extensions = st.recursive(
    extension, lambda inner: st.lists(inner, min_size=1, max_size=3).map(lambda rows: {"url": "http://n", "extension": rows}), max_leaves=6
)


@st.composite
def resources(draw: Any) -> dict[str, Any]:
    res: dict[str, Any] = {"resourceType": "Observation", "status": "final", "code": {"text": draw(known)}}
    res["subject"] = {"reference": draw(references_st)}
    res["focus"] = [{"reference": text} for text in draw(st.lists(references_st, max_size=4))]
    res["extension"] = draw(st.lists(extensions, max_size=4))
    res["contained"] = [{"resourceType": "Encounter", "id": "e", "subject": {"reference": draw(references_st)}}]
    res["text"] = {"div": f"<div><a href=\"{html.escape(draw(references_st))}\">{draw(known)}</a><img src='{draw(known)}'/></div>"}
    return res


@settings(max_examples=150, deadline=None)
@given(resources())
def test_the_original_is_never_changed_and_rewriting_twice_changes_nothing_more(res: dict[str, Any]) -> None:
    before = copy.deepcopy(res)
    once = rewrite(res, LINKS, SPEC)
    assert res == before
    assert rewrite(once, LINKS, SPEC) == once


@settings(max_examples=150, deadline=None)
@given(resources())
def test_every_known_link_is_replaced_where_it_may_be_and_nowhere_else(res: dict[str, Any]) -> None:
    done = rewrite(res, LINKS, SPEC)
    assert list(references(done)) == [TARGETS.get(text, text) for text in references(res)]
    assert done["code"] == res["code"]
    old, new = json.dumps(res["extension"]), json.dumps(done["extension"])
    for name in ("valueCanonical", "valueString"):
        assert [part.split('"')[2] for part in new.split(name)[1:]] == [part.split('"')[2] for part in old.split(name)[1:]]
    assert not any(url in part for part in new.split("valueUri")[1:] for url in [part.split('"')[2]] if url in TARGETS)
    for url, target in TARGETS.items():
        assert f'href="{url}"' not in done["text"]["div"]
        assert f"src='{url}'" not in done["text"]["div"]
        if f'href="{url}"' in res["text"]["div"]:
            assert f'href="{target}"' in done["text"]["div"]


@settings(max_examples=60, deadline=None)
@given(resources())
def test_without_links_to_replace_the_very_same_object_comes_back(res: dict[str, Any]) -> None:
    assert rewrite(res, Links(BASE), SPEC) is res


def test_fragments_versions_roots_and_own_base() -> None:
    links = Links(
        BASE, {"http://lab/x/Patient/7": "Patient/n", URNS[0]: "Patient/u"}, {"Patient/local": "Patient/l"}, {"Patient?identifier=1": "Patient/c"}
    )
    table = {
        (URNS[0], ""): "Patient/u",
        (URNS[0] + "#part", ""): "Patient/u#part",
        ("#part", ""): "#part",
        ("Patient/7", "http://lab/x/"): "Patient/n",
        ("Patient/7", "http://other/"): "Patient/7",
        ("Patient/7", ""): "Patient/7",
        ("Patient/7/_history/3", "http://lab/x/"): "Patient/n",
        ("http://lab/x/Patient/7/_history/1", ""): "Patient/n",
        ("Patient/local", ""): "Patient/l",
        (BASE + "Patient/9", ""): "Patient/9",
        (BASE + "Patient/9/_history/2", ""): "Patient/9/_history/2",
        ("Patient?identifier=1", ""): "Patient/c",
        (BASE + "Patient?identifier=1", ""): "Patient/c",
        ("Patient?identifier=2", ""): "Patient?identifier=2",
        ("", ""): "",
    }
    assert {key: links.resolve(*key) for key in table} == table


def test_resources_inside_a_stored_bundle_are_left_alone() -> None:
    inner = {
        "resourceType": "Bundle",
        "type": "document",
        "entry": [{"fullUrl": URNS[0], "resource": {"resourceType": "Observation", "subject": {"reference": URNS[0]}}}],
    }
    assert rewrite(inner, LINKS, SPEC) == inner
    assert list(references(inner)) == []


def test_roots_literals_and_conditions_are_told_apart() -> None:
    assert root_of("http://lab/x/Patient/1") == "http://lab/x/"
    assert root_of("http://lab/x/Patient/1/_history/2") == "http://lab/x/"
    assert root_of(URNS[0]) == ""
    assert literal("Patient/1", BASE, SPEC.types) == ("Patient", "1")
    assert literal(BASE + "Patient/1/_history/1#x", BASE, SPEC.types) == ("Patient", "1")
    for text in ("#a", "http://other/Patient/1", "Nonsense/1", URNS[0], "Patient?identifier=1", "Patient/", "Patient/a b"):
        assert literal(text, BASE, SPEC.types) is None, text
    res = {
        "resourceType": "Observation",
        "subject": {"reference": BASE + "Patient?a=1"},
        "focus": [{"reference": "Nonsense?a=1"}, {"reference": "Group?b=2"}],
    }
    assert conditional(references(res), BASE, SPEC.types) == {"Patient?a=1", "Group?b=2"}
