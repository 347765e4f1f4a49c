"""$validate: every issue at once, modes, profiles, bare resource and Parameters, references resolved as far as the caller sees."""

from dataclasses import replace
from typing import Any

import pytest

from conformance.codec import encode
from conformance.package import Definition, Package
from conformance.spec import Spec, load_spec
from fhir_server.context import Right
from tests.server.rest.calls import Exchange

pytestmark = pytest.mark.asyncio(loop_scope="module")
CORE = "http://hl7.org/fhir/StructureDefinition/"
URL = "http://example.org/fhir/StructureDefinition/"
SLICED = {
    "resourceType": "StructureDefinition",
    "url": URL + "panel",
    "name": "Panel",
    "status": "active",
    "kind": "resource",
    "abstract": False,
    "type": "Observation",
    "baseDefinition": CORE + "Observation",
    "derivation": "constraint",
    "differential": {
        "element": [
            {
                "id": "Observation.hasMember",
                "path": "Observation.hasMember",
                "slicing": {"discriminator": [{"type": "profile", "path": "resolve()"}], "rules": "open"},
            },
            {
                "id": "Observation.hasMember:final",
                "path": "Observation.hasMember",
                "sliceName": "final",
                "min": 1,
                "max": "1",
                "type": [{"code": "Reference", "targetProfile": [URL + "final"]}],
            },
        ]
    },
}
FINAL = {**SLICED, "url": URL + "final", "name": "Final"}
FINAL["differential"] = {"element": [{"id": "Observation.status", "path": "Observation.status", "fixedCode": "final"}]}
GUIDE = Package(
    "p", "1", "p", "", {}, {str(each["url"]): (Definition("StructureDefinition", str(each["url"]), "", encode(each)),) for each in (SLICED, FINAL)}
)
ALL = frozenset("cruds")


def observation(status: str = "final", **more: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "status": status, "code": {"text": "x"}, **more}


def with_guide(rest: Exchange) -> Exchange:
    return Exchange(replace(rest.ctx, spec=Spec(load_spec().tables, (GUIDE,))))


async def told(rest: Exchange, url: str, res: Any, method: str = "POST") -> list[tuple[str, str, str]]:
    reply = await rest(method, url, res)
    assert reply.status == 200, reply.res
    assert reply.res is not None
    issues = [(each["severity"], each["code"], *each.get("expression", [""])) for each in reply.res["issue"]]
    return [each for each in issues if each[0] in ("error", "fatal") or each[1] == "incomplete"]


def parameters(res: Any = None, **named: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [{"name": name, f"value{'Uri' if name == 'profile' else 'Code'}": value} for name, value in named.items()]
    return {"resourceType": "Parameters", "parameter": rows + ([{"name": "resource", "resource": res}] if res is not None else [])}


async def test_all_issues_at_once_with_exact_places(rest: Exchange) -> None:
    bad = {
        "resourceType": "Patient",
        "gender": "none",
        "birthDate": "2023-02-29",
        "name": [{"given": ["A", ""]}],
        "contact": [{"gender": "male"}],
        "x": 1,
    }
    places = {each[2] for each in await told(rest, "Patient/$validate", bad)}
    assert places == {"Patient.gender", "Patient.birthDate", "Patient.name[0].given[1]", "Patient.contact[0]", "Patient.x"}
    assert await told(rest, "Patient/$validate", parameters(bad)) == await told(rest, "Patient/$validate", bad)
    assert not (await rest("GET", "Patient?_summary=count")).res["total"]  # type: ignore[index]


async def test_the_type_of_the_url_and_the_shape_of_parameters(rest: Exchange) -> None:
    assert (await rest("POST", "Patient/$validate", observation())).status == 400
    assert (await rest("POST", "Patient/$validate", parameters())).status == 400
    assert (await rest("POST", "Patient/$validate", parameters([]))).status == 400
    assert (await rest("POST", "Patient/$validate?mode=maybe", {"resourceType": "Patient"})).status == 400
    assert (await rest("POST", "Patient/$validate?mode=profile", {"resourceType": "Patient"})).status == 400


async def test_stored_ones_and_modes(rest: Exchange) -> None:
    assert (await rest("GET", "Patient/nobody/$validate")).status == 404
    await rest("PUT", "Patient/a", {"resourceType": "Patient", "id": "a"})
    assert await told(rest, "Patient/a/$validate", None, "GET") == []
    assert await told(rest, "Patient/a/$validate", parameters(mode="delete")) == []
    assert await told(rest, "Patient/$validate?mode=create", {"resourceType": "Patient"}) == []
    assert await told(rest, "Patient/$validate?mode=update", {"resourceType": "Patient"}) == [("error", "required", "Patient.id")]
    assert await told(rest, "Patient/a/$validate?mode=update", {"resourceType": "Patient", "id": "b"}) == [("error", "invalid", "Patient.id")]
    reader = rest.by(Right("Patient", frozenset("rs")))
    for mode in ("create", "update"):
        assert [each[1] for each in await told(reader, f"Patient/$validate?mode={mode}", {"resourceType": "Patient", "id": "a"})] == ["forbidden"]
    assert [each[1] for each in await told(reader, "Patient/a/$validate?mode=delete", None)] == ["forbidden"]


async def test_profiles(rest: Exchange) -> None:
    guided = with_guide(rest)
    assert await told(guided, f"Observation/$validate?profile={URL}final", observation()) == []
    for body in (parameters(observation("amended"), profile=URL + "final"), observation("amended", meta={"profile": [URL + "final"]})):
        assert [each[2] for each in await told(guided, "Observation/$validate", body)] == ["Observation.status"]
    assert [each[1] for each in await told(guided, f"Observation/$validate?profile={URL}unknown", observation())] == ["not-found"]


async def test_claims_inside_a_bundle(rest: Exchange) -> None:
    inner = observation("amended", meta={"profile": [URL + "final"]})
    bundle = {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [{"fullUrl": "urn:uuid:11111111-1111-4111-8111-111111111111", "resource": inner}],
    }
    assert await told(with_guide(rest), "Bundle/$validate", bundle) == [("error", "value", "Bundle.entry[0].resource.status")]


@pytest.mark.parametrize(("status", "issues"), [("final", []), ("amended", [("error", "required", "Observation.hasMember")])])
async def test_stored_targets_are_looked_through(rest: Exchange, status: str, issues: list[tuple[str, str, str]]) -> None:
    guided = with_guide(rest)
    await guided("PUT", "Observation/m", observation(status) | {"id": "m"})
    panel = observation(hasMember=[{"reference": "Observation/m"}])
    url = f"Observation/$validate?profile={URL}panel"
    assert await told(guided, url, panel) == issues
    hidden = Exchange(replace(guided.ctx, grant=replace(guided.ctx.grant, rights=(Right("Patient", ALL),))))
    assert [each[1] for each in await told(hidden, url, panel)] == ["incomplete"]
    assert [each[1] for each in await told(guided, url, observation(hasMember=[{"reference": "Observation/nowhere"}]))] == ["incomplete"]


async def test_targets_in_the_bundle_and_contained_ones(rest: Exchange) -> None:
    guided = with_guide(rest)
    held = observation(contained=[observation("amended") | {"id": "m"}], hasMember=[{"reference": "#m"}])
    assert await told(guided, f"Observation/$validate?profile={URL}panel", held) == [("error", "required", "Observation.hasMember")]
    member, panel = "urn:uuid:11111111-1111-4111-8111-111111111111", "urn:uuid:22222222-2222-4222-8222-222222222222"
    for status, count in (("final", 0), ("amended", 1)):
        entries = [{"fullUrl": member, "resource": observation(status)}]
        entries += [{"fullUrl": panel, "resource": observation(hasMember=[{"reference": member}], meta={"profile": [URL + "panel"]})}]
        found = await told(guided, "Bundle/$validate", {"resourceType": "Bundle", "type": "collection", "entry": entries})
        assert len(found) == count, found
