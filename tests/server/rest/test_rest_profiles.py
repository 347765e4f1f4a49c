"""Profiles on writes: what resources claim, what is set for a type, the level of a source; R4's breaches are 400, profiles' 422."""

from dataclasses import replace
from typing import Any

import pytest

from conformance.codec import encode
from conformance.package import Definition, Package
from conformance.spec import Spec, load_spec
from fhir_server.interactions.validity import check_settings, level_of, required_of
from fhir_server.settings import Settings
from tests.server.rest.calls import Exchange

pytestmark = pytest.mark.asyncio(loop_scope="module")
NAMED = "http://example.org/fhir/StructureDefinition/named"
BORN = "http://example.org/fhir/StructureDefinition/born"


def profile(url: str, element: str) -> Definition:
    core = "http://hl7.org/fhir/StructureDefinition/Patient"
    res = {
        "resourceType": "StructureDefinition",
        "url": url,
        "name": url.rsplit("/", 1)[-1],
        "status": "active",
        "kind": "resource",
        "abstract": False,
    }
    res |= {
        "type": "Patient",
        "baseDefinition": core,
        "derivation": "constraint",
        "differential": {"element": [{"path": f"Patient.{element}", "min": 1}]},
    }
    return Definition("StructureDefinition", url, "", encode(res))


GUIDE = Package("p", "1", "p", "", {}, {NAMED: (profile(NAMED, "name"),), BORN: (profile(BORN, "birthDate"),)})
SPEC = Spec(load_spec().tables, (GUIDE,))


def with_guide(rest: Exchange, **settings: Any) -> Exchange:
    return Exchange(replace(rest.with_settings(**settings).ctx, spec=SPEC, source="lab1"))


def claiming(*urls: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", **({"meta": {"profile": list(urls)}} if urls else {}), **more}


@pytest.mark.parametrize(
    ("settings", "res", "status"),
    [
        ({}, claiming(), 201),
        ({}, claiming(NAMED), 422),
        ({}, claiming(NAMED, name=[{"text": "x"}]), 201),
        ({}, claiming(NAMED, name="x"), 400),
        ({}, claiming("http://example.org/unknown"), 201),
        ({"profile_claims": "warn"}, claiming(NAMED), 201),
        ({"profile_claims": "off"}, claiming(NAMED), 201),
        ({"profile_claims": "off,Patient=enforce"}, claiming(NAMED), 422),
        ({"profile_claims": "enforce,Patient=warn"}, claiming(NAMED), 201),
        ({"profile_claims": "enforce,Observation=warn"}, claiming(NAMED), 422),
        ({"profiles": f"Patient=enforce:{NAMED}"}, claiming(), 422),
        ({"profiles": f"Patient=enforce:{NAMED}"}, claiming(name=[{"text": "x"}]), 201),
        ({"profiles": f"Patient=warn:{NAMED}"}, claiming(), 201),
        ({"profiles": f"Patient=off:{NAMED}"}, claiming(), 201),
        ({"profiles": f"Observation=enforce:{NAMED}"}, claiming(), 201),
        ({"profiles": f"Patient=warn:{NAMED}"}, claiming(NAMED), 422),
        ({"profiles": f"Patient=enforce:{NAMED}", "profile_claims": "off"}, claiming(NAMED), 422),
        ({"profiles": f"Patient=enforce:{NAMED},Patient=enforce:{BORN}"}, claiming(name=[{"text": "x"}]), 422),
        ({"profiles": "Patient=enforce:http://example.org/unknown"}, claiming(), 422),
        ({"validation": "warn"}, claiming(NAMED, name="x", gender="none"), 201),
        ({"validation": "enforce,lab1=warn"}, claiming(NAMED), 201),
        ({"validation": "enforce,lab1=off"}, claiming(gender="none"), 201),
        ({"validation": "off,lab1=enforce"}, claiming(gender="none"), 422),
        ({"validation": "enforce,lab2=off"}, claiming(gender="none"), 422),
    ],
)
async def test_levels(rest: Exchange, settings: dict[str, str], res: dict[str, Any], status: int) -> None:
    reply = await with_guide(rest, **settings)("POST", "Patient", res)
    assert reply.status == status, reply.res


async def test_warnings_are_told_to_who_asks(rest: Exchange) -> None:
    reply = await with_guide(rest, profiles=f"Patient=warn:{NAMED}")("POST", "Patient", claiming(), prefer="return=OperationOutcome")
    assert reply.status == 201
    issues = [(each["severity"], each.get("expression")) for each in (reply.res or {})["issue"]]
    assert ("warning", ["Patient.name"]) in issues


async def test_settings_are_checked_at_the_start() -> None:
    types = load_spec().types
    check_settings(Settings(profiles=f"Patient=enforce:{NAMED}", profile_claims="warn,Patient=off", validation="enforce,a=off"), types)
    for settings, variable in (
        (Settings(validation="strict"), "FHIR_VALIDATION"),
        (Settings(profile_claims="Patient=maybe"), "FHIR_PROFILE_CLAIMS"),
        (Settings(profile_claims="enforce,Pateint=warn"), "FHIR_PROFILE_CLAIMS"),
        (Settings(profiles="Patient=enforce"), "FHIR_PROFILES"),
        (Settings(profiles=f"Patent=warn:{NAMED}"), "FHIR_PROFILES"),
    ):
        with pytest.raises(ValueError, match=variable):
            check_settings(settings, types)
    assert level_of("warn,a=off", "a") == "off"
    assert required_of(f"Patient=warn:{NAMED}|1.0", "Patient") == (("warn", f"{NAMED}|1.0"),)
