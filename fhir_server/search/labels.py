"""Profiles, tags and security labels in use, of what the caller may see: what `$meta` tells of a type and of everything.

https://hl7.org/fhir/R4/resource-operation-meta.html. The distinct ones come from the keys of the index documents. Keys are folded, so each is spelt
as one of the resources that have it spells it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from conformance.outcome import too_costly
from fhir_server.context import Context
from fhir_server.query.clauses import NOTHING, Clause, Keys, Prefix, both, negated
from fhir_server.search.types import token, uri

Resource = dict[str, Any]
Visible = Callable[[str], Clause]
LABELS = {"profile": "_profile", "security": "_security", "tag": "_tag"}  # element of Meta -> its search parameter
MOST = 1000  # of one element and type


async def in_use(ctx: Context, rtypes: Iterable[str], visible: Visible) -> Resource:
    """The Meta of these types: profile, security and tag, each value once. Raises 400 too-costly for more than MOST of one kind."""
    found: dict[str, dict[str, Any]] = {name: {} for name in LABELS}
    for rtype in rtypes:
        if visible(rtype) != NOTHING:
            for name in LABELS:
                found[name] |= await _of(ctx, rtype, name, visible(rtype))
    return {name: [values[key] for key in sorted(values)] for name, values in found.items() if values}


async def _of(ctx: Context, rtype: str, name: str, visible: Clause) -> dict[str, Any]:
    """Key -> value of one element of Meta."""
    head = f"{LABELS[name]}="
    keys = [key for key in await ctx.store.refs(rtype, both(Prefix(head), visible), [head], 2 * MOST) if "|" in key or (name == "profile" and key)]
    if len(keys) > MOST:
        raise too_costly(f"more than {MOST} values of meta.{name} are in use by {rtype}")
    found: dict[str, Any] = {}
    for key in keys:
        if key in found:
            continue
        versions = any(other.startswith(key + "|") for other in keys)  # then the bare url is also the key of what names a version
        alone = negated(Prefix(f"{head}{key}|")) if versions else both()
        for row in await ctx.store.find(rtype, both(Keys((head + key,)), alone, visible), limit=1):
            found |= {own: value for own, value in _spelt(name, row.res or {}) if own in keys and own not in found}
    return found


def _spelt(name: str, res: Resource) -> Iterator[tuple[str, Any]]:
    """(key, value) of the values of a resource, each by the longest of its keys."""
    for value in res.get("meta", {}).get(name, ()):
        forms = uri.forms(value) if name == "profile" else token.forms(value, True, False)
        yield max(forms, key=len), value
