"""Mutations made from the StructureDefinitions: for a sound resource, every rule that one change can break, and where the gate must say so.

drop: a required element is removed; exceed: a single element becomes an array; type: a value becomes another JSON kind; form: a primitive gets a form
that its type does not allow; binding: a required code becomes one of no value set; target: a reference points at a type that is not allowed;
unknown: an element gets a property that it does not have; choice: a second type of a choice is added; empty: an element becomes empty.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from conformance.spec import Element, Spec

BAD_FORMS: dict[str, Any] = {
    "base64Binary": "a*b",
    "boolean": "true",
    "canonical": "a b",
    "code": " x",
    "date": "2020-02-30",
    "dateTime": "2020-01-01T10:00:00",
    "decimal": "1.5",
    "id": "a_b",
    "instant": "2020-01-01",
    "integer": 2**31,
    "markdown": "",
    "oid": "urn:oid:3.1",
    "positiveInt": 0,
    "string": "",
    "time": "25:00:00",
    "unsignedInt": -1,
    "uri": "a b",
    "url": "a b",
    "uuid": "urn:uuid:X",
}


@dataclass(frozen=True)
class Mutation:
    """One broken copy: what was done, the path at which (or below whose parent) an error must stand, and the resource."""

    kind: str
    path: str
    res: dict[str, Any]


def mutations(spec: Spec, res: dict[str, Any]) -> Iterator[Mutation]:
    """Every mutation of one resource (resources inside it are left alone)."""
    yield from _object(spec, res, res, res["resourceType"], res["resourceType"], ())


def _object(spec: Spec, root: Any, value: dict[str, Any], content: str, path: str, trail: tuple[Any, ...]) -> Iterator[Mutation]:
    yield _changed("unknown", root, trail, lambda held: held.update({"nonsense": "x"}), f"{path}.nonsense")
    for key, (element, code) in spec.properties(content).items():
        if key not in value or code == "xhtml":
            continue
        place = f"{path}.{element.name}"
        yield from _property(spec, root, value, key, element, code, place, trail)
        held = value[key]
        inner = element.content or (code if code in spec.datatypes else "")
        if inner and code != "Resource":
            for index, each in enumerate(held) if isinstance(held, list) else ((None, held),):
                at, here = ((key,), place) if index is None else ((key, index), f"{place}[{index}]")
                if isinstance(each, dict):
                    yield from _object(spec, root, each, inner, here, (*trail, *at))


def _property(
    spec: Spec, root: Any, value: dict[str, Any], key: str, element: Element, code: str, place: str, trail: tuple[Any, ...]
) -> Iterator[Mutation]:
    many = isinstance(value[key], list)
    first = f"{place}[0]" if many else place
    if element.min > 0 and f"_{key}" not in value:
        yield _changed("drop", root, trail, lambda held: held.pop(key), place)
    if not many:
        yield _changed("exceed", root, trail, lambda held: held.update({key: [held[key], held[key]]}), place)
    else:
        yield _changed("empty", root, trail, lambda held: held.update({key: []}), place)
    if many and f"_{key}" in value:
        return
    put = _putter(key, many)
    yield _changed("type", root, trail, put({"nonsense": 1} if code in spec.primitives else "x"), first)
    if code in BAD_FORMS:
        yield _changed("form", root, trail, put(BAD_FORMS[code]), first)
    if element.binding and element.binding[0] == "required" and spec.codes(element.binding[1]):
        bad = {
            "code": "no-such-code",
            "CodeableConcept": {"coding": [{"system": "urn:x:y", "code": "zz"}]},
            "Coding": {"system": "urn:x:y", "code": "zz"},
        }
        if code in bad:
            yield _changed("binding", root, trail, put(bad[code]), first)
    if code == "Reference" and element.targets and "Resource" not in element.targets:
        other = next(name for name in ("Basic", "Schedule", "Slot") if name not in element.targets)
        yield _changed("target", root, trail, put({"reference": f"{other}/1"}), first)
    if element.choice:
        rest = next((each for each in element.types if element.name + each[0].upper() + each[1:] != key), None)
        if rest:
            added = element.name + rest[0].upper() + rest[1:]
            sample = {"boolean": True, "integer": 1, "decimal": Decimal("1.5")}.get(rest, "2020-01-01" if rest in spec.primitives else {"id": "x"})
            yield _changed("choice", root, trail, lambda held: held.update({added: sample}), place)


def _putter(key: str, many: bool) -> Any:
    def put(bad: Any) -> Any:
        def change(held: dict[str, Any]) -> None:
            if many:
                held[key][0] = bad
            else:
                held[key] = bad

        return change

    return put


def _changed(kind: str, root: Any, trail: tuple[Any, ...], change: Any, path: str) -> Mutation:
    res = copy.deepcopy(root)
    held = res
    for step in trail:
        held = held[step]
    change(held)
    return Mutation(kind, path, res)
