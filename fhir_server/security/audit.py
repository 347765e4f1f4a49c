"""Accesses and changes -> AuditEvent resources, after IHE's Basic Audit Log Patterns (https://profiles.ihe.net/ITI/BALP/).

One event per kind of action and patient; an event about exactly one resource claims the profile of its pattern. Where more than MOST_PATIENTS
patients are concerned, one event names them all: it is tagged SEVERAL, and no patient is shown it (`reach.py`). Who acts is named by the client's
and the user's identifiers, never by what a resource says of them.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fhir_server.context import Context, Resource
from fhir_server.search.types import reference

RTYPE = "AuditEvent"
TAGS = "urn:fhir-exchange:audit"
MADE, SEVERAL = "made-here", "several-patients"
BALP = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."
TYPES, ENTITY = "http://terminology.hl7.org/CodeSystem/audit-event-type", "http://terminology.hl7.org/CodeSystem/audit-entity-type"
ROLES = "http://terminology.hl7.org/CodeSystem/object-role"
DCM, REASONS = "http://dicom.nema.org/resources/ontology/DCM", "http://terminology.hl7.org/CodeSystem/v3-ActReason"
MOST_PATIENTS, MOST_RESOURCES = 8, 200
SUCCESS, REFUSED, FAILED = "0", "4", "8"


@dataclass(frozen=True, slots=True)
class Pattern:
    """What BALP says of an action: its profile, AuditEvent.action, and the roles of client and server."""

    profile: str
    action: str
    client: tuple[str, str]
    server: tuple[str, str]


SOURCE, DESTINATION = (DCM, "110153"), (DCM, "110152")
CUSTODIAN = ("http://terminology.hl7.org/CodeSystem/provenance-participant-type", "custodian")
PATTERNS: Mapping[str, Pattern] = {
    "create": Pattern("Create", "C", SOURCE, DESTINATION),
    "update": Pattern("Update", "U", SOURCE, DESTINATION),
    "patch": Pattern("Update", "U", SOURCE, DESTINATION),
    "delete": Pattern("Delete", "D", (DCM, "110150"), CUSTODIAN),
    "read": Pattern("Read", "R", DESTINATION, SOURCE),
    "vread": Pattern("Read", "R", DESTINATION, SOURCE),
    "history": Pattern("Read", "R", DESTINATION, SOURCE),
    "search": Pattern("Query", "E", SOURCE, DESTINATION),
    "operation": Pattern("Query", "E", SOURCE, DESTINATION),
}


@dataclass(frozen=True, slots=True)
class Touched:
    """One resource or query that was acted on. interaction: a key of PATTERNS; what: 'Patient/1/_history/2', '' for a query."""

    interaction: str
    what: str
    patients: tuple[str, ...]


def kept(ctx: Context) -> bool:
    """True if accesses and changes are recorded."""
    return ctx.settings.audit == "on" or (ctx.settings.audit == "auto" and ctx.settings.auth == "smart")


def events(ctx: Context, touched: Sequence[Touched], *, outcome: str = SUCCESS, query: str = "") -> list[Resource]:
    """The AuditEvents of one request (without ids). query: the path and parameters asked, for patterns of type Query."""
    patients = dict.fromkeys(patient for one in touched for patient in one.patients)
    many = len(patients) > MOST_PATIENTS
    groups: dict[tuple[str, str], list[Touched]] = {}
    for one in touched:
        for patient in ("",) if many else one.patients or ("",):
            groups.setdefault((one.interaction, patient), []).append(one)
    made = []
    frame = _frame(ctx)
    for (interaction, patient), rows in groups.items():
        for start in range(0, len(rows), MOST_RESOURCES):
            part = rows[start : start + MOST_RESOURCES]
            concerned = list(dict.fromkeys(ref for one in part for ref in one.patients)) if many else [patient] if patient else []
            made.append(_event(frame, PATTERNS[interaction], interaction, part, concerned, outcome, query))
    return made


@dataclass(frozen=True, slots=True)
class Frame:
    """What all events of a request share."""

    recorded: str
    base: str
    client: Resource
    server: Resource
    user: Resource | None
    purposes: list[Resource]
    request: Resource


def _frame(ctx: Context) -> Frame:
    grant, admission = ctx.grant, ctx.admission
    user = reference.normal(grant.user, ctx.base)
    who: Resource | None = {"reference": user} if user else {"identifier": {"value": grant.subject}} if grant.subject and not grant.internal else None
    purposes: list[Resource] = [{"coding": [{"system": REASONS, "code": code}]} for code in (admission.purposes if admission else grant.purposes)]
    if admission and admission.emergency:
        purposes.append({"coding": [{"system": REASONS, "code": "BTG"}], "text": admission.emergency})
    system = "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType"
    return Frame(
        recorded=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        base=ctx.base,
        client={"who": {"identifier": {"value": ctx.source or "unknown"}}, "requestor": who is None, "network": _network(ctx.address, "2")},
        server={"who": {"display": ctx.base}, "requestor": False, "network": _network(ctx.base, "5")},
        user=who,
        purposes=purposes,
        request={"what": {"identifier": {"value": ctx.request_id}}, "type": {"system": system, "code": "XrequestId"}},
    )


def _network(address: str, kind: str) -> Resource:
    return {"address": address or "unknown", "type": kind}


def _event(frame: Frame, pattern: Pattern, interaction: str, rows: Sequence[Touched], patients: Sequence[str], outcome: str, query: str) -> Resource:
    tags = [{"system": TAGS, "code": MADE}] + ([{"system": TAGS, "code": SEVERAL}] if len(patients) > 1 else [])
    whats = list(dict.fromkeys(one.what for one in rows if one.what))
    meta: Resource = {"tag": tags}
    if outcome == SUCCESS and len(patients) < 2 and (len(whats) == 1 or (pattern.profile == "Query" and not whats)):
        meta = {"profile": [f"{BALP}{'Patient' if patients else ''}{pattern.profile}"], **meta}
    agents = [_agent(pattern.client, frame.client), _agent(pattern.server, frame.server)]
    if frame.user is not None:
        recipient = {"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "IRCP"}
        agents.append({"type": {"coding": [recipient]}, "who": frame.user, "requestor": True})
    res: Resource = {
        "resourceType": RTYPE,
        "meta": meta,
        "type": {"system": TYPES, "code": "rest"},
        "subtype": [{"system": "http://hl7.org/fhir/restful-interaction", "code": interaction}],
        "action": pattern.action,
        "recorded": frame.recorded,
        "outcome": outcome,
        "agent": agents,
        "source": {
            "observer": {"display": frame.base},
            "type": [{"system": "http://terminology.hl7.org/CodeSystem/security-source-type", "code": "4"}],
        },
        "entity": [*_entities(whats, patients, query), frame.request],
    }
    return {**res, "purposeOfEvent": frame.purposes} if frame.purposes else res


def kind_of(event: Resource) -> tuple[str, ...]:
    """What tells kinds of events made here (also those of occurrences.py) apart; the base given, all else that they share follows from it."""
    meta = event["meta"]
    profile = meta["profile"][0] if "profile" in meta else ""
    return profile, meta["tag"][-1]["code"], event["type"]["code"], event["subtype"][0]["code"], event["outcome"]


def _agent(role: tuple[str, str], rest: Resource) -> Resource:
    return {"type": {"coding": [{"system": role[0], "code": role[1]}]}, **rest}


def _entities(whats: Iterable[str], patients: Iterable[str], query: str) -> list[Resource]:
    found: list[Resource] = [{"what": {"reference": what}, **_kind("2", "4")} for what in whats]
    if query:
        found.append({**_kind("2", "24"), "query": base64.b64encode(query.encode()).decode()})
    return found + [{"what": {"reference": patient}, **_kind("1", "1")} for patient in patients]


def _kind(kind: str, role: str) -> dict[str, Any]:
    return {"type": {"system": ENTITY, "code": kind}, "role": {"system": ROLES, "code": role}}
