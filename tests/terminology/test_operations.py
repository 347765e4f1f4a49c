"""The operations by their parameters: what each means, and how wrong ones are refused."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from terminology import valueset
from terminology.load import load
from terminology.operations import call
from terminology.service import Terms, open_terms
from tests.terminology import tinysnomed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SCT = "http://snomed.info/sct"
URL, OTHER = "http://example.org/cs", "http://example.org/other"
CONCEPTS = [
    {"code": "a", "display": "Alpha", "property": [{"code": "size", "valueInteger": 3}, {"code": "kind", "valueCode": "x"}]},
    {"code": "b", "display": "Beta", "property": [{"code": "size", "valueInteger": 3}, {"code": "kind", "valueCode": "y"}]},
    {
        "code": "c",
        "display": "Gamma",
        "property": [{"code": "size", "valueInteger": 4}, {"code": "of", "valueCoding": {"system": OTHER, "code": "z"}}],
    },
]
HEAD = {"resourceType": "CodeSystem", "status": "active", "content": "complete"}
SYSTEM = HEAD | {"url": URL, "concept": CONCEPTS, "property": [{"code": each, "type": "code"} for each in ("size", "kind", "of")]}
MAP = {
    "resourceType": "ConceptMap",
    "url": "http://example.org/map",
    "version": "1",
    "status": "active",
    "group": [
        {
            "source": URL,
            "sourceVersion": "1",
            "target": OTHER,
            "element": [
                {"code": "a", "target": [{"code": "z", "equivalence": "wider", "comment": "roughly"}]},
                {"code": "b", "target": [{"equivalence": "unmatched"}]},
                {
                    "code": "c",
                    "target": [
                        {"code": "z1", "equivalence": "equal", "dependsOn": [{"property": "http://x.org/sex", "value": "m"}]},
                        {"code": "z2", "equivalence": "equal", "product": [{"property": "http://x.org/p", "system": OTHER, "value": "q"}]},
                    ],
                },
            ],
            "unmapped": {"mode": "other-map", "url": "http://example.org/second"},
        }
    ],
}
SECOND = {
    "resourceType": "ConceptMap",
    "url": "http://example.org/second",
    "status": "active",
    "group": [{"source": URL, "target": OTHER, "element": [], "unmapped": {"mode": "other-map", "url": "http://example.org/third"}}],
}
THIRD = {
    "resourceType": "ConceptMap",
    "url": "http://example.org/third",
    "status": "active",
    "group": [
        {
            "source": URL,
            "target": OTHER,
            "element": [{"code": "d", "target": [{"code": "z9", "equivalence": "equal"}]}],
            "unmapped": {"mode": "other-map", "url": "http://example.org/second"},
        }
    ],
}


@pytest.fixture(scope="module")
def terms() -> Terms:
    return open_terms().with_resources([SYSTEM, MAP, SECOND, THIRD])


def ask(terms: Terms, operation: str, *rows: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return call(terms, operation, {"resourceType": "Parameters", "parameter": list(rows)}, now=NOW)


def row(name: str, value: Any, kind: str = "valueString") -> dict[str, Any]:
    return {"name": name, kind: value}


def prop(code: str, kind: str, value: Any, **more: Any) -> dict[str, Any]:
    extra = [row(name, each) for name, each in more.items()]
    return {"name": "property", "part": [row("code", code, "valueCode"), row("value", value, kind), *extra]}


def found(res: dict[str, Any]) -> dict[str, list[str]]:
    """code -> the properties that did not match."""
    rows = [{each["name"]: each for each in match["part"]} | {"all": match["part"]} for match in res.get("parameter", ())]
    return {one["code"]["valueCoding"]["code"]: [part["part"][0]["valueCode"] for part in one["all"] if part["name"] == "unmatched"] for one in rows}


def test_find_matches_whole_and_in_part(terms: Terms) -> None:
    base = row("system", URL)
    status, res = ask(terms, "CodeSystem/$find-matches", base, prop("size", "valueInteger", 3))
    assert (status, found(res)) == (200, {"a": [], "b": []})
    _, res = ask(terms, "CodeSystem/$find-matches", base, prop("size", "valueInteger", 3), prop("kind", "valueCode", "y"))
    assert found(res) == {"b": []}
    _, res = ask(terms, "CodeSystem/$find-matches", base, prop("size", "valueInteger", 4), prop("kind", "valueCode", "y"))
    assert found(res) == {"b": ["size"], "c": ["kind"]}
    assert [part["name"] for part in res["parameter"][0]["part"]] == ["code", "unmatched", "comment"]
    _, res = ask(
        terms, "CodeSystem/$find-matches", base, row("exact", True, "valueBoolean"), prop("size", "valueInteger", 4), prop("kind", "valueCode", "y")
    )
    assert [part["name"] for part in res["parameter"][0]["part"]] == ["code", "unmatched"]
    _, res = ask(terms, "CodeSystem/$find-matches", base, prop("of", "valueCoding", {"system": OTHER, "code": "z"}))
    assert found(res) == {"c": []}
    _, res = ask(terms, "CodeSystem/$find-matches", base, prop("size", "valueInteger", 99))
    assert res["parameter"] == []
    for rows in (
        [base],
        [base, {"name": "property", "part": [row("code", "size", "valueCode")]}],
        [base, prop("size", "valueInteger", 3, op="bigger")],
    ):
        assert ask(terms, "CodeSystem/$find-matches", *rows)[0] == 400
    sub = prop("size", "valueInteger", 3)
    sub["part"].append({"name": "subproperty", "part": [row("code", "x")]})
    status, res = ask(terms, "CodeSystem/$find-matches", base, sub)
    assert (status, res["issue"][0]["code"]) == (400, "not-supported")


def matches(res: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [{part["name"]: part for part in each["part"]} for each in res["parameter"] if each["name"] == "match"]
    return [(one["equivalence"]["valueCode"], one.get("concept", {}).get("valueCoding", {}).get("code", "")) for one in rows]


def test_translate(terms: Terms) -> None:
    url, code = row("url", MAP["url"]), row("system", URL)
    _, res = ask(terms, "ConceptMap/$translate", url, code, row("code", "a"))
    assert (res["parameter"][0], matches(res)) == ({"name": "result", "valueBoolean": True}, [("wider", "z")])
    _, res = ask(terms, "ConceptMap/$translate", url, code, row("code", "b"))
    assert (res["parameter"][0], matches(res)) == ({"name": "result", "valueBoolean": False}, [("unmatched", "")])
    _, res = ask(terms, "ConceptMap/$translate", url, code, row("code", "c"))
    assert matches(res) == [("equal", "z2")]
    given = {"name": "dependency", "part": [row("element", "http://x.org/sex"), row("concept", {"coding": [{"code": "m"}]}, "valueCodeableConcept")]}
    _, res = ask(terms, "ConceptMap/$translate", url, code, row("code", "c"), given)
    assert matches(res) == [("equal", "z1"), ("equal", "z2")]
    _, res = ask(terms, "ConceptMap/$translate", url, row("system", OTHER), row("code", "z"), row("reverse", True, "valueBoolean"))
    assert matches(res) == [("narrower", "a")]
    _, res = ask(terms, "ConceptMap/$translate", url, code, row("code", "a"), row("targetsystem", "http://example.org/none"))
    assert matches(res) == []
    both = {"coding": [{"system": URL, "code": "a"}, {"system": URL, "code": "c"}]}
    _, res = ask(terms, "ConceptMap/$translate", url, row("codeableConcept", both, "valueCodeableConcept"))
    assert matches(res) == [("wider", "z"), ("equal", "z2")]


def test_translate_goes_from_map_to_map_and_not_in_a_circle(terms: Terms) -> None:
    url, code = row("url", MAP["url"]), row("system", URL)
    _, res = ask(terms, "ConceptMap/$translate", url, code, row("code", "d"))
    assert matches(res) == [("equal", "z9")]
    _, res = ask(terms, "ConceptMap/$translate", url, code, row("code", "e"))
    assert (res["parameter"][0], matches(res)) == ({"name": "result", "valueBoolean": False}, [])


def test_translate_by_version(terms: Terms) -> None:
    url, code = row("url", MAP["url"]), [row("system", URL), row("code", "a")]
    assert matches(ask(terms, "ConceptMap/$translate", url, *code, row("version", "1"))[1]) == [("wider", "z")]
    assert matches(ask(terms, "ConceptMap/$translate", url, *code, row("version", "2"))[1]) == []
    assert ask(terms, "ConceptMap/$translate", url, *code, row("conceptMapVersion", "1"))[0] == 200
    status, res = ask(terms, "ConceptMap/$translate", url, *code, row("conceptMapVersion", "7"))
    assert (status, res["issue"][0]["code"]) == (404, "not-found")


@pytest.mark.parametrize(
    ("operation", "rows"),
    [
        ("CodeSystem/$lookup", [row("system", URL), row("code", 1, "valueInteger")]),
        ("CodeSystem/$lookup", [row("system", {"x": 1}, "valueCoding"), row("code", "a")]),
        ("CodeSystem/$lookup", [row("coding", "a")]),
        ("CodeSystem/$lookup", [row("coding", None, "valueCoding")]),
        ("CodeSystem/$lookup", [row("system", URL), row("code", "a"), row("property", True, "valueBoolean")]),
        ("CodeSystem/$lookup", [row("system", URL), row("code", "a"), row("displayLanguage", "???")]),
        ("CodeSystem/$validate-code", [row("url", URL), row("code", "a"), row("abstract", "maybe")]),
        ("CodeSystem/$validate-code", [row("codeSystem", {"resourceType": "ValueSet"}, "resource"), row("code", "a")]),
        ("CodeSystem/$validate-code", [row("url", URL)]),
        ("CodeSystem/$validate-code", [row("url", "http://unitsofmeasure.org")]),
        ("CodeSystem/$subsumes", [row("system", URL), row("codeA", "a")]),
        ("CodeSystem/$subsumes", [row("codingA", "a"), row("codingB", "b")]),
        ("ValueSet/$expand", []),
        ("ValueSet/$expand", [row("valueSet", {"resourceType": "Patient"}, "resource")]),
        ("ValueSet/$expand", [row("url", f"{URL}?fhir_vs"), row("count", "ten")]),
        ("ValueSet/$expand", [row("url", f"{URL}?fhir_vs"), row("offset", -1, "valueInteger")]),
        ("ValueSet/$expand", [row("url", f"{URL}?fhir_vs"), row("filter", 1, "valueInteger")]),
        ("ValueSet/$validate-code", [row("url", f"{URL}?fhir_vs")]),
        ("ValueSet/$batch-validate-code", [row("validation", "x")]),
        ("ConceptMap/$translate", [row("url", MAP["url"])]),
        ("ConceptMap/$translate", [row("conceptMap", SYSTEM, "resource"), row("code", "a")]),
    ],
)
def test_a_parameter_that_is_missing_or_of_a_wrong_type(terms: Terms, operation: str, rows: list[dict[str, Any]]) -> None:
    status, res = ask(terms, operation, *rows)
    assert (status, res["resourceType"]) == (400, "OperationOutcome"), res
    assert res["issue"][0]["code"] in ("invalid", "required", "processing")


def test_codings_of_another_system_or_version(terms: Terms) -> None:
    foreign = {"system": "http://hl7.org/fhir/administrative-gender", "code": "male"}
    status, res = ask(terms, "CodeSystem/$validate-code", row("url", URL), row("coding", foreign, "valueCoding"))
    assert (status, {"name": "result", "valueBoolean": False} in res["parameter"]) == (200, True)
    both = {"coding": [foreign, {"system": URL, "code": "a"}]}
    status, res = ask(terms, "CodeSystem/$validate-code", row("url", URL), row("codeableConcept", both, "valueCodeableConcept"))
    assert {"name": "result", "valueBoolean": True} in res["parameter"]
    status, _ = ask(
        terms,
        "CodeSystem/$subsumes",
        row("codingA", {"system": URL, "code": "a", "version": "1"}, "valueCoding"),
        row("codingB", {"system": URL, "code": "a", "version": "2"}, "valueCoding"),
    )
    assert status == 400
    units = {"coding": [{"system": "http://unitsofmeasure.org", "code": "mg"}]}
    _, res = ask(terms, "CodeSystem/$validate-code", row("url", "http://unitsofmeasure.org"), row("codeableConcept", units, "valueCodeableConcept"))
    assert {"name": "result", "valueBoolean": True} in res["parameter"]


@pytest.fixture(scope="module")
def snomed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Terms, tinysnomed.Tiny]:
    folder = tmp_path_factory.mktemp("operations")
    made = tinysnomed.write(folder / "release")
    load("snomed", [folder / "release"], folder / "data")
    return open_terms(folder / "data"), made


def test_an_edition_means_its_newest_version(snomed: tuple[Terms, tinysnomed.Tiny]) -> None:
    terms, made = snomed
    edition = f"{SCT}/900000000000207008"
    for url in (f"{edition}?fhir_vs=isa/{made.active[15]}", f"{edition}/version/20240101?fhir_vs=isa/{made.active[15]}"):
        status, res = ask(terms, "ValueSet/$expand", row("url", url))
        assert (status, res["expansion"]["total"] > 0) == (200, True)
    for version, expected in ((edition, 200), (f"{edition}/version/20240101", 200), (f"{SCT}/11000279109", 404), (f"{SCT}/9", 404)):
        assert ask(terms, "CodeSystem/$lookup", row("system", SCT), row("version", version), row("code", made.active[15]))[0] == expected


@pytest.mark.parametrize("query", ["isa/1", "refset/1", "isa/", "bogus", "ecl/"])
def test_an_implicit_value_set_of_nothing_is_unknown(snomed: tuple[Terms, tinysnomed.Tiny], query: str) -> None:
    status, res = ask(snomed[0], "ValueSet/$expand", row("url", f"{SCT}?fhir_vs={query}"))
    assert (status, res["issue"][0]["code"]) == (404, "not-found")


def test_expressions_are_read_and_their_concepts_looked_at(snomed: tuple[Terms, tinysnomed.Tiny]) -> None:
    terms, made = snomed
    focus, attribute, value = made.active[15], made.attributes[0], made.active[20]
    for code, right, told in (
        (f"{focus}:{attribute}={value}", True, ""),
        (f"{focus} | {made.terms[focus]} | : {{ {attribute} = {value} }}", True, ""),
        (f"{focus}:{attribute}={made.inactive[0]}", True, "needs a look"),
        (f"{focus}:{attribute}=", False, "not an expression"),
        (f"{focus}:{attribute}=138875004", False, "is not one of the CodeSystem"),
    ):
        status, res = ask(terms, "CodeSystem/$validate-code", row("url", SCT), row("code", code))
        assert (status, {"name": "result", "valueBoolean": right} in res["parameter"]) == (200, True), res
        message = next((each["valueString"] for each in res["parameter"] if each["name"] == "message"), "")
        assert told in message


def test_sufficiently_defined_is_a_property(snomed: tuple[Terms, tinysnomed.Tiny]) -> None:
    terms, made = snomed
    for code in (sorted(made.defined)[0], made.active[0]):
        _, res = ask(terms, "CodeSystem/$lookup", row("system", SCT), row("code", code), row("property", "sufficientlyDefined"))
        shown = [each["part"] for each in res["parameter"] if each["name"] == "property"]
        assert shown == [[row("code", "sufficientlyDefined", "valueCode"), row("value", code in made.defined, "valueBoolean")]]
    rule = {"system": SCT, "filter": [{"property": "sufficientlyDefined", "op": "=", "value": "true"}]}
    value_set = {"resourceType": "ValueSet", "status": "active", "compose": {"include": [rule]}}
    _, res = ask(terms, "ValueSet/$expand", row("valueSet", value_set, "resource"), row("excludeNested", True, "valueBoolean"))
    assert {each["code"] for each in res["expansion"]["contains"]} == made.defined


def test_selectable_concepts_alone(terms: Terms) -> None:
    def concept(code: str, *, grouping: bool) -> dict[str, Any]:
        return {"code": code, "property": [{"code": "notSelectable", "valueBoolean": grouping}]}

    system = HEAD | {"url": "http://example.org/groups", "concept": [concept("g", grouping=True), concept("x", grouping=False)]}
    value_set = {"resourceType": "ValueSet", "status": "active", "compose": {"include": [{"system": system["url"]}]}}
    given = [row("tx-resource", system, "resource"), row("valueSet", value_set, "resource")]
    _, res = ask(terms, "ValueSet/$expand", *given, row("excludeNotForUI", True, "valueBoolean"))
    assert [each["code"] for each in res["expansion"]["contains"]] == ["x"]
    _, res = ask(terms, "ValueSet/$expand", *given)
    assert [each["code"] for each in res["expansion"]["contains"]] == ["g", "x"]


def grown(count: int) -> list[dict[str, Any]]:
    """The concepts of a system in which everything points at everything before it, or so it says."""
    rows = [{"code": f"c{n}", "property": [{"code": "parent", "valueCode": f"c{n - 1}"}]} for n in range(1, count)]
    children = [{"code": "child", "valueCode": f"c{n}"} for n in range(1, count)]
    return [{"code": "c0", "property": children * 2}, *rows]


@pytest.mark.parametrize("name", ["expansion", "includes", "codings", "translate", "validations", "hierarchy", "properties"])
def test_huge_questions_end_soon(terms: Terms, snomed: tuple[Terms, tinysnomed.Tiny], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {"coding": [{"system": URL, "code": "a"}] * 5000}
    each = row(
        "validation", {"resourceType": "Parameters", "parameter": [row("url", f"{URL}?fhir_vs"), row("system", URL), row("code", "a")]}, "resource"
    )
    listed = {"resourceType": "ValueSet", "status": "active", "expansion": {"contains": [{"system": URL, "code": "a"}] * 50_000}}
    include = {"system": SCT, "filter": [{"property": "code", "op": "regex", "value": "1.*"}]}
    wide = {"resourceType": "ValueSet", "status": "active", "compose": {"include": [include] * 100}}
    system = HEAD | {"url": "http://example.org/tall", "concept": grown(3000), "property": [{"code": "parent", "type": "code"}]}
    monkeypatch.setattr(valueset, "MOST_WORK", 100_000)
    questions: dict[str, tuple[Terms, str, list[dict[str, Any]], int]] = {
        "expansion": (terms, "ValueSet/$expand", [row("valueSet", listed, "resource")], 200),
        "includes": (snomed[0], "ValueSet/$expand", [row("valueSet", wide, "resource")], 422),
        "codings": (terms, "CodeSystem/$validate-code", [row("url", URL), row("codeableConcept", many, "valueCodeableConcept")], 422),
        "translate": (terms, "ConceptMap/$translate", [row("codeableConcept", many, "valueCodeableConcept")], 422),
        "validations": (terms, "ValueSet/$batch-validate-code", [each] * 5001, 422),
        "hierarchy": (terms, "CodeSystem/$lookup", [row("tx-resource", system, "resource"), row("system", system["url"]), row("code", "c7")], 200),
        "properties": (terms, "CodeSystem/$find-matches", [row("system", URL), *[prop("size", "valueInteger", 3)] * 101], 422),
    }
    those, operation, rows, expected = questions[name]
    started = time.process_time()
    status, res = ask(those, operation, *rows)
    assert status == expected, res
    assert time.process_time() - started < 3


def test_the_text_filter_finds_codes_and_signs(terms: Terms, snomed: tuple[Terms, tinysnomed.Tiny]) -> None:
    def found(those: Terms, url: str, text: str) -> list[str]:
        status, res = ask(those, "ValueSet/$expand", row("url", url), row("filter", text), row("excludeNested", True, "valueBoolean"))
        assert status == 200
        return [each["code"] for each in res["expansion"].get("contains", ())]

    code = snomed[1].active[15]
    assert found(snomed[0], f"{SCT}?fhir_vs", code) == [code]
    assert found(snomed[0], f"{SCT}?fhir_vs", "%") == []
    assert found(terms, f"{URL}?fhir_vs", "b") == ["b"]
    assert found(terms, f"{URL}?fhir_vs", "%") == []
    signs = HEAD | {"url": "http://example.org/signs", "concept": [{"code": "%", "display": "per cent"}, {"code": "<"}]}
    assert found(terms.with_resources([signs]), "http://example.org/signs?fhir_vs", "%") == ["%"]
