"""The active privacy consents and what users belong to, kept in each process and renewed from the store at most once in `FHIR_CONSENT_SECONDS`.

A consent written anywhere counts everywhere after that time; who writes one waits as long before it is answered (`settled`), so that its answer
is the promise. A deletion is noticed by the number of consents; then, and once in FULL_SECONDS, all are read again.
"""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from weakref import WeakKeyDictionary

from fhir_server.context import Context, Resource
from fhir_server.query.clauses import EVERYTHING, Clause, Updated, either
from fhir_server.search import parse
from fhir_server.search.shelved import unshelved
from fhir_server.search.types import reference
from fhir_server.security import consent
from fhir_server.store import Store

CONSENT = "Consent"
OVERLAP = timedelta(seconds=90)  # a transaction may commit so long after it was stamped
FULL_SECONDS = 60.0
BELONGS_SECONDS = 5.0
MOST_USERS = 5000
PAGE = 500
BELONGS = {"PractitionerRole": "practitioner", "CareTeam": "participant", "Group": "member"}


@dataclass(slots=True)
class Register:
    """consents: by id; ids: of all Consents, also those that do not count; actors: some of them name actors; generation: grows with each change; at: when it was last renewed (monotonic), whole: when from all consents."""

    consents: dict[str, Resource] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)
    actors: bool = False
    generation: int = 0
    newest: datetime | None = None
    at: float = -1e9
    whole: float = -1e9
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: dict[str, tuple[frozenset[str], float]] = field(default_factory=dict)


_REGISTERS: WeakKeyDictionary[Store, Register] = WeakKeyDictionary()


async def register(ctx: Context) -> Register:
    """The register of this store, not older than the setting allows. Raises Refusal 503 if the store cannot say."""
    found = _REGISTERS.setdefault(unshelved(ctx.store), Register())
    if time.monotonic() - found.at < ctx.settings.consent_seconds:
        return found
    async with found.turn:
        started = time.monotonic()
        if started - found.at >= ctx.settings.consent_seconds:
            await _renew(ctx, found, started)
            found.at = started
    return found


async def settled(ctx: Context, rtypes: Iterable[str]) -> None:
    """Returns when what was just written of these types counts in every process."""
    if CONSENT in rtypes and enforced(ctx):
        _REGISTERS.setdefault(unshelved(ctx.store), Register()).at = -1e9
        await asyncio.sleep(ctx.settings.consent_seconds)


def enforced(ctx: Context) -> bool:
    """True if consents and labels rule what callers are shown."""
    return ctx.settings.consent == "enforce" or (ctx.settings.consent == "auto" and ctx.settings.auth == "smart")


async def _renew(ctx: Context, found: Register, started: float) -> None:
    whole = started - found.whole >= FULL_SECONDS
    before = found.consents
    if not whole and found.newest is not None:
        now, ids = dict(before), set(found.ids)
        await _read(ctx, found, Updated(ge=found.newest - OVERLAP), now, ids)
        whole = await ctx.store.count(CONSENT, EVERYTHING) != len(ids)
    if whole or found.newest is None:
        now, ids = {}, set()
        await _read(ctx, found, EVERYTHING, now, ids)
        found.whole = started
    found.ids = ids
    if now != before:
        found.consents = now
        found.actors = any("'actor'" in str(one.get("provision", "")) for one in now.values())
        found.generation += 1


async def _read(ctx: Context, found: Register, clause: Clause, now: dict[str, Resource], ids: set[str]) -> None:
    """Enter the Consents that match, page by page."""
    after: tuple[object, ...] = ()
    while True:
        rows = await ctx.store.find(CONSENT, clause, limit=PAGE, after=after)
        for row in rows:
            ids.add(row.rid)
            now.pop(row.rid, None)
            if row.res is not None and consent.counts(row.res) and consent.patient_of(row.res, ctx.base):
                now[row.rid] = row.res
            found.newest = row.at if found.newest is None else max(found.newest, row.at)
        if len(rows) < PAGE:
            return
        after = rows[-1].position


async def belongs(ctx: Context, found: Register, user: str) -> frozenset[str]:
    """The user and what it belongs to: its active roles, their organizations, its care teams and groups."""
    if not user:
        return frozenset()
    refs, at = found.users.get(user, (frozenset[str](), -1e9))
    if time.monotonic() - at < BELONGS_SECONDS:
        return refs
    known = {user}
    for rtype, code in BELONGS.items():
        clause = either(*(parse.criteria(ctx, rtype, [(code, ref)]) for ref in sorted(known) if _allowed(ctx, rtype, code, ref)))
        for row in await ctx.store.find(rtype, clause, limit=PAGE):
            if row.res is not None and row.res.get("active", True):
                known |= {f"{rtype}/{row.rid}", reference.normal(str((row.res.get("organization") or {}).get("reference", "")), ctx.base)}
        known.discard("")
    if len(found.users) >= MOST_USERS:
        found.users.clear()
    found.users[user] = frozenset(known), time.monotonic()
    return frozenset(known)


def _allowed(ctx: Context, rtype: str, code: str, ref: str) -> bool:
    param = ctx.spec.param(rtype, code)
    return param is not None and ref.partition("/")[0] in param.targets
