"""After the last segment: references set, equal practitioners, organisations and places made one, what R4 requires filled in.

What a resource must have and the message does not say comes from tables/defaults.csv, each with its reason there.
"""

import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from mappers.v2 import repair
from mappers.v2.place import Scope
from mappers.v2.run import Draft, Element, Run
from mappers.v2.tables import Default, Ref

_SHARED_ORDER = ("Organization", "Location", "Practitioner", "Device", "Medication", "PractitionerRole")
FOUND_BY_IDENTIFIER = frozenset({"Patient", "Practitioner", "Organization", "Location", "Encounter", "Account", "Specimen", "Appointment"})


def link(run: Run, draft: Draft, target: str, scope: Scope, refs: tuple[Ref, ...]) -> None:
    """Set the references of a message row."""
    linked, find = run.linked, scope.find
    for ref in refs:
        left, right = ref.left, ref.right
        one = draft if left == target else find(left)
        if one is None:
            continue
        other = draft if right == target else find(right)
        if other is None or one is other or (ref.alone and not scope.only(right)):
            continue
        key = (one.url, ref.path, other.url)
        if key not in linked:
            linked.add(key)
            _set(run, one.res, ref.steps, other)


def _set(run: Run, node: Element, steps: tuple[tuple[str, bool], ...], other: Draft) -> None:
    """`subject`, `result[]`, `diagnosis[].condition`: a list gets one more member; what refers already stays."""
    name, many = steps[0]
    if len(steps) == 1:
        if many:
            node.setdefault(name, []).append(run.refer(other))
        elif name not in node:
            node[name] = run.refer(other)
        return
    rest = steps[1:]
    if many:
        node.setdefault(name, []).append({rest[0][0]: run.refer(other)})
    else:
        _set(run, node.setdefault(name, {}), rest, other)


def finish(run: Run) -> list[Draft]:
    """The drafts that become entries, in the order they were begun."""
    gone: set[int] = set()
    shared = [draft for draft in run.drafts if draft.shared]
    for rtype in _SHARED_ORDER:
        _unify([draft for draft in shared if draft.res["resourceType"] == rtype], gone)
    for draft in shared:
        _once(draft.res)
    kept = [draft for draft in run.drafts if id(draft) not in gone and (len(draft.res) > 1 or draft.nulls)]
    defaults = run.tables.defaults
    for draft in kept:
        rows = defaults.get(draft.res["resourceType"])
        if rows:
            _fill(draft, rows)
        repair.repair(run, draft)
    return kept


def _unify(drafts: list[Draft], gone: set[int]) -> None:
    first: dict[Any, Draft] = {}
    for draft in drafts:
        key = _key(draft.res)
        found = first.get(key)
        if found is None:
            first[key] = draft
            continue
        if found is draft:
            continue
        for name, value in draft.res.items():
            kept = found.res.setdefault(name, value)
            if type(kept) is list and kept is not value:
                kept.extend(member for member in value if member not in kept)
        for reference in draft.refs:
            reference["reference"] = found.url
        found.refs.extend(draft.refs)
        gone.add(id(draft))


def _once(res: Element) -> None:
    """List members that several segments gave alike stand once."""
    for name, value in res.items():
        if type(value) is list and len(value) > 1:
            res[name] = [member for place, member in enumerate(value) if member not in value[:place]]


def _key(res: Element) -> Any:
    """What makes two shared resources of one message the same: identifier with system, else all of the content."""
    for identifier in res.get("identifier", []):
        if identifier.get("system") and identifier.get("value"):
            return identifier["system"], identifier["value"], repr(res.get("name"))
    return repr({name: value for name, value in res.items() if name != "id"})


def _fill(draft: Draft, rows: Iterable[Default]) -> None:
    res = draft.res
    for row in rows:
        if not row.path:
            found: Iterable[Element] = (res,)
        elif row.path[0].removesuffix("[]") not in res:
            continue
        else:
            found = _nodes(res, row.path)
        for node in found:
            if row.known.isdisjoint(node):
                node[row.names[0]] = json.loads(row.value)
                if node is res:
                    draft.assumed.add(row.names[0])


def _nodes(node: Element, path: tuple[str, ...]) -> Iterator[Element]:
    if not path:
        yield node
        return
    name = path[0]
    if name.endswith("[]"):
        for member in node.get(name[:-2], []):
            yield from _nodes(member, path[1:])
    elif name in node:
        yield from _nodes(node[name], path[1:])


def criteria(res: Element) -> str:
    """If-None-Exist of an entry that is known by its first identifier with system and value (of a type FOUND_BY_IDENTIFIER), '' for all others."""
    for identifier in res.get("identifier", []):
        system, value = identifier.get("system"), identifier.get("value")
        if system and value:
            return f"identifier={_quoted(system)}%7C{value if value.isascii() and value.isalnum() else quote(value, safe='.-_')}"
    return ""


@lru_cache(maxsize=1024)
def _quoted(system: str) -> str:
    return quote(system, safe=":/.-_")
