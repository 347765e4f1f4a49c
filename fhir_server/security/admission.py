"""What must be looked up before a caller is known: whom it acts for, what consents and labels keep from it, whether it breaks the glass.

Asked once per request, before the route; of a token that was met before, `remembered` answers from what was found then, as long as it counts.
The rule itself (`visible`) stays a function of the context: what is found here is written into it.
DECISIONS.md says whom consents concern and who may break the glass.
"""

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from conformance.outcome import NO_HEADERS, bad_request, forbidden
from conformance.spec import Spec
from fhir_server.context import Admission, Context, Grant, Resource
from fhir_server.query.clauses import NOTHING, Clause, Ids, Keys, Or, Patient, either
from fhir_server.search import aliases
from fhir_server.search.types import reference
from fhir_server.security import consent, labels
from fhir_server.security.register import BELONGS_SECONDS, Register, belongs, enforced, register
from fhir_server.security.visible import CLEARANCE
from fhir_server.settings import Settings
from fhir_server.store import Store

RELATED = "RelatedPerson"
CLINICIANS = ("Practitioner/", "PractitionerRole/")
GLASS, PURPOSE = "x-break-glass", "x-purpose-of-use"
EMERGENCIES = frozenset({"BTG", "ETREAT"})
CODE = re.compile(r"[A-Z][A-Z0-9]{1,15}")
REASON_CHARS = (8, 500)
MEMO, MOST_MEMO = "security.withheld", 5000
HELD, MOST_HELD = "security.admitted", 4096
UNRULED = Register(at=math.inf)  # where consents and labels are not enforced


@dataclass(frozen=True, slots=True)
class Held:
    """The admission of one grant without headers, and what it was made of: it counts while all of that is as it was.

    generation: of the consents, and of the merged resources (`aliases`). until: monotonic second at which what the caller belongs to is looked up again.
    """

    grant: Grant
    place: tuple[Settings, Store, str]
    consents: Register
    generation: tuple[int, int]
    minute: int
    until: float
    caller: consent.Caller
    admission: Admission


def remembered(spec: Spec, place: tuple[Settings, Store, str], grant: Grant, headers: Mapping[str, str]) -> Admission | None:
    """The caller's admission where nothing need be looked up now; else None: then `admit` has to.

    place: settings, store and base of the context to be. Never older than a fresh look would give: the register is as young as the setting asks.
    """
    held: Held | None = spec.memo[HELD].get(id(grant)) if HELD in spec.memo else None
    if held is None or GLASS in headers or PURPOSE in headers:
        return None
    now = time.monotonic()
    young = now - held.consents.at < place[0].consent_seconds and now < held.until and aliases.young(place[1])
    return held.admission if young and _same(held, grant, place, held.consents, int(time.time()) // 60) else None


def _same(held: Held, grant: Grant, place: tuple[Settings, Store, str], found: Register, minute: int) -> bool:
    """What it was made of is as it was. Grants are compared by identity: a token's is made anew each minute at the latest."""
    settings, store, base = held.place
    return (
        held.grant is grant
        and settings is place[0]
        and store is place[1]
        and base == place[2]
        and held.consents is found
        and held.generation == (found.generation, aliases.generation(store))
        and (held.minute == minute or not found.consents)
    )


async def admit(ctx: Context, headers: Mapping[str, str] = NO_HEADERS) -> Context:
    """The context of a caller as far as the store has to say. Raises Refusal 400 (a malformed header), 403 (the glass is not the caller's to break)."""
    await aliases.renewed(ctx.store)
    if ctx.grant.internal or not ctx.grant.rights:
        return ctx
    lasting = GLASS not in headers and PURPOSE not in headers
    if any(reference.normal(right.who, ctx.base).startswith(f"{RELATED}/") for right in ctx.grant.rights):
        rights = [replace(right, who=await _patient_of(ctx, reference.normal(right.who, ctx.base))) for right in ctx.grant.rights]
        ctx, lasting = replace(ctx, grant=replace(ctx.grant, rights=tuple(rights))), False
    if not enforced(ctx):
        return replace(ctx, admission=_held(ctx, UNRULED, consent.Caller(frozenset(), ctx.grant.client, frozenset()), "").admission)
    purposes = _purposes(ctx, headers)
    reason = _emergency(ctx, headers, purposes)
    if reason:
        return replace(ctx, admission=Admission(_nothing, purposes, reason, ctx.grant))
    found = await register(ctx)
    user = reference.normal(ctx.grant.user, ctx.base)
    refs = await belongs(ctx, found, user) if found.actors else frozenset({user})
    caller = consent.Caller(refs, ctx.grant.client, frozenset(purposes))
    if lasting:
        return replace(ctx, admission=_held(ctx, found, caller, user).admission)
    return replace(ctx, admission=Admission(_Withheld(ctx, found, caller), purposes, grant=ctx.grant))


def _held(ctx: Context, found: Register, caller: consent.Caller, user: str) -> Held:
    """What is remembered of the caller, made anew where something changed."""
    memo: dict[int, Held] = ctx.spec.memo.setdefault(HELD, {})
    place, minute = (ctx.settings, ctx.store, ctx.base), int(ctx.now.timestamp()) // 60
    until = found.users[user][1] + BELONGS_SECONDS if found.actors and user else math.inf
    held = memo.get(id(ctx.grant))
    if held is not None and held.caller == caller and _same(held, ctx.grant, place, found, minute):
        held = replace(held, until=until)
    else:
        withheld = _nothing if found is UNRULED else _Withheld(ctx, found, caller)
        admission = Admission(withheld, ctx.grant.purposes, grant=ctx.grant)
        generation = (found.generation, aliases.generation(ctx.store))
        held = Held(ctx.grant, place, found, generation, minute, until, caller, admission)
    if len(memo) >= MOST_HELD:
        memo.clear()
    memo[id(ctx.grant)] = held
    return held


def _nothing(rtype: str) -> Clause:
    """Nothing is withheld from who breaks the glass, and where consents and labels are not enforced."""
    return NOTHING


class _Withheld:
    """rtype -> what consents and labels keep from one caller; compiled once per caller, state of the consents and day."""

    def __init__(self, ctx: Context, found: Register, caller: consent.Caller) -> None:
        self.ctx, self.found, self.caller = ctx, found, caller
        self.own = _own(ctx)
        self.cleared = _cleared(ctx, bool(self.own))
        whose = {reference.normal(right.who, ctx.base) for right in ctx.grant.rights if right.level != CLEARANCE}
        only = all(one.startswith("Patient/") for one in whose)
        self.whose = frozenset(same for one in whose for same in aliases.same(ctx.store, one)) if only else None

    def __call__(self, rtype: str) -> Clause:
        memo: dict[object, Clause] = self.ctx.spec.memo.setdefault(MEMO, {})
        moment = self.ctx.now.replace(second=0, microsecond=0) if self.found.consents else None
        known = aliases.generation(self.ctx.store)
        key = (id(self.found), self.found.generation, known, self.caller, self.own, self.whose, self.cleared, self.ctx.base, rtype, moment)
        if key not in memo:
            if len(memo) >= MOST_MEMO:
                memo.clear()
            memo[key] = self._clause(rtype)
        return memo[key]

    def _clause(self, rtype: str) -> Clause:
        rows = self._concerned()
        consents = _merged([consent.withheld(self.ctx, one, self.caller, rtype) for one in rows])
        return either(aliases.merged(self.ctx, rtype, consents), labels.above(self.ctx.spec, rtype, self.cleared))

    def _concerned(self) -> list[Resource]:
        """The consents that may matter: of patients whom the grant reaches, but not of the patient who asks."""
        return [one for one in self.found.consents.values() if self._reaches(consent.patient_of(one, self.ctx.base))]

    def _reaches(self, patient: str) -> bool:
        return patient not in aliases.same(self.ctx.store, self.own) and (self.whose is None or patient in self.whose)


def _merged(parts: list[Clause]) -> Clause:
    """`either`, with the patients and ids of all parts in one list each: thousands of consents make a clause of three parts."""
    flat = [one for part in parts for one in (part.parts if isinstance(part, Or) else (part,))]
    patients = [value for one in flat if isinstance(one, Patient) for value in one.values]
    ids = [value for one in flat if isinstance(one, Ids) for value in one.values]
    keys = [value for one in flat if isinstance(one, Keys) for value in one.values]
    rest = [one for one in flat if not isinstance(one, Patient | Ids | Keys)]
    lists = [kind(tuple(dict.fromkeys(values))) for kind, values in ((Patient, patients), (Ids, ids), (Keys, keys)) if values]
    return either(*lists, *rest)


def _own(ctx: Context) -> str:
    """'Patient/1' if the caller is that patient and nobody else: an app of the patient's own, or the patient as user. '' for staff and family."""
    user = reference.normal(ctx.grant.user, ctx.base)
    whose = {reference.normal(right.who, ctx.base) for right in ctx.grant.rights if right.level != CLEARANCE}
    (only,) = whose if len(whose) == 1 else ("",)
    return only if only.startswith("Patient/") and user in ("", only) else ""


def _cleared(ctx: Context, own: bool) -> labels.Clearance:
    words = frozenset(right.who for right in ctx.grant.rights if right.level == CLEARANCE)
    lay = own or reference.normal(ctx.grant.user, ctx.base).startswith((f"{RELATED}/", "Patient/"))
    return labels.clearance("V" if own else ctx.settings.clearance, words, lay=lay)


def _purposes(ctx: Context, headers: Mapping[str, str]) -> tuple[str, ...]:
    """The purposes of use: as the token states them (the header may choose among those), else as the header does."""
    text = headers.get(PURPOSE, "")
    asked = tuple(part.strip() for part in text.split(",")) if text else ()
    if not all(CODE.fullmatch(one) for one in asked):
        raise bad_request("X-Purpose-Of-Use: codes of ActReason, separated by commas")
    if ctx.grant.purposes and not set(asked) <= {*ctx.grant.purposes, *EMERGENCIES}:
        raise forbidden("X-Purpose-Of-Use: the token is for other purposes")
    return asked or ctx.grant.purposes


def _emergency(ctx: Context, headers: Mapping[str, str], purposes: tuple[str, ...]) -> str:
    """The reason for breaking the glass, '' if it stays whole."""
    reason = headers.get(GLASS, "").strip()
    if not reason and not (EMERGENCIES & set(purposes)):
        return ""
    if not REASON_CHARS[0] <= len(reason) <= REASON_CHARS[1] or not reason.isprintable():
        raise bad_request(f"X-Break-Glass: a reason of {REASON_CHARS[0]} to {REASON_CHARS[1]} characters is needed")
    clinician = reference.normal(ctx.grant.user, ctx.base).startswith(CLINICIANS)
    if not (clinician and ctx.settings.break_glass):
        raise forbidden("only a practitioner may break the glass, and only where FHIR_BREAK_GLASS allows it")
    return reason


async def _patient_of(ctx: Context, who: str) -> str:
    """The patient that a RelatedPerson acts for ('' if none, or not now); any other reference as it is."""
    kind, _, rid = who.partition("/")
    if kind != RELATED:
        return who
    stored = await ctx.store.get(kind, rid)
    res = stored.res if stored is not None else None
    if res is None or res.get("active") is False or not consent.in_period(res.get("period"), ctx.now, unreadable=False):
        return ""
    found = res.get("patient")
    patient = reference.normal(str(found.get("reference", "")), ctx.base) if isinstance(found, dict) else ""
    return patient if patient.startswith("Patient/") else ""
