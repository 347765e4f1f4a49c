"""read and vread. https://hl7.org/fhir/R4/http.html#read, #vread, #cread"""

import re

from conformance.outcome import gone, not_found, refuse
from fhir_server.context import Context, Reply, Request, Resource
from fhir_server.interactions.access import covered, known, quiet, sees
from fhir_server.interactions.headers import stamps, unchanged
from fhir_server.interactions.steps import checked_id, no_query
from fhir_server.search.bundle import trimmer
from fhir_server.search.parse import parse
from fhir_server.security.visible import required
from fhir_server.store import Stored

TRIMMING = ("_summary", "_elements")
VID = re.compile(r"[1-9][0-9]{0,8}")


async def read(ctx: Context, request: Request) -> Reply:
    """GET [type]/[id]. Raises 404, 410; answers 304 to a conditional read of what did not change."""
    rtype, rid = request.path
    clause = required(ctx, rtype, "r")
    stored = await ctx.store.get(rtype, checked_id(rid))
    if stored is None or not await covered(ctx, clause, stored):
        await quiet(ctx, clause)
        raise not_found(rtype, rid)
    if stored.res is None:
        raise gone(rtype, rid)
    return _shown(ctx, request, stored)


async def vread(ctx: Context, request: Request) -> Reply:
    """GET [type]/[id]/_history/[vid]. Raises 404, 410 for the version that is a deletion.

    The caller must be allowed to see both the resource as it is (or last was) and this version of it.
    """
    rtype, rid, _, vid = request.path
    now = await known(ctx, rtype, checked_id(rid))
    stored = now if str(now.vid) == vid else await _version(ctx, now, vid)
    if stored is None or (stored.res is not None and not sees(ctx, "r", stored)):
        raise refuse("not-found", f"{rtype}/{rid} has no such version")
    if stored.res is None:
        raise gone(rtype, rid)
    return _shown(ctx, request, stored)


async def _version(ctx: Context, now: Stored, vid: str) -> Stored | None:
    if not VID.fullmatch(vid):
        return None
    return await ctx.store.version(now.rtype, now.rid, int(vid))


def _shown(ctx: Context, request: Request, stored: Stored) -> Reply:
    headers = stamps(stored)
    if unchanged(request.headers, stored):
        return Reply(304, None, headers)
    res = stored.res or {}
    return Reply(200, trimmed(ctx, stored.rtype, res, request) if request.query else res, headers)


def trimmed(ctx: Context, rtype: str, res: Resource, request: Request) -> Resource:
    """What `_summary` and `_elements` leave (https://hl7.org/fhir/R4/http.html#summary); other parameters are refused, or ignored if lenient."""
    wanted = [pair for pair in request.query if pair[0] in TRIMMING]
    if len(wanted) < len(request.query) and ctx.prefer.get("handling") != "lenient":
        no_query(Request(request.method, request.path, tuple(pair for pair in request.query if pair[0] not in TRIMMING)))
    return trimmer(ctx.spec, parse(ctx, rtype, wanted))(res)
