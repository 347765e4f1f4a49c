"""Search expressions as closures. https://hl7.org/fhir/R4/searchparameter-definitions.html#SearchParameter.expression"""

from typing import Any

import pytest

from conformance import path
from conformance.fhirpath.compile import compile_tree
from conformance.fhirpath.lenient import lenient
from conformance.fhirpath.parser import parse
from conformance.path import Services, search_path, search_path_typed
from conformance.spec import load_spec
from tests.conformance.examples import examples

OBSERVATION = {
    "resourceType": "Observation",
    "contained": [{"resourceType": "Patient", "id": "p"}],
    "subject": {"reference": "#p"},
    "performer": [
        {"reference": "Practitioner/1"},
        {"reference": "http://other.org/fhir/Patient/2/_history/3"},
        {"reference": "urn:uuid:1", "type": "Patient"},
        {"display": "x"},
    ],
    "code": {"text": "a"},
    "effectiveDateTime": "2020-05",
    "component": [
        {"code": {"text": "b"}, "valueQuantity": {"value": 1}},
        {"code": {"text": "c"}, "valueString": "s"},
        {"code": {"text": "d"}, "_valueString": {"extension": [{"url": "x", "valueCode": "y"}]}},
    ],
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Observation.code.text", [("a", "string")]),
        ("Observation.effective", [("2020-05", "dateTime")]),
        ("Observation.component.value", [({"value": 1}, "Quantity"), ("s", "string")]),
        ("(Observation.component.value as Quantity)", [({"value": 1}, "Quantity")]),
        ("Observation.component.value.ofType(string)", [("s", "string")]),
        ("Observation.component.value as Quantity | Observation.value", [({"value": 1}, "Quantity")]),
        ("Observation.component[1].code.text", [("c", "string")]),
        ("Observation.component.where(code = 'c')", []),
        ("Observation.code.where(text = 'a').text", [("a", "string")]),
        ("Observation.subject.where(resolve() is Patient)", [({"reference": "#p"}, "Reference")]),
        ("Observation.subject.where(resolve() is Group)", []),
        (
            "Observation.performer.where(resolve() is Patient).reference",
            [("http://other.org/fhir/Patient/2/_history/3", "string"), ("urn:uuid:1", "string")],
        ),
        ("Observation.performer.where(resolve() is Practitioner)", [({"reference": "Practitioner/1"}, "Reference")]),
        ("Observation.effective.as(DateTime)", [("2020-05", "dateTime")]),
        ("Observation.effective.exists() and Observation.status != 'x'", []),
        ("Observation.effective.exists()", [(True, "boolean")]),
        ("DomainResource.contained", [(OBSERVATION["contained"][0], "Patient")]),  # type: ignore[index]
        ("Patient.name", []),
        ("Patient.name | Observation.code.text", [("a", "string")]),
    ],
)
def test_a_search_expression_gives_values_with_their_types(text: str, expected: list[Any]) -> None:
    assert search_path_typed(text)(OBSERVATION) == expected
    assert search_path(text)(OBSERVATION) == [value for value, _ in expected]


def test_a_component_expression_starts_at_its_element() -> None:
    element = OBSERVATION["component"][0]  # type: ignore[index]
    assert search_path_typed("value.as(Quantity) | value.as(Range)", context="Observation.component")(element, OBSERVATION) == [
        ({"value": 1}, "Quantity")
    ]
    assert search_path("%resource.code.text", context="Observation.component")(element, OBSERVATION) == ["a"]


def test_every_published_expression_compiles() -> None:
    spec = load_spec()
    count = 0
    for rtype in spec.types:
        for param in spec.params(rtype).values():
            count += bool(param.expression and search_path_typed(param.expression))
            for _, component in param.components:
                assert search_path_typed(component, context=rtype)
    assert count > 2000


def test_the_quick_form_agrees_with_the_complete_engine_on_the_examples() -> None:
    spec = load_spec()
    model = path.model_of(spec)
    compared = 0
    for res in examples(25):
        for param in spec.params(res["resourceType"]).values():
            if not param.expression or "resolve()" in param.expression:
                continue
            slow = path._slow_search(param.expression, compile_tree(lenient(parse(param.expression), model), model), model, "", True)
            quick = search_path_typed(param.expression)(res)
            expected = slow(res)
            assert [value for value in quick if value not in expected] == [], param
            assert [value for value in expected if value not in quick] == [], param
            compared += len(quick)
    assert compared > 1000


def test_resolve_is_agrees_with_resolving_every_reference() -> None:
    spec = load_spec()
    checked = 0
    for res in examples(25):
        for param in spec.params(res["resourceType"]).values():
            if "resolve()" not in param.expression or res.get("contained"):
                continue
            run = path.compile_items(
                param.expression, services=Services(resolve=lambda text: {"resourceType": text.split("/")[-2]} if "/" in text else None)
            )
            assert [item.value for item in run(res)] == search_path(param.expression)(res)
            checked += 1
    assert checked > 5


@pytest.mark.parametrize(
    "res",
    [
        {
            "resourceType": "Observation",
            "code": "x",
            "subject": 5,
            "component": {"code": []},
            "performer": [None, "x", {"reference": 5}],
            "contained": "x",
            "extension": ["x"],
        },
        {
            "resourceType": "Observation",
            "subject": {"reference": "#x"},
            "contained": ["x", {"id": 5}],
            "valueQuantity": [[1]],
            "effectivePeriod": True,
        },
    ],
)
def test_broken_resources_do_not_break_it(res: dict[str, Any]) -> None:
    for param in load_spec().params("Observation").values():
        if param.expression:
            assert isinstance(search_path_typed(param.expression)(res), list)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("Patient/1", True),
        ("Patient?identifier=a|b", True),
        ("https://x.org/a/Patient/1/_history/2", True),
        ("https://x.org/Patient/Group/1", False),
        ("Group/Patient", False),
        ("urn:uuid:1", False),
        ("#1", False),
    ],
)
def test_the_type_of_a_reference_is_told_from_its_text(reference: str, expected: bool) -> None:
    res = {"resourceType": "Observation", "subject": {"reference": reference}}
    assert bool(search_path("Observation.subject.where(resolve() is Patient)")(res)) is expected


def test_a_resource_on_which_an_expression_fails_has_no_values(caplog: pytest.LogCaptureFixture) -> None:
    res = {"resourceType": "Patient", "name": [{"family": "Chalmers"}, {"family": "Windsor"}]}
    assert search_path("Patient.name.single().family")(res) == []
    assert "could not be evaluated" in caplog.text
    assert "Chalmers" not in caplog.text


@pytest.mark.parametrize(
    "text",
    ["(" * 5000 + "id", "Patient" + ".name" * 190 + " | Patient" * 190, ("(" + "id | " * 150) * 50 + "id" + ")" * 50, "Patient.", "x" * 50_000],
)
def test_hostile_search_expressions_are_refused_or_compiled(text: str) -> None:
    try:
        told = str(search_path(text)({"resourceType": "Patient"}) and "")
    except path.PathProblem as problem:
        told = str(problem)
    assert len(told) < 200
