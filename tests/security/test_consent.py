"""Consents, security labels and the broken glass: who is shown what of Patient/p. https://hl7.org/fhir/R4/consent.html"""

from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from conformance.outcome import Refusal
from fhir_server.context import Grant
from fhir_server.security.admission import admit
from fhir_server.security.scopes import rights_of
from tests.server.rest.calls import Exchange, text_of
from tests.server.rest.conftest import module_store, rest  # noqa: F401

pytestmark = pytest.mark.asyncio(loop_scope="module")
CONF = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
LOINC = "http://loinc.org"
ALL = {"p", "lab", "note", "hiv", "old", "e"}


def world() -> list[dict[str, Any]]:
    def observation(rid: str, code: str, when: str, *labels: tuple[str, str], patient: str = "p") -> dict[str, Any]:
        return {
            "resourceType": "Observation",
            "id": rid,
            "meta": {"security": [{"system": system, "code": label} for system, label in labels]} if labels else {},
            "status": "final",
            "code": {"coding": [{"system": LOINC, "code": code}]},
            "subject": {"reference": f"Patient/{patient}"},
            "effectiveDateTime": when,
        }

    return [
        {"resourceType": "Patient", "id": "p"},
        {"resourceType": "Patient", "id": "q"},
        {"resourceType": "Encounter", "id": "e", "status": "finished", "class": {"code": "AMB"}, "subject": {"reference": "Patient/p"}},
        observation("lab", "718-7", "2024-05-01"),
        observation("note", "11488-4", "2024-05-02"),
        observation("old", "718-7", "2010-01-01"),
        observation("hiv", "7917-8", "2024-05-03"),
        observation("q-lab", "718-7", "2024-05-01", patient="q"),
        {"resourceType": "Organization", "id": "ward"},
        {
            "resourceType": "PractitionerRole",
            "id": "role",
            "practitioner": {"reference": "Practitioner/nurse"},
            "organization": {"reference": "Organization/ward"},
        },
        {"resourceType": "CareTeam", "id": "team", "participant": [{"member": {"reference": "Practitioner/nurse"}}]},
    ]


@pytest_asyncio.fixture(loop_scope="module")
async def full(rest: Exchange) -> Exchange:  # noqa: F811
    opened = rest.with_settings(consent="enforce", consent_seconds=0.0, validation="off")
    for res in world():
        assert (await opened("PUT", f"{res['resourceType']}/{res['id']}", res)).status == 201
    return opened


async def caller(
    full: Exchange, scope: str, user: str = "", patient: str = "", client: str = "c", purposes: tuple[str, ...] = (), **headers: str
) -> Exchange:
    grant = Grant(user or client, client, rights_of(scope.split(), full.ctx.spec.types, patient, user), patient=patient, user=user, purposes=purposes)
    return Exchange(await admit(replace(full.ctx, grant=grant), {name.replace("_", "-"): value for name, value in headers.items()}))


async def seen(app: Exchange) -> set[str]:
    """Ids of Patient/p's record that a search and a read show alike."""
    listed = set()
    for rtype in ("Patient", "Observation", "Encounter"):
        rows = (await app("GET", f"{rtype}?_count=100")).res.get("entry", ())
        listed |= {row["resource"]["id"] for row in rows}
    for rid in ALL:
        rtype = {"p": "Patient", "e": "Encounter"}.get(rid, "Observation")
        assert (await app("GET", f"{rtype}/{rid}")).status == (200 if rid in listed else 404), rid
    return listed & ALL


def policy(provision: dict[str, Any], opt: str = "", **more: Any) -> dict[str, Any]:
    res: dict[str, Any] = {
        "resourceType": "Consent",
        "id": "c",
        "status": "active",
        "scope": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy"}]},
        "patient": {"reference": "Patient/p"},
        "provision": provision,
        **more,
    }
    return res | ({"policyRule": {"coding": [{"system": ACT, "code": opt}]}} if opt else {})


def actor(ref: str) -> list[dict[str, Any]]:
    return [{"role": {"text": "x"}, "reference": {"reference": ref}}]


CASES = [
    ("deny all", policy({"type": "deny"}), set()),
    ("permit all", policy({"type": "permit"}), ALL),
    ("opt out", policy({}, "OPTOUT"), set()),
    ("opt in", policy({}, "OPTIN"), ALL),
    ("opt out but for the nurse", policy({"type": "permit", "actor": actor("Practitioner/nurse")}, "OPTOUT"), ALL),
    ("opt out but for another", policy({"type": "permit", "actor": actor("Practitioner/other")}, "OPTOUT"), set()),
    ("deny the nurse", policy({"type": "deny", "actor": actor("Practitioner/nurse")}), set()),
    ("deny another", policy({"type": "deny", "actor": actor("Practitioner/other")}), ALL),
    ("deny the nurse's organization", policy({"type": "deny", "actor": actor("Organization/ward")}), set()),
    ("deny the nurse's role", policy({"type": "deny", "actor": actor("PractitionerRole/role")}), set()),
    ("deny the nurse's team", policy({"type": "deny", "actor": actor("CareTeam/team")}), set()),
    ("deny a type", policy({"type": "deny", "class": [{"system": "http://hl7.org/fhir/resource-types", "code": "Observation"}]}), {"p", "e"}),
    ("deny a code", policy({"type": "deny", "code": [{"coding": [{"system": LOINC, "code": "7917-8"}]}]}), ALL - {"hiv"}),
    (
        "deny all but a code",
        policy({"type": "deny", "provision": [{"type": "permit", "code": [{"coding": [{"system": LOINC, "code": "718-7"}]}]}]}),
        {"lab", "old"},
    ),
    (
        "deny one instance",
        policy({"type": "deny", "data": [{"meaning": "instance", "reference": {"reference": "Observation/note"}}]}),
        ALL - {"note"},
    ),
    ("deny old data", policy({"type": "deny", "dataPeriod": {"end": "2015-01-01"}, "class": [{"code": "Observation"}]}), ALL - {"old"}),
    ("permit new data only", policy({"type": "permit", "dataPeriod": {"start": "2024-01-01"}}, "OPTOUT"), {"lab", "note", "hiv"}),
    ("denied until last year", policy({"type": "deny", "period": {"end": "2020-01-01"}}), ALL),
    ("denied from now on", policy({"type": "deny", "period": {"start": "2020-01-01"}}), set()),
    ("permission has ended", policy({"type": "permit", "period": {"end": "2020-01-01"}}, "OPTOUT"), set()),
    ("deny research, purpose unstated", policy({"type": "deny", "purpose": [{"code": "HRESCH"}]}), set()),
    ("deny only correcting", policy({"type": "deny", "action": [{"coding": [{"code": "correct"}]}]}), ALL),
    ("not active", policy({"type": "deny"}, status="inactive"), ALL),
    ("of another scope", policy({"type": "deny"}, scope={"coding": [{"code": "research"}]}), ALL),
    ("of another patient", policy({"type": "deny"}, patient={"reference": "Patient/q"}), ALL),
    (
        "exception of an exception",
        policy(
            {
                "type": "deny",
                "provision": [
                    {
                        "type": "permit",
                        "class": [{"code": "Observation"}],
                        "provision": [{"type": "deny", "code": [{"coding": [{"code": "7917-8"}]}]}],
                    }
                ],
            }
        ),
        {"lab", "note", "old"},
    ),
]


@pytest.mark.parametrize(("res", "expected"), [(res, expected) for _, res, expected in CASES], ids=[name for name, _, _ in CASES])
async def test_a_consent_rules_what_a_nurse_sees(full: Exchange, res: dict[str, Any], expected: set[str]) -> None:
    assert (await full("PUT", "Consent/c", res)).status in (200, 201)
    nurse = await caller(full, "user/*.cruds", "Practitioner/nurse")
    assert await seen(nurse) == expected
    assert (await nurse("GET", "Observation/q-lab")).status == (404 if res["patient"]["reference"] == "Patient/q" else 200)
    assert await seen(await caller(full, "patient/*.cruds", patient="p")) == ALL  # the patient's own app is not concerned


async def test_purposes_of_use(full: Exchange) -> None:
    await full("PUT", "Consent/c", policy({"type": "deny", "purpose": [{"code": "HRESCH"}]}))
    assert await seen(await caller(full, "user/*.rs", "Practitioner/nurse", x_purpose_of_use="TREAT")) == ALL
    assert await seen(await caller(full, "user/*.rs", "Practitioner/nurse", x_purpose_of_use="HRESCH")) == set()
    assert await seen(await caller(full, "user/*.rs", "Practitioner/nurse", purposes=("TREAT",))) == ALL
    with pytest.raises(Refusal) as refused:
        await caller(full, "user/*.rs", "Practitioner/nurse", purposes=("HRESCH",), x_purpose_of_use="TREAT")
    assert refused.value.status == 403


async def test_a_client_is_named_by_identifier_and_family_is_concerned(full: Exchange) -> None:
    await full("PUT", "Consent/c", policy({"type": "deny", "actor": [{"reference": {"identifier": {"value": "lab-app"}}}]}))
    assert await seen(await caller(full, "system/*.rs", client="lab-app")) == set()
    assert await seen(await caller(full, "system/*.rs", client="other-app")) == ALL
    await full("PUT", "RelatedPerson/r", {"resourceType": "RelatedPerson", "id": "r", "patient": {"reference": "Patient/p"}})
    await full("PUT", "Consent/c", policy({"type": "deny", "actor": actor("RelatedPerson/r")}))
    assert await seen(await caller(full, "user/*.rs", "RelatedPerson/r")) == set()


async def test_what_is_withheld_is_answered_like_what_never_was(full: Exchange) -> None:
    await full("PUT", "Consent/c", policy({"type": "deny"}))
    nurse = await caller(full, "user/*.cruds", "Practitioner/nurse")
    for method, url in (("GET", "Observation/lab"), ("GET", "Observation/lab/_history"), ("DELETE", "Observation/lab")):
        hidden, missing = await nurse(method, url), await nurse(method, url.replace("lab", "no1"))
        assert (hidden.status, text_of(hidden).replace("lab", "no1")) == (missing.status, text_of(missing))
    assert (await full("GET", "Observation/lab")).status == 200
    res = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient/p"}}
    recorded = await nurse("POST", "Observation", res)  # who may not be shown the record may still add to it
    assert (recorded.status, recorded.res) == (201, None)
    feed = await caller(full, "system/*.cruds", client="feed")
    again = await feed("PUT", "Observation/lab", res | {"id": "lab"})
    assert (again.status, again.res) == (200, None)


async def test_labels_are_an_order(full: Exchange) -> None:
    async def label(code: str, system: str = CONF) -> None:
        old = (await full("GET", "Observation/lab")).res
        await full("PUT", "Observation/lab", old | {"meta": {"security": [{"system": system, "code": code}]}})

    async def shown(scope: str, **more: Any) -> bool:
        return "lab" in await seen(await caller(full, scope, **more))

    staff = {"user": "Practitioner/nurse"}
    for code, plain, restricted, very in (("U", True, True, True), ("N", True, True, True), ("R", False, True, True), ("V", False, False, True)):
        await label(code)
        assert await shown("user/*.rs", **staff) is plain, code
        assert await shown("user/*.rs exchange/clearance.R", **staff) is restricted, code
        assert await shown("user/*.rs exchange/clearance.V", **staff) is very, code
        assert await shown("patient/*.rs", patient="p")
    await label("HIV", ACT)
    assert not await shown("user/*.rs", **staff)
    assert not await shown("user/*.rs exchange/clearance.PSY", **staff)
    assert await shown("user/*.rs exchange/clearance.HIV", **staff)
    await label("NOPAT", ACT)
    assert await shown("user/*.rs", **staff)
    assert not await shown("patient/*.rs", patient="p")


async def test_breaking_the_glass(full: Exchange) -> None:
    await full("PUT", "Consent/c", policy({"type": "deny"}))
    broken = {"x_break_glass": "unconscious in the emergency room"}
    assert await seen(await caller(full, "user/*.rs", "Practitioner/nurse", **broken)) == ALL
    narrow = await caller(full, "user/Observation.rs?code=7917-8", "Practitioner/nurse", **broken)
    assert {row["resource"]["id"] for row in (await narrow("GET", "Observation")).res["entry"]} == {"hiv"}  # never more than the scopes
    for scope, user, reason, status in (
        ("user/*.rs", "Practitioner/nurse", "why", 400),
        ("user/*.rs", "RelatedPerson/r", "because I want to", 403),
        ("system/*.rs", "", "because I want to", 403),
        ("patient/*.rs", "Patient/p", "because I want to", 403),
    ):
        with pytest.raises(Refusal) as refused:
            await caller(full, scope, user, patient="p", x_break_glass=reason)
        assert refused.value.status == status
    with pytest.raises(Refusal):
        await caller(full.with_settings(break_glass=False), "user/*.rs", "Practitioner/nurse", **broken)


async def test_a_consent_counts_everywhere_when_its_writer_is_answered(full: Exchange) -> None:
    timed = full.with_settings(consent_seconds=0.2)
    assert await seen(await caller(timed, "user/*.rs", "Practitioner/nurse")) == ALL
    await timed("PUT", "Consent/c", policy({"type": "deny"}))
    assert await seen(await caller(timed, "user/*.rs", "Practitioner/nurse")) == set()
    await timed("DELETE", "Consent/c")
