"""Searches that go through other resources, for an app of one patient: chains, `_has`, includes, lists, operations, oracles by order and count."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from fhir_server.context import Grant
from fhir_server.interactions import access
from fhir_server.security.admission import admit
from fhir_server.security.scopes import rights_of
from tests.server.rest.calls import Exchange, text_of
from tests.server.rest.conftest import module_store, rest  # noqa: F401

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECRET = "topsecret"


async def as_app(rest: Exchange, *scopes: str, patient: str = "mine", user: str = "") -> Exchange:  # noqa: F811
    """A caller with these scopes."""
    grant = Grant("app", "app", rights_of(scopes, rest.ctx.spec.types, patient, user), patient=patient, user=user)
    return Exchange(await admit(replace(rest.ctx, grant=grant)))


def resources() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for who in ("mine", "theirs"):
        name = SECRET if who == "theirs" else "known"
        subject = {"reference": f"Patient/{who}"}
        found.append(
            {"resourceType": "Patient", "id": who, "name": [{"family": name}], "birthDate": "1970-01-01" if who == "theirs" else "1980-01-01"}
        )
        found.append(
            {"resourceType": "Observation", "id": f"o-{who}", "status": "final", "code": {"text": name}, "subject": subject, "valueString": name}
        )
    links = [{"reference": "Observation/o-mine"}, {"reference": "Observation/o-theirs"}]
    found.append(
        {
            "resourceType": "DiagnosticReport",
            "id": "r",
            "status": "final",
            "code": {"text": "x"},
            "subject": {"reference": "Patient/mine"},
            "result": links,
        }
    )
    found.append(
        {
            "resourceType": "List",
            "id": "l",
            "status": "current",
            "mode": "working",
            "subject": {"reference": "Patient/mine"},
            "entry": [{"item": one} for one in links],
        }
    )
    found.append({"resourceType": "Encounter", "id": "e", "status": "finished", "class": {"code": "AMB"}, "subject": {"reference": "Patient/mine"}})
    found.append(
        {
            "resourceType": "Observation",
            "id": "o-at",
            "status": "final",
            "code": {"text": SECRET},
            "subject": {"reference": "Patient/theirs"},
            "encounter": {"reference": "Encounter/e"},
        }
    )
    return found


@pytest_asyncio.fixture(loop_scope="module")
async def full(rest: Exchange) -> Exchange:  # noqa: F811
    for res in resources():
        assert (await rest("PUT", f"{res['resourceType']}/{res['id']}", res)).status == 201
    return rest


def ids(reply: Any) -> set[str]:
    """Ids of the entries."""
    return {row["resource"]["id"] for row in reply.res.get("entry", ())}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("DiagnosticReport?result:Observation.code:text=topsecret", set()),
        ("DiagnosticReport?result:Observation.code:text=known", {"r"}),
        ("DiagnosticReport?result:Observation.subject:Patient.family=topsecret", set()),
        ("Observation?subject:Patient.family=topsecret", set()),
        ("Observation?subject:Patient.birthdate=lt1975", set()),
        ("Observation?subject=Patient/theirs", set()),
        ("Observation?encounter=Encounter/e", set()),
        ("Encounter?_has:Observation:encounter:code:text=topsecret", set()),
        ("Encounter?_has:Observation:encounter:status=final", set()),
        ("Patient?_has:Observation:patient:status=final", {"mine"}),
        ("Patient?_has:Observation:subject:code:text=topsecret", set()),
        ("DiagnosticReport?_id=r&_include=DiagnosticReport:result", {"r", "o-mine"}),
        ("DiagnosticReport?_include=*&_include:iterate=*", {"r", "o-mine", "mine"}),
        ("Patient?_id=mine&_revinclude=Observation:subject", {"mine", "o-mine"}),
        ("Encounter?_id=e&_revinclude=*", {"e"}),
        ("Observation?_list=l", {"o-mine"}),
        ("Observation?_filter=status eq final", {"o-mine"}),
        ("Observation?_content=topsecret", set()),
        ("Observation?code:text=topsecret", set()),
        ("Observation?code:not=nothing", {"o-mine"}),
        ("Patient?family:missing=false&_sort=birthdate", {"mine"}),
        ("Patient?_sort=-family&_count=1", {"mine"}),
        ("Patient/mine/$everything", {"mine", "o-mine", "r", "l", "e"}),
        ("Patient/$everything", {"mine", "o-mine", "r", "l", "e"}),
        ("Encounter/e/$everything", {"e", "mine"}),
        ("Observation/$lastn?patient=Patient/theirs&code:text=topsecret", set()),
        ("Observation?_contained=both", {"o-mine"}),
        ("?_type=Observation,Patient", {"o-mine", "mine"}),
        ("Patient/theirs/*", set()),
        ("Encounter/e/Observation", set()),
    ],
)
async def test_only_what_is_visible_counts(full: Exchange, url: str, expected: set[str]) -> None:
    app = await as_app(full, "patient/*.cruds")
    reply = await app("GET", url)
    assert (reply.status, ids(reply)) == (200, expected), text_of(reply)
    assert SECRET not in text_of(reply).replace(f"={SECRET}", "").replace(f"%3D{SECRET}", "")
    if "total" in reply.res:
        assert reply.res["total"] == len([row for row in reply.res.get("entry", ()) if row["search"]["mode"] == "match"])


async def test_a_type_that_is_not_granted_is_neither_included_nor_chained_through(full: Exchange) -> None:
    app = await as_app(full, "patient/DiagnosticReport.rs", "patient/Patient.r")
    assert ids(await app("GET", "DiagnosticReport?_include=DiagnosticReport:result&_include=DiagnosticReport:subject")) == {"r", "mine"}
    assert ids(await app("GET", "DiagnosticReport?result:Observation.status=final")) == set()
    assert ids(await app("GET", "DiagnosticReport?subject:Patient.family=known")) == set()
    assert (await app("GET", "Observation?_id=o-mine")).status == 403


@pytest.mark.parametrize("secret", [True, False])
async def test_conditional_references_do_not_tell_hidden_from_missing(full: Exchange, secret: bool) -> None:
    app = await as_app(full, "patient/*.cruds")
    family = SECRET if secret else "nobody"
    res = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": "Patient/mine"},
        "focus": [{"reference": f"Patient?family={family}"}],
    }
    entry = {"request": {"method": "POST", "url": "Observation"}, "resource": res}
    reply = await app("POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
    assert reply.status == 412
    assert SECRET not in text_of(reply)


async def test_references_are_checked_without_telling_hidden_from_missing(full: Exchange) -> None:
    app = (await as_app(full, "patient/Observation.cruds")).with_settings(referential_integrity="enforce")

    async def refer(place: str) -> tuple[int, str]:
        res = {
            "resourceType": "Observation",
            "status": "final",
            "code": {"text": "x"},
            "subject": {"reference": "Patient/mine"},
            "focus": [{"reference": place}],
        }
        reply = await app("POST", "Observation", res)
        return reply.status, text_of(reply).replace(place, "*")

    hidden, missing = await refer("Observation/o-theirs"), await refer("Observation/none-here")
    assert hidden == missing
    assert hidden[0] == 422
    assert (await refer("Observation/o-mine"))[0] == 201


async def test_a_patch_of_what_was_deleted_and_hidden_is_404(full: Exchange) -> None:
    await full("DELETE", "Observation/o-theirs?_cascade=delete")
    app = await as_app(full, "patient/*.cruds")
    patch = json.dumps([{"op": "replace", "path": "/valueString", "value": "y"}]).encode()
    reply = await app("PATCH", "Observation/o-theirs", body=patch, media="application/json-patch+json")
    assert reply.status == 404
    assert (
        await app(
            "PUT",
            "Observation/o-theirs",
            {"resourceType": "Observation", "id": "o-theirs", "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient/mine"}},
        )
    ).status == 404


async def test_without_read_a_write_shows_nothing(full: Exchange) -> None:
    app = await as_app(full, "patient/Observation.cud")
    patch = json.dumps([{"op": "replace", "path": "/status", "value": "amended"}]).encode()
    reply = await app("PATCH", "Observation/o-mine", body=patch, media="application/json-patch+json")
    assert (reply.status, reply.res) == (200, None)
    assert (
        await app("POST", "Observation/o-mine/$meta-add", {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {}}]})
    ).status == 403


async def test_another_patient_in_context_gets_no_page_of_this_one(full: Exchange) -> None:
    app = await as_app(full, "patient/*.rs")
    following = next(one["url"] for one in (await app("GET", "Patient/$everything?_count=1")).res["link"] if one["relation"] == "next")
    url = following.removeprefix("http://localhost/fhir/")
    assert (await app("GET", url)).status == 200
    assert (await (await as_app(full, "patient/*.rs", patient="theirs"))("GET", url)).status == 400


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH"])
async def test_the_time_of_an_answer_does_not_tell_hidden_from_missing(full: Exchange, method: str) -> None:
    await full("PUT", "Observation/o-gone", {**resources()[3], "id": "o-gone"})
    await full("DELETE", "Observation/o-gone")
    app = await as_app(full, "patient/*.cruds")
    loop = asyncio.get_running_loop()
    for rid in ("o-at", "never-used", "o-gone"):
        fresh = Exchange(replace(app.ctx, now=datetime.now(UTC)))
        started = loop.time()
        reply = await fresh(method, f"Observation/{rid}", {**resources()[1], "id": rid}, body=b"[]", media="application/json-patch+json")
        assert reply.status == 404, text_of(reply)
        assert loop.time() - started >= access.QUIET * 0.9
