"""Numbers that were replaced, by a merge or a change: they stay on the resource as `use: old`, whatever later messages say. Pure.

A message under a replaced number lands on the resource that stands for it now; its number must neither push out the current one nor
become current again. The state document of a resource lists its replaced numbers: {old: [Identifier with use 'old']}.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Resource = dict[str, Any]


def identity_of(identifier: Mapping[str, Any]) -> tuple[str, str]:
    """System and value of an Identifier."""
    return str(identifier.get("system", "")), str(identifier.get("value", ""))


def named_by(keys: Iterable[str]) -> set[str]:
    """'system|value' of identity keys 'Type|system|value'."""
    return {key.partition("|")[2] for key in keys}


def aged(identifiers: Sequence[Resource], names: Iterable[str]) -> list[Resource]:
    """Those of the identifiers that are named 'system|value', as old ones; a name without an identifier becomes one."""
    known = {"|".join(identity_of(one)): one for one in identifiers}
    found = []
    for name in sorted(names):
        system, _, value = name.rpartition("|")
        found.append({**known.get(name, {"system": system, "value": value}), "use": "old"})
    return found


def remembering(state: Mapping[str, Any], old: Iterable[Resource]) -> dict[str, Any]:
    """The state with these replaced numbers besides those it has."""
    rows = {identity_of(one): one for one in [*state.get("old", ()), *old]}
    return {**state, "old": list(rows.values())}


def forgetting(state: Mapping[str, Any], names: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The state without these replaced numbers: a merge is undone."""
    gone = set(names)
    return {**state, "old": [one for one in state.get("old", ()) if identity_of(one) not in gone]}


def current_only(sent: Resource, state: Mapping[str, Any] | None) -> Resource:
    """What a message says without the numbers that were replaced."""
    old = {identity_of(one) for one in (state or {}).get("old", ())}
    if not old or "identifier" not in sent:
        return sent
    rest = [one for one in sent["identifier"] if identity_of(one) not in old]
    others = {name: value for name, value in sent.items() if name != "identifier"}
    return {**others, "identifier": rest} if rest else others


def with_old(res: Resource, state: Mapping[str, Any] | None) -> Resource:
    """The resource with its replaced numbers behind the current ones."""
    rows = (state or {}).get("old", ())
    if not rows:
        return res
    old = {identity_of(one) for one in rows}
    return {**res, "identifier": [*(one for one in res.get("identifier", []) if identity_of(one) not in old), *rows]}
