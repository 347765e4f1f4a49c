"""What happens beside resources is in the audit trail too: sign-ins, consent, administration, requests without a token, a glass not to be broken."""

import re

import pytest

from conformance.validate import checker
from fhir_server.interactions.audit_index import index_of_event
from fhir_server.interactions.indexing import index_of
from fhir_server.jobs.trail import Trail
from fhir_server.query.stems import spelt
from fhir_server.security import occurrences
from fhir_server.security.occurrences import IN_ALL, KINDS, PER_ADDRESS, Occurrence, event_of
from tests.security.app import Exchange, launched, tokens_of
from tests.server.rest.calls import exchange_on

pytestmark = pytest.mark.asyncio(loop_scope="module")


def fresh(exchange: Exchange) -> list[tuple[str, str, str]]:
    """(kind, outcome, user) of what was noted since."""
    found = [(one.kind, one.outcome, one.user) for one in exchange.noted]
    exchange.noted.clear()
    return found


async def test_signing_in_and_what_is_allowed(exchange: Exchange) -> None:
    exchange.noted.clear()
    await launched(exchange)
    told = [one.text for one in exchange.noted if one.kind == "roles"]
    assert fresh(exchange) == [("login", "0", "Practitioner/p1"), ("roles", "0", "Practitioner/p1")]
    assert "patient/*.rs" in told[0]


async def test_a_failed_sign_in_names_the_account_but_not_what_was_typed(exchange: Exchange) -> None:
    fresh(exchange)
    for name in ("drdoe", "my secret typed in the wrong field"):
        browser = await exchange.browser().open("/auth/manage")
        await browser.submit(username=name, password="wrong wrong wrong")
    known, unknown = exchange.noted
    assert known.user
    assert unknown.user == ""
    assert "secret" not in repr(exchange.noted)
    assert [row[:2] for row in fresh(exchange)] == [("login", "4")] * 2


async def test_requests_without_a_valid_token(exchange: Exchange) -> None:
    fresh(exchange)
    for headers in ({}, {"Authorization": "Bearer x.y.z"}):
        for path in ("/fhir/Patient/pat1?name=Adler", "/admin/hl7v2/messages/7", "/hl7v2"):
            reply = await (exchange.http.post(path, headers=headers) if path == "/hl7v2" else exchange.http.get(path, headers=headers))
            assert reply.status_code == 401
    assert (await exchange.http.get("/fhir/metadata")).status_code == 200
    assert len(exchange.noted) == 6
    assert all((one.kind, one.outcome, one.user) == ("token", "4", "") for one in exchange.noted)
    assert not any(word in repr(exchange.noted) for word in ("pat1", "Adler", "x.y.z"))


async def test_administration_and_what_was_refused_of_it(exchange: Exchange) -> None:
    admin = (await tokens_of(exchange, scope="openid fhirUser user/Patient.rs"))["access_token"]
    fresh(exchange)
    reply = await exchange.http.get("/admin/hl7v2/messages", headers={"Authorization": f"Bearer {admin}"})
    assert reply.status_code == 403
    assert fresh(exchange) == [("restricted", "4", "Practitioner/p1")]
    reply = await exchange.http.get("/admin/hl7v2/%00%07" + "x" * 5000, headers={"Authorization": f"Bearer {admin}"})
    assert reply.status_code == 403
    (one,) = exchange.noted
    assert one.text.isprintable()
    assert len(one.text) <= 200


async def test_a_glass_that_may_not_be_broken(exchange: Exchange) -> None:
    form = {"grant_type": "client_credentials", "client_id": "ehr", "client_secret": "e" * 40, "scope": "system/*.rs"}
    token = (await exchange.token(**form)).json()["access_token"]
    fresh(exchange)
    headers = {"Authorization": f"Bearer {token}", "X-Break-Glass": "unconscious in the emergency room"}
    assert (await exchange.http.get("/fhir/Patient/pat1", headers=headers)).status_code == 403
    ((kind, outcome, user),) = fresh(exchange)
    assert (kind, outcome) == ("glass", "4")
    assert user


@pytest.mark.parametrize("kind", KINDS)
async def test_the_events_are_valid_and_indexed_as_any(kind: str) -> None:
    ctx = exchange_on(None, audit="on").ctx
    for one in (Occurrence(kind), Occurrence(kind, "4", "192.0.2.1", "app", "Practitioner/1", "GET /admin/x (3 more)", "id-1")):
        event = {"id": "e", **event_of(one, ctx.base)}
        assert not [issue for issue in checker(ctx.spec, "AuditEvent", warnings=False)(event) if issue.severity in ("error", "fatal")]
        made, whole = index_of_event(ctx, event), index_of(ctx, event)
        made = spelt(made, [stem.index for stem in made["f"]])
        assert {name: set(map(str, made[name])) for name in made} == {name: set(map(str, whole[name])) for name in whole}


async def test_an_attacker_cannot_fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Trail(exchange_on(None, audit="on").ctx)
    for number in range(1000):
        recorder.happened(Occurrence("token", "4", "192.0.2.1", text="GET Patient"))
        recorder.happened(Occurrence("token", "4", f"192.0.2.{number}", text="GET Patient"))
    assert PER_ADDRESS < len(recorder.waiting) <= IN_ALL
    recorder.happened(Occurrence("login", "4", "192.0.2.1"))
    recorder.happened(Occurrence("login", "0", "192.0.2.1", user="Practitioner/1"))
    assert len(recorder.waiting) == IN_ALL + 2, "other kinds, and what succeeds, have room of their own"
    monkeypatch.setattr(occurrences, "WINDOW_SECONDS", 0.0)
    recorder.bounds["token"].until = 0.0
    recorder.happened(Occurrence("token", "4", "192.0.2.1", text="GET Patient"))
    left_out = [re.findall(r"\((\d+) more", one.get("outcomeDesc", "")) for one in recorder.waiting]
    assert sum(int(many[0]) for many in left_out if many) == 2000 - IN_ALL, "what was left out is counted"


async def test_nothing_is_noted_where_the_trail_is_off() -> None:
    recorder = Trail(exchange_on(None, audit="off").ctx)
    recorder.happened(Occurrence("login"))
    assert recorder.waiting == []
