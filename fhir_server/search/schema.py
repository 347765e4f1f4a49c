"""What is stored and queried per search parameter of a resource type: compiled once per type from the Spec.

Parameters that select the same elements share one stored name: `patient` is `subject` restricted to patients, `combo-code` is `code` and
`component-code` together. So an index document holds each fact once, whatever the number of parameters that ask for it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conformance.spec import Element, Param, Spec
from fhir_server.query.indexes import HOT
from fhir_server.search import custom

RESTRICTED = re.compile(r"(.+)\.where\(resolve\(\) is (\w+)\)")
CHOICE = re.compile(r"(?:\.(?:as|ofType)\(|\s+as\s+)(\w+)\)?$")
CHOSEN = re.compile(r"\s+as\s+\w+|\.(?:as|ofType)\(\w+\)")
STORED_APART = ("_id", "_lastUpdated", "_text", "_content", "_list", "_has", "_type", "_query", "_filter")
WHERE = re.compile(r"\.where\([^()]*\)$")
PHONETIC = "phonetic"
MIME_TYPES = "http://hl7.org/fhir/ValueSet/mimetypes"
BOOLEANS = "http://hl7.org/fhir/special-values"
EXACT_TYPES = frozenset(("Identifier", "code", "id", "uri", "url", "canonical", "oid", "boolean", "integer", "positiveInt"))


@dataclass(frozen=True, slots=True)
class Part:
    """One component of a composite: its expression below the base element, its type and the parameter that defines it."""

    expression: str
    type: str
    param: Param


@dataclass(frozen=True, slots=True)
class Field:
    """One search parameter of one type, as queries see it.

    names: stored names whose values it unites; only: the resource type a shared reference is restricted to ('' if none); single: every
    resource has at most one value, so that bounds given apart may be merged; hot: its low bound is `d`; patient: `p` holds its patient;
    codes: all its elements are of type code (whose system is implied), which systems those are; folded: tokens are compared
    without case where their system allows it (codings, strings and contact points; identifiers, codes and ids never); mime: its codes are MIME
    types; contact: its elements are contact points, which have no system; parts: of a composite.
    """

    code: str
    type: str
    param: Param
    names: tuple[str, ...]
    only: str = ""
    single: bool = False
    hot: bool = False
    patient: bool = False
    systems: frozenset[str] | None = None
    folded: bool = True
    mime: bool = False
    contact: bool = False
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """One stored name: what extraction evaluates. rooted: a composite over the resource itself."""

    name: str
    type: str
    expression: str
    field: Field


@dataclass(frozen=True, slots=True)
class Schema:
    """All parameters of a type and what is stored for them."""

    rtype: str
    fields: Mapping[str, Field]
    sources: tuple[Source, ...]
    patient: str  # stored name of the reference kept in `p`, '' if there is none
    date: str  # stored name of the date kept in `d`


def schema(spec: Spec, rtype: str) -> Schema:
    """The schema of a type, kept with the Spec."""
    memo: dict[str, Schema] = spec.memo.setdefault("search.schema", {})
    if rtype not in memo:
        memo[rtype] = _compile(spec, rtype)
    return memo[rtype]


def part_fields(spec: Spec, field: Field) -> tuple[Field, ...]:
    """The components of a composite as fields of their own, named after their parameters."""
    return tuple(
        Field(
            code=part.param.code,
            type=part.type,
            param=part.param,
            names=(part.param.code,),
            systems=_systems(spec, part.param) if part.type == "token" else None,
            folded=_folded(spec, part.param),
        )
        for part in field.parts
    )


def branches(expression: str) -> tuple[str, ...]:
    """The branches of a union at its top level, without the parentheses around them."""
    parts, depth, start, quoted = [], 0, 0, False
    for at, char in enumerate(expression):
        if char == "'":
            quoted = not quoted
        elif not quoted:
            depth += (char in "([") - (char in ")]")
            if char == "|" and depth == 0:
                parts.append(expression[start:at])
                start = at + 1
    return tuple(_bare(part.strip()) for part in [*parts, expression[start:]])


def _bare(text: str) -> str:
    while text.startswith("(") and text.endswith(")") and _closes_last(text):
        text = text[1:-1].strip()
    return text


def _closes_last(text: str) -> bool:
    depth = 0
    for at, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0:
            return at == len(text) - 1
    return False


Key = tuple[Any, ...]


def _identity(spec: Spec, rtype: str, param: Param) -> tuple[Key, str]:
    """(what it selects, the type it is restricted to)."""
    parts = branches(param.expression)
    found = [RESTRICTED.fullmatch(part) for part in parts]
    targets = {match.group(2) for match in found if match}
    if param.type == "reference" and all(found) and len(targets) == 1:
        return (param.type, tuple(match.group(1) for match in found if match)), targets.pop()
    if param.type == "composite":
        inner = tuple((part.expression, part.type) for part in _parts(spec, rtype, param))
        return ("composite", parts, inner), ""
    kind = PHONETIC if param.code == PHONETIC else param.type  # the same elements, stored otherwise
    return (kind, parts), ""


def _parts(spec: Spec, rtype: str, param: Param) -> tuple[Part, ...]:
    made = []
    for url, expression in param.components:
        defined = spec.param_at(url, rtype)
        if defined is None:
            return ()
        made.append(Part(expression, defined.type, defined))
    return tuple(made)


def _compile(spec: Spec, rtype: str) -> Schema:
    customs = custom.of(spec, rtype)
    known = {**spec.params(rtype), **{code: one.param for code, one in customs.items()}}
    params = {code: param for code, param in known.items() if code not in STORED_APART and param.expression}
    unready = {code for code, one in customs.items() if not one.ready}
    identities = {code: _identity(spec, rtype, param) for code, param in params.items()}
    names = _shared_names(params, identities)
    patient, date = _hot_names(params, names, rtype)
    fields: dict[str, Field] = {}
    for code, param in params.items():
        mine, only = names[code]
        fields[code] = Field(
            code=code,
            type=param.type,
            param=param,
            names=mine,
            only=only,
            single=_single(spec, param),
            hot=bool(date) and mine == (date,) and param.type == "date",
            patient=bool(patient) and patient in mine and only in ("", "Patient"),
            systems=_systems(spec, param) if param.type == "token" else None,
            folded=_folded(spec, param),
            mime=_mime(spec, param),
            contact=_contact(spec, param),
            parts=_parts(spec, rtype, param) if param.type == "composite" else (),
        )
    sources = tuple(
        Source(code, field.type, " | ".join(identities[code][0][1]), field) for code, field in sorted(fields.items()) if code in field.names
    )
    return Schema(rtype, {code: field for code, field in fields.items() if code not in unready}, sources, patient, date)


def _shared_names(params: Mapping[str, Param], identities: Mapping[str, tuple[Key, str]]) -> dict[str, tuple[tuple[str, ...], str]]:
    """code -> (stored names, restriction)."""
    owners: dict[Key, str] = {}
    for code in sorted(params, key=lambda code: (bool(identities[code][1]), len(code), code)):
        owners.setdefault(identities[code][0], code)
    found = {}
    for code in params:
        key, only = identities[code]
        pieces = _pieces(key, owners) if owners[key] == code else (owners[key],)
        found[code] = (pieces or (code,), only)
    for code, (mine, only) in found.items():  # an owner that was itself split into pieces
        found[code] = (tuple(dict.fromkeys(name for owner in mine for name in found[owner][0])), only)
    return found


def _pieces(key: Key, owners: Mapping[Key, str]) -> tuple[str, ...]:
    """Stored names that together select the same, () if there are none: 'combo-code' is 'code' and 'component-code'."""
    wanted = key[1]
    if len(wanted) < 2:
        return ()
    left, used = list(wanted), []
    for other, owner in sorted(owners.items(), key=lambda item: -len(item[0][1])):
        if other[0] == key[0] and other[2:] == key[2:] and len(other[1]) < len(wanted) and all(part in left for part in other[1]):
            used.append(owner)
            left = [part for part in left if part not in other[1]]
    return tuple(sorted(used)) if not left else ()


def _hot_names(params: Mapping[str, Param], names: Mapping[str, tuple[tuple[str, ...], str]], rtype: str) -> tuple[str, str]:
    date = HOT.get(rtype)
    if date is None or "patient" not in params:
        return "", ""
    patient = names["patient"][0][0]
    return patient, names[date][0][0] if date in names else ""


def _single(spec: Spec, param: Param) -> bool:
    """At most one value per resource: one path (choices of one element count as one) whose elements all have a maximum of 1."""
    found = [RESTRICTED.fullmatch(part) for part in branches(param.expression)]
    paths = {CHOSEN.sub("", match.group(1) if match else part) for match, part in zip(found, branches(param.expression))}
    return len(paths) == 1 and _element_single(spec, paths.pop())


def _element_single(spec: Spec, path: str) -> bool:
    steps = path.split(".")
    elements = [spec.element(".".join(steps[: at + 1])) or spec.element(".".join(steps[: at + 1]) + "[x]") for at in range(1, len(steps))]
    return all(element is not None and element.max == 1 for element in elements)


def _systems(spec: Spec, param: Param) -> frozenset[str] | None:
    """The code systems implied for elements of type code or boolean (https://hl7.org/fhir/R4/search.html#token); None if any element is of another type."""
    systems: set[str] = set()
    for part in branches(param.expression):
        element = spec.element(part)
        if element is None or element.types not in (("code",), ("boolean",)):
            return None
        codes = spec.codes(element.binding[1]) if element.binding else None
        systems |= {BOOLEANS} if element.types == ("boolean",) else set(codes or ())
    return frozenset(systems)


def _mime(spec: Spec, param: Param) -> bool:
    elements = [_element(spec, part) for part in branches(param.expression)] if param.type == "token" else []
    return bool(elements) and all(one is not None and one.binding is not None and one.binding[1].startswith(MIME_TYPES) for one in elements)


def _contact(spec: Spec, param: Param) -> bool:
    elements = [_element(spec, WHERE.sub("", part)) for part in branches(param.expression)] if param.type == "token" else []
    return bool(elements) and all(one is not None and one.types == ("ContactPoint",) for one in elements)


def elements_of(spec: Spec, param: Param) -> frozenset[str]:
    """The types of the elements that a parameter selects; none if R4 does not say (extensions, elements chosen by a condition)."""
    found = [_selected(spec, part) for part in branches(param.expression)]
    return frozenset().union(*found) if all(found) else frozenset()


def _selected(spec: Spec, part: str) -> frozenset[str]:
    restricted = RESTRICTED.fullmatch(part)
    path = restricted.group(1) if restricted else part
    chosen = CHOICE.search(path)
    element = _element(spec, path)
    return frozenset({chosen.group(1)}) if chosen else frozenset(element.types) if element is not None else frozenset()


def _element(spec: Spec, path: str) -> Element | None:
    """The element of a plain path, also through data types ('DocumentReference.content.attachment.contentType')."""
    owner, *steps = path.split(".")
    element = None
    for step in steps:
        element = spec.children(owner).get(step) if owner in spec.types or owner in spec.datatypes or "." in owner else None
        if element is None or (len(element.types) > 1 and step != steps[-1]):
            return None
        owner = element.content or element.types[0]
    return element


def _folded(spec: Spec, param: Param) -> bool:
    """False if every element is of a type whose values are exact."""
    elements = [spec.element(part) for part in branches(param.expression)]
    return not all(element is not None and set(element.types) <= EXACT_TYPES for element in elements)
