"""Which patients and encounters a person may put into context: asked through the same routes and the same visibility rule as any client."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from conformance.outcome import Refusal
from fhir_server.context import Context, Grant, Request, Resource
from fhir_server.operations import TABLE
from fhir_server.security.admission import admit
from fhir_server.security.authserver.server import AuthServer
from fhir_server.security.authserver.users import ROLES, User
from fhir_server.security.scopes import rights_of
from fhir_server.web.door import Services

SHOWN = 20
LONGEST_QUERY = 100
SCOPES = ("user/Patient.rs", "user/Encounter.rs")


@dataclass(frozen=True, slots=True)
class Choice:
    """One row of a picker."""

    id: str
    title: str
    detail: str


async def _context(services: Services, server: AuthServer, user: User, request_id: str) -> Context:
    """What this person may see, by the same scopes that an app could ask for in their name."""
    rights = rights_of(SCOPES, server.types, "", user.fhir_user)
    ctx = Context(
        request_id=request_id,
        grant=Grant(f"{server.place.base}|{user.id}", "exchange", rights, user=user.fhir_user),
        store=services.store,
        spec=services.spec,
        terms=services.terms,
        settings=services.settings,
        base=server.place.base,
        source="exchange",
        now=datetime.now(UTC),
        operations=TABLE,
    )
    return await admit(ctx)


@dataclass(frozen=True, slots=True)
class Picker:
    """The choices of one person."""

    services: Services
    ctx: Context
    user: User

    def own_patients(self) -> tuple[str, ...] | None:
        """The patients whom this person is or speaks for; None: whoever they may see (staff)."""
        if self.user.fhir_user.partition("/")[0] not in ROLES["patient"]:
            return None
        people = (right.who for right in self.ctx.grant.rights if right.who.startswith("Patient/"))
        return tuple(dict.fromkeys(who.removeprefix("Patient/") for who in people))

    async def patient(self, rid: str) -> Choice | None:
        """This patient, if the person may choose them."""
        own = self.own_patients()
        if own is not None and rid not in own:
            return None
        res = await self._read("Patient", rid)
        return _patient(res) if res else None

    async def patients(self, text: str) -> list[Choice]:
        """Patients by name or identifier, a page of them."""
        own = self.own_patients()
        if own is not None:
            found = [await self.patient(rid) for rid in own]
            return [one for one in found if one]
        text = text.strip()[:LONGEST_QUERY]
        query = [("_count", str(SHOWN)), ("_sort", "family,given")]
        rows = await self._search("Patient", [*query, ("name", _escaped(text))] if text else query)
        if text and not rows:
            rows = await self._search("Patient", [("_count", str(SHOWN)), ("identifier", _escaped(text))])
        return [_patient(res) for res in rows]

    async def encounter(self, rid: str, patient: str) -> Choice | None:
        """This encounter, if it is the patient's."""
        rows = await self._search("Encounter", [("_id", rid), ("patient", patient)])
        return _encounter(rows[0]) if rows else None

    async def encounters(self, patient: str) -> list[Choice]:
        """The patient's encounters, newest first, a page of them."""
        return [_encounter(res) for res in await self._search("Encounter", [("patient", patient), ("_sort", "-date"), ("_count", str(SHOWN))])]

    async def _read(self, rtype: str, rid: str) -> Resource | None:
        try:
            return (await self.services.route(self.ctx, Request("GET", (rtype, rid)))).res
        except Refusal as refusal:
            if refusal.status in (400, 403, 404, 410):
                return None
            raise

    async def _search(self, rtype: str, query: Sequence[tuple[str, str]]) -> list[Resource]:
        reply = await self.services.route(self.ctx, Request("GET", (rtype,), tuple(query)))
        entries = (reply.res or {}).get("entry", [])
        return [entry["resource"] for entry in entries if entry["resource"]["resourceType"] == rtype]


async def picker_for(services: Services, server: AuthServer, user: User, request_id: str) -> Picker:
    """The choices of a person who has signed in."""
    return Picker(services, await _context(services, server, user, request_id), user)


def _escaped(text: str) -> str:
    """Typed text is one value: FHIR's separators in it are its own (https://hl7.org/fhir/R4/search.html#escaping)."""
    for sign in "\\$,|":
        text = text.replace(sign, "\\" + sign)
    return text


def _patient(res: Mapping[str, Any]) -> Choice:
    names = res.get("name") or [{}]
    first = next((one for one in names if one.get("use") == "official"), names[0])
    title = first.get("text") or " ".join([*first.get("given", ()), first.get("family", "")]).strip() or "(no name)"
    identifiers = [str(one["value"]) for one in res.get("identifier", ()) if one.get("value")][:2]
    parts = [f"born {res['birthDate']}" if res.get("birthDate") else "", str(res.get("gender", "")), *identifiers]
    return Choice(res["id"], title, ", ".join(part for part in parts if part))


def _encounter(res: Mapping[str, Any]) -> Choice:
    kinds = [one.get("text") or next((code.get("display", "") for code in one.get("coding", ())), "") for one in res.get("type", ())]
    title = next((kind for kind in kinds if kind), "") or str(res.get("class", {}).get("display") or res.get("class", {}).get("code") or "Encounter")
    period = res.get("period", {})
    when = " to ".join(str(period[name])[:16].replace("T", " ") for name in ("start", "end") if period.get(name))
    return Choice(res["id"], title, ", ".join(part for part in (when, str(res.get("status", ""))) if part))
