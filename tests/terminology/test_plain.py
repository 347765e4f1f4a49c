"""The answers that are written as JSON at once equal those of the general path, byte for byte: for every release format and for whatever an index may hold."""

import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance import codec, xml
from conformance.spec import load_spec
from fhir_server.context import Reply
from terminology.concepts import Meta
from terminology.drafting import Columns, write_index
from terminology.index import ABSTRACT, INACTIVE, IndexedSystem, open_index
from terminology.library import Library
from terminology.load import load
from terminology.operations import call
from terminology.parameters import from_query, to_pairs
from terminology.plain import PLAIN
from terminology.policy import open_policy
from terminology.service import Terms, open_terms
from tests.server.rest.calls import exchange_on
from tests.terminology import tinysnomed
from tests.terminology.test_load import write_icd, write_loinc, write_rxnorm

NOW = datetime(2026, 1, 1, tzinfo=UTC)
URL = "http://example.org/large"
Pairs = list[tuple[str, str]]


def same(terms: Terms, operation: str, pairs: Pairs, accept: str = "") -> bool:
    """True if the question was answered plainly; the answer is that of the general path then."""
    found = PLAIN[operation](terms.library, pairs, accept)
    if found is None:
        return False
    status, res = call(terms, operation, from_query(pairs), now=NOW, accept=accept)
    assert status == 200, res
    assert codec.encode(found) == codec.encode(res), pairs
    return True


def every(terms: Terms, url: str, languages: tuple[str, ...] = ("", "de", "en-US, *;q=0")) -> int:
    """Asks everything of every code of a system; how many questions were answered plainly."""
    system = terms.library.system(url)
    assert isinstance(system, IndexedSystem)
    codes = [system.code(n) for n in range(system.size)]
    plainly = 0
    for code, other in zip(codes, codes[1:] + codes[:1], strict=True):
        for language in languages:
            plainly += same(terms, "CodeSystem/$lookup", [("system", url), ("code", code)], language)
            plainly += same(terms, "CodeSystem/$lookup", [("code", code), ("system", url), ("displayLanguage", language)])
        plainly += same(terms, "CodeSystem/$lookup", [("code", code), ("system", url), ("version", system.meta.version)])
        plainly += same(terms, "CodeSystem/$validate-code", [("url", url), ("code", code)])
        plainly += same(terms, "CodeSystem/$validate-code", [("system", url), ("code", code), ("version", system.meta.version)])
        for value_set in (f"{url}?fhir_vs", f"{url}?fhir_vs=isa/{other}"):
            plainly += same(terms, "ValueSet/$validate-code", [("url", value_set), ("system", url), ("code", code)])
        for display in ("wrong", *(one.value.upper() for one in system.names(system.find(code) or 0))):
            plainly += same(terms, "CodeSystem/$validate-code", [("url", url), ("code", code), ("display", display)])
            plainly += same(terms, "ValueSet/$validate-code", [("url", f"{url}?fhir_vs"), ("system", url), ("code", code), ("display", display)])
        plainly += same(terms, "CodeSystem/$subsumes", [("system", url), ("codeA", code), ("codeB", other)])
        plainly += same(terms, "CodeSystem/$subsumes", [("system", url), ("codeA", other), ("codeB", code)])
        for near in [*system.ancestors(system.find(code) or 0).tolist(), *system.parents(system.find(code) or 0).tolist()]:
            plainly += same(
                terms, "CodeSystem/$subsumes", [("system", f"{url}|{system.meta.version}"), ("codeA", system.code(near)), ("codeB", code)]
            )
    return plainly


@pytest.mark.parametrize(
    ("kind", "url", "write"),
    [
        ("snomed", "http://snomed.info/sct", lambda folder: tinysnomed.write(folder) and folder),
        ("loinc", "http://loinc.org", write_loinc),
        ("icd10cm", "http://hl7.org/fhir/sid/icd-10-cm", write_icd),
        ("rxnorm", "http://www.nlm.nih.gov/research/umls/rxnorm", write_rxnorm),
    ],
)
def test_every_code_of_every_format(tmp_path: Path, kind: str, url: str, write: Any) -> None:
    load(kind, [write(tmp_path / "release")], tmp_path / "data")
    terms = open_terms(tmp_path / "data")
    system = terms.library.system(url)
    assert system is not None
    assert every(terms, url) > 5 * system.size


TEXT = st.text(st.sampled_from('aZ0 "\\\n\t\x01\x1f\x7f/<é水😀'), max_size=12)
CODE = st.text(st.sampled_from('abcXYZ019."\\é-'), min_size=1, max_size=6)
KINDS = {"valueString": TEXT, "valueCode": CODE, "valueBoolean": st.sampled_from(["true", "false"]), "valueInteger": st.integers(-9, 99).map(str)}


@st.composite
def indexes(draw: st.DrawFn) -> tuple[Meta, Columns]:
    columns = Columns()
    codes = draw(st.lists(CODE, min_size=1, max_size=5, unique=True))
    uses = [None, {"code": "definition"}, {"system": "http://x.org/y", "code": draw(CODE), "display": draw(TEXT)}]
    for code in codes:
        columns.concepts[code] = draw(st.sampled_from([0, INACTIVE, ABSTRACT]))
        for _ in range(draw(st.integers(0, 3))):
            columns.term(code, draw(TEXT), columns.language(draw(st.sampled_from(["", "en", "de"]))), columns.use(draw(st.sampled_from(uses))))
        for _ in range(draw(st.integers(0, 3))):
            kind = draw(st.sampled_from(sorted(KINDS)))
            columns.values.append((code, columns.prop(draw(st.sampled_from(["p", 'q"', "parent", "inactive", "status"])), kind), draw(KINDS[kind])))
        for _ in range(draw(st.integers(0, 2))):
            target = draw(st.sampled_from([*codes, "#1.50", '"a \\ b"']))
            columns.relations.append((code, draw(st.sampled_from(codes)), target, draw(st.integers(0, 2))))
    for _ in range(draw(st.integers(0, 4))):
        above, below = draw(st.sampled_from(codes)), draw(st.sampled_from(codes))
        if above < below:
            columns.edges.append((below, above))
    meta = Meta(URL, draw(st.sampled_from(["", "1.0"])), draw(TEXT), language=draw(st.sampled_from(["", "en"])), case_sensitive=draw(st.booleans()))
    return meta, columns


@settings(max_examples=60, deadline=None)
@given(indexes())
def test_whatever_an_index_holds(drawn: tuple[Meta, Columns]) -> None:
    meta, columns = drawn
    with tempfile.TemporaryDirectory() as name:
        system = open_index(write_index(Path(name) / "x", meta, columns))
        terms = Terms([Library(systems={URL: (system,)})], open_policy())
        assert every(terms, URL) >= system.size


@pytest.fixture(scope="module")
def snomed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Terms, tinysnomed.Tiny]:
    folder = tmp_path_factory.mktemp("plain")
    made = tinysnomed.write(folder / "release")
    load("snomed", [folder / "release"], folder / "data")
    return open_terms(folder / "data"), made


def test_what_is_not_plain_is_left_to_the_general_path(snomed: tuple[Terms, tinysnomed.Tiny]) -> None:
    terms, made = snomed
    url, code = "http://snomed.info/sct", made.active[12]
    lookup, validate = PLAIN["CodeSystem/$lookup"], PLAIN["CodeSystem/$validate-code"]
    for pairs in (
        [("system", url), ("code", "1")],
        [("system", url)],
        [("system", "urn:x"), ("code", code)],
        [("system", "http://unitsofmeasure.org"), ("code", "mg")],
        [("system", url), ("code", code), ("property", "parent")],
        [("system", url), ("code", code), ("code", made.active[13])],
        [("system", url), ("code", code), ("version", "none")],
        [("system", url), ("code", code), ("displayLanguage", "???")],
    ):
        assert lookup(terms.library, pairs, "") is None, pairs
    assert validate(terms.library, [("url", url), ("code", code)], "de") is None
    assert same(terms, "CodeSystem/$validate-code", [("url", url), ("code", made.inactive[0])])
    assert validate(terms.library, [("url", url), ("code", code), ("display", "x")], "") is None
    for rows in ([{"name": "code", "valueCode": code, "id": "1"}], [{"name": "code", "valueInteger": 1}], [{"name": 1, "valueCode": "a"}], ["x"], 1):
        assert to_pairs({"resourceType": "Parameters", "parameter": rows}) in (None, [])
    assert to_pairs({"resourceType": "ValueSet"}) is None


async def test_a_written_answer_in_every_form(snomed: tuple[Terms, tinysnomed.Tiny], store: Any) -> None:
    terms, made = snomed
    exchange = exchange_on(store, terms)
    code = made.active[12]
    path = f"CodeSystem/$lookup?system=http://snomed.info/sct&code={code}"
    first, second, third = [await exchange("GET", path) for _ in range(3)]
    bundle = await exchange("POST", "", {"resourceType": "Bundle", "type": "batch", "entry": [{"request": {"method": "GET", "url": path}}]})
    coding = {"resourceType": "Parameters", "parameter": [{"name": "coding", "valueCoding": {"system": "http://snomed.info/sct", "code": code}}]}
    posted = await exchange("POST", "CodeSystem/$lookup", coding)
    spec = load_spec()
    _, plainly = call(terms, "CodeSystem/$lookup", from_query([("system", "http://snomed.info/sct"), ("code", code)]), now=NOW)
    for reply in (first, second, third, posted, Reply(200, bundle.res["entry"][0]["resource"])):
        assert reply.status == 200
        assert codec.encode(reply.res) == codec.encode(plainly)
        assert codec.encode_pretty(reply.res) == codec.encode_pretty(plainly)
        assert xml.to_xml(reply.res, spec) == xml.to_xml(plainly, spec)
    assert xml.to_xml(bundle.res, spec).count(b"<parameter>") == xml.to_xml(plainly, spec).count(b"<parameter>")


def test_a_kept_answer_is_dropped_with_the_terminology(snomed: tuple[Terms, tinysnomed.Tiny]) -> None:
    terms, _ = snomed
    terms = replace(terms, answers={}, asked=set())
    for _ in range(2):
        terms.remember("key", {"resourceType": "Parameters", "parameter": [{"name": "a", "valueString": "é"}]})
    assert codec.encode(terms.answers["key"]) == '{"resourceType":"Parameters","parameter":[{"name":"a","valueString":"é"}]}'.encode()
    for _ in range(2):
        terms.remember("large", {"resourceType": "Parameters", "parameter": [{"name": "a", "valueString": "x" * 70_000}]})
    assert list(terms.answers) == ["key"]
    terms.forget()
    assert terms.answers == {}
