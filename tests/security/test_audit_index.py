"""The index documents of our AuditEvents, put together from parts, are those that the extractor makes of the whole."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from fhir_server.context import Admission, Context, Grant
from fhir_server.interactions.audit_index import index_of_event
from fhir_server.interactions.indexing import index_of
from fhir_server.query.clauses import NOTHING
from fhir_server.query.stems import spelt
from fhir_server.security.audit import PATTERNS, Touched, events
from tests.server.rest.calls import exchange_on

PATIENTS = ((), ("Patient/1",), ("Patient/1", "Patient/a-b.C"), tuple(f"Patient/{number}" for number in range(9)))
WHATS = ("", "Observation/1/_history/2", "Patient/1/_history/1", "Patient/7", "Binary/x")


def contexts() -> list[Context]:
    plain = exchange_on(None, audit="on").ctx
    user = Grant("iss|u1", "app-1", (), user="Practitioner/dr")
    glass = Admission(lambda rtype: NOTHING, ("TREAT", "ETREAT"), "unconscious, found in the Straße", grant=user)
    return [
        plain,
        replace(plain, grant=user, source="app-1", address="192.0.2.1", request_id="0a1B.c_d-e9"),
        replace(
            plain, grant=replace(user, user="Patient/1"), source="https://app.example/x|y", address="2001:db8::1", admission=glass, request_id="4711"
        ),
        replace(plain, grant=Grant("system", "system", (), internal=True), source="LAB^1", base="https://ehr.example/fhir"),
    ]


def sets(index: dict[str, Any]) -> dict[str, Any]:
    assert all(len(index[name]) == len(set(index[name])) for name in ("k", "t") if name in index)
    return {name: set(value) if name in ("k", "t") else value for name, value in index.items()}


@pytest.mark.parametrize("interaction", PATTERNS)
@pytest.mark.parametrize("outcome", ["0", "4"])
def test_both_say_the_same(interaction: str, outcome: str) -> None:
    for ctx, patients, what, query in itertools.product(contexts(), PATIENTS, WHATS, ("", "Observation?code=x|y&_id=1")):
        made = events(ctx, [Touched(interaction, what, patients)], outcome=outcome, query=query)
        made += events(ctx, [Touched(interaction, f"{what or 'Task/0'}{number}", patients) for number in range(3)], outcome=outcome)
        for event in made:
            res = {"resourceType": "AuditEvent", "id": "e", **event}
            index = index_of_event(ctx, res)
            stems = index["f"]
            own = {*index["k"], *index.get("t", ())}
            assert not own & {value for stem in stems for value in (*stem.keys, *stem.texts)}
            assert sets(spelt(index, [stem.index for stem in stems])) == sets(index_of(ctx, res))
            assert not [key for stem in stems for key in stem.keys if "=Patient/" in key or "=Practitioner/" in key]
