"""Tokens: codes, identifiers, contact points, booleans. https://hl7.org/fhir/R4/search.html#token

Stored in `k`: 'code=718-7' (any system), 'code=http://loinc.org|718-7', and for a token without system 'code=|718-7' instead; elements of
type code only 'status=final' (their system is implied); 'code=' where an element has neither. In `t`: 'code~glucose in blood' for :text.
Codes are compared without case, except in systems known to be case-sensitive; identifiers, codes of type `code` and ids exactly.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from fhir_server.query.clauses import NOTHING, Clause, Keys, Prefix, Text, either, negated
from fhir_server.search.asked import Asked, Emit, Out
from fhir_server.search.escape import split, unescape
from fhir_server.search.fold import fold
from fhir_server.search.schema import Field

SENSITIVE = ("http://hl7.org/fhir/", "http://terminology.hl7.org/", "http://unitsofmeasure.org")
CONTACT = frozenset(("phone", "fax", "email", "pager", "url", "sms", "other"))
NO_CODE = ("",)
PLAIN = {True: "true", False: "false"}


def comparable(code: str, system: str, folded: bool) -> str:
    """The code as it is compared in its system."""
    return code if not folded or system.startswith(SENSITIVE) else code.lower()


def escaped(text: str) -> str:
    """A part of a key, so that '|' only ever separates."""
    return text.replace("\\", "\\\\").replace("|", "\\|") if "|" in text or "\\" in text else text


def key(name: str, system: str | None, code: str, folded: bool) -> str:
    """The exact key of a token; system None: any system, '': none."""
    if system is None:
        return f"{name}={escaped(code.lower() if folded else code)}"
    return f"{name}={escaped(system)}|{escaped(comparable(code, system, folded))}"


def forms(value: Any, folded: bool, implied: bool) -> Sequence[str]:
    """What stands behind 'name=' for one value: every form that a query may ask for; [''] if it has no code."""
    make = _forms_kept if type(value) is dict and ("coding" in value or "code" in value) else _forms_of  # codes come again, identifiers do not
    pairs = _codes(value)
    if len(pairs) == 1:
        return make(*pairs[0], folded, implied)
    return [form for system, code in pairs for form in make(system, code, folded, implied)] or NO_CODE


def _forms_of(system: str, code: str, folded: bool, implied: bool) -> tuple[str, ...]:
    bare = escaped(code.lower() if folded else code)
    return (bare,) if implied else (bare, f"{escaped(system)}|{escaped(comparable(code, system, folded))}")


_forms_kept = lru_cache(8192)(_forms_of)


def _codes(value: Any) -> list[tuple[str, str]]:
    """(system, code) pairs of a token-like value; system '' if it has none."""
    if not isinstance(value, dict):
        return [("", PLAIN[value] if isinstance(value, bool) else str(value))]
    if "coding" in value:
        return [(each.get("system", ""), each["code"]) for each in value["coding"] if each.get("code")]
    if value.get("code"):
        return [(value.get("system", ""), value["code"])]
    if value.get("value") and isinstance(value["value"], str):
        return [(value.get("use", "") if value.get("system") in CONTACT else value.get("system", ""), value["value"])]
    return []


def texts(value: dict[str, Any]) -> list[str]:
    """CodeableConcept.text, Coding.display or Identifier.type.text."""
    found = [value["text"]] if value.get("text") else []
    for each in value.get("coding", ()):
        if each.get("display"):
            found.append(each["display"])
    if value.get("display"):
        found.append(value["display"])
    kind = value.get("type")
    if isinstance(kind, dict) and kind.get("text"):
        found.append(kind["text"])
    return found


def emitter(name: str, field: Field) -> Emit:
    """Writes the keys and texts of the values of a parameter."""
    folded, implied = field.folded, field.systems is not None
    head, text_head = f"{name}=", f"{name}~"

    def emit(values: list[Any], out: Out) -> None:
        k = out.k
        for value in values:
            for form in forms(value, folded, implied):
                k[head + form] = None
            if type(value) is dict:
                for text in texts(value):
                    out.t[text_head + fold(text)] = None
                if "type" in value and "value" in value:
                    _emit_typed(name, value, k)

    return emit


def _emit_typed(name: str, identifier: dict[str, Any], k: dict[str, None]) -> None:
    """Keys of `:of-type`: 'identifier:of-type=system|code|value'."""
    kind = identifier["type"]
    for each in kind.get("coding", ()) if isinstance(kind, dict) else ():
        if each.get("code") and each.get("system"):
            k[typed_key(name, each["system"], each["code"], str(identifier["value"]))] = None


def typed_key(name: str, system: str, code: str, value: str) -> str:
    """The key of one identifier with one of its types."""
    return f"{name}:of-type={escaped(system)}|{escaped(code)}|{escaped(value)}"


def clause(asked: Asked, text: str) -> Clause:
    """What one value means, `:not` and `:not-in` included (the caller joins several values of `:not` with AND)."""
    made = _MODIFIED[asked.modifier](asked, text)
    return negated(made) if asked.modifier in ("not", "not-in") else made


def _plain(asked: Asked, text: str) -> Clause:
    pieces = [unescape(piece) for piece in split(text, "|", 1)] if "\\" in text else text.split("|", 1)
    if pieces == [""] or pieces == ["", ""]:
        raise asked.wrong("the value is empty")
    if asked.field.contact and len(pieces) > 1:  # https://hl7.org/fhir/R4/search.html#token: the bar SHALL NOT be used there
        raise asked.wrong("contact points have no system: only the value is asked for, without '|'")
    system, code = (None, pieces[0]) if len(pieces) == 1 else (pieces[0], pieces[1])
    return either(*(_one(asked.field, name, system, code) for name in asked.field.names))


def _one(field: Field, name: str, system: str | None, code: str) -> Clause:
    if field.systems is not None and system is not None:  # the system of an element of type code is implied
        if system and system not in field.systems:
            return NOTHING
        return Keys((key(name, None, code, field.folded),)) if code else Prefix(f"{name}=")
    if system is not None and not code:
        return Prefix(f"{name}={escaped(system)}|")
    return Keys((key(name, system, code, field.folded),))


def codes_clause(field: Field, codes: Iterable[tuple[str | None, str]]) -> Clause:
    """Any of these (system, code) pairs."""
    return either(*(_one(field, name, system, code) for system, code in codes for name in field.names))


def _text(asked: Asked, text: str) -> Clause:
    wanted = fold(unescape(text))
    if not wanted:
        raise asked.wrong("the text is empty")
    return either(*(Text(f"{name}~{wanted}") for name in asked.field.names))


def _of_type(asked: Asked, text: str) -> Clause:
    pieces = [unescape(piece) for piece in split(text, "|")]
    if len(pieces) != 3 or not all(pieces):
        raise asked.wrong("the value must be system|code|value, all three present")
    return Keys(tuple(typed_key(name, *pieces) for name in asked.field.names))


def _in_valueset(asked: Asked, text: str) -> Clause:
    return codes_clause(asked.field, expansion(asked, {"url": unescape(text)}))


def _hierarchy(asked: Asked, text: str) -> Clause:
    if asked.modifier == "below" and asked.field.mime:
        return _mime(asked, unescape(text))
    pieces = [unescape(piece) for piece in split(text, "|", 1)] if "\\" in text else text.split("|", 1)
    if len(pieces) != 2 or not all(pieces):
        raise asked.wrong("the value must be system|code")
    system, code = pieces
    return codes_clause(asked.field, [(system, code), *related(asked, system, code, asked.modifier)])


def _mime(asked: Asked, wanted: str) -> Clause:
    """A MIME type with any parameters, or all of a kind: 'text/xml', 'text'. https://hl7.org/fhir/R4/search.html#mimetype"""
    if not wanted:
        raise asked.wrong("the value is empty")
    marks = (";", " ;") if "/" in wanted else ("/",)
    heads = [f"{name}={escaped(wanted)}" for name in asked.field.names]
    return either(Keys(tuple(heads)), *(Prefix(head + mark) for head in heads for mark in marks))


def expansion(asked: Asked, parameters: dict[str, Any]) -> list[tuple[str, str]]:
    """(system, code) pairs of a value set, given by `url` or `valueSet`. Raises 400 if it is unknown or has more than `max_codes` members."""
    if asked.terms is None:
        raise asked.unsupported("no terminology service is available")
    found = asked.terms.members(parameters, asked.max_codes + 1)
    if found is None:
        raise asked.wrong("the value set is not known or cannot be expanded")
    if len(found) > asked.max_codes:
        raise asked.unsupported(f"the value set has more than {asked.max_codes} codes")
    return list(found)


def related(asked: Asked, system: str, code: str, direction: str) -> list[tuple[str, str]]:
    """Codes `below` (descendants) or `above` (ancestors) a code. Raises 400 if the system or code is unknown or there are too many."""
    op, wanted = ("descendent-of", code) if direction == "below" else ("generalizes", code)
    valueset = {
        "resourceType": "ValueSet",
        "status": "active",
        "compose": {"include": [{"system": system, "filter": [{"property": "concept", "op": op, "value": wanted}]}]},
    }
    return expansion(asked, {"valueSet": valueset})


_MODIFIED = {
    "": _plain,
    "not": _plain,
    "text": _text,
    "of-type": _of_type,
    "in": _in_valueset,
    "not-in": _in_valueset,
    "above": _hierarchy,
    "below": _hierarchy,
}
