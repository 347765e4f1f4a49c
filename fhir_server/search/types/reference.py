"""References. https://hl7.org/fhir/R4/search.html#reference

Stored in `k`: 'performer=Practitioner/1' (relative; absolute ones to this server become relative), 'focus=http://other/Patient/1';
'definition=http://x/y' for canonicals, and beside it 'definition=http://x/y|2', or 'definition=http://x/y|' for one that names no version;
'subject:identifier=system|value' for logical ones; 'subject=' where there is neither. The one patient of a resource stands in `p` instead.
"""

import re
from typing import Any

from conformance.spec import Spec
from fhir_server.query.clauses import NOTHING, Clause, Contained, Contains, HasPatient, Keys, Patient, Prefix, both, either
from fhir_server.search.asked import Asked, Emit, Out
from fhir_server.search.escape import split, unescape
from fhir_server.search.schema import Field
from fhir_server.search.types import token

ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|#")
MAX_TYPES = 200
STOP = "\x01"
BY, INLINE = "^", "^"  # '^medication': a contained resource that this parameter of its container points at; '^Composition': one of a Bundle's entries


def normal(text: str, base: str) -> str:
    """A literal reference as it is stored: relative to `base` where it is ours, without a version."""
    if base and text.startswith(base) and text[len(base) : len(base) + 1] == "/":
        text = text[len(base) + 1 :]
    at = text.find("/_history/")
    return text if at < 0 else text[:at]


def targets(value: Any, base: str) -> list[str]:
    """What stands behind 'name=' for one Reference, canonical or uri; [] for one to a contained resource or without literal reference."""
    text = value if isinstance(value, str) else value.get("reference") if isinstance(value, dict) else None
    if not isinstance(text, str) or not text or text.startswith("#"):
        return []
    if isinstance(value, str) and "|" in text:
        return [text, text.split("|", 1)[0]]
    return [normal(text, base)]


def emitter(name: str, base: str, *, patient: bool = False, member: bool = False) -> Emit:
    """Writes the keys of the values of a parameter. patient: the first patient is kept in `p` instead; member: whom it names, the resource belongs
    to the compartments of.
    """
    head, logical = f"{name}=", f"{name}:identifier="

    def refer(target: str, out: Out) -> None:
        if (patient or member) and target.startswith("Patient/"):
            if patient and out.patient in ("", target):
                out.patient = target
                return
            if member:
                out.members[target] = None
        out.k[head + target] = None

    def emit(values: list[Any], out: Out) -> None:
        for value in values:
            if type(value) is dict and "resourceType" in value:  # Bundle.entry.resource and the like
                refer(f"{value['resourceType']}/{value.get('id', '')}", out)
                out.held.append((name, value))
                continue
            found = targets(value, base)
            for target in found:
                refer(target, out)
            if found and type(value) is str and ":" in value and "|" not in value:
                out.k[f"{head}{value}|"] = None
            identifier = value.get("identifier") if type(value) is dict else None
            if isinstance(identifier, dict):
                for form in token.forms(identifier, False, False):
                    out.k[logical + form] = None
            if not found:
                out.k[head] = None
                inside = value.get("reference") if type(value) is dict else value
                if isinstance(inside, str) and len(inside) > 1 and inside[0] == "#":
                    out.held.append((name, inside[1:]))

    return emit


def within(field: Field, source: str, target: str, clause: Clause) -> Clause:
    """The parameter points at a resource inside its own: a contained one, or the first of a document or message (Bundle.entry[0].resource)."""
    wanted = both(Keys(tuple(BY + name for name in field.names)), clause)
    return either(Contained(target, wanted), Contained(INLINE + target, wanted) if source == "Bundle" else NOTHING)


def to(field: Field, refs: tuple[str, ...]) -> Clause:
    """Any of these stored forms ('Patient/1', 'http://other/x')."""
    keys: list[str] = []
    patients: tuple[str, ...] = ()
    if field.patient:
        patients = tuple(ref for ref in refs if ref.startswith("Patient/"))
        refs = tuple(ref for ref in refs if not ref.startswith("Patient/"))
    keys += [f"{name}={ref}" for name in field.names for ref in refs]
    return either(Patient(patients) if patients else NOTHING, Keys(tuple(keys)) if keys else NOTHING)


def present(field: Field) -> Clause:
    """The parameter has a value."""
    patient = HasPatient() if field.patient else NOTHING
    if field.only:
        own = (Prefix(f"{name}={field.only}/") for name in field.names)
        foreign = (Contains(f"{name}=http", f"/{field.only}/", STOP) for name in field.names)
        return either(patient, *own, *foreign)
    return either(patient, *(Prefix(f"{name}{mark}") for name in field.names for mark in ("=", ":identifier=")))


def allowed(spec: Spec, field: Field) -> tuple[str, ...]:
    """Resource types the parameter may point at, in order."""
    if field.only:
        return (field.only,)
    named = [one for one in field.param.targets if one in spec.types]
    return tuple(sorted(named or spec.types))


def clause(asked: Asked, text: str) -> Clause:
    """What one value means: id, type/id, url or canonical; `:identifier`; `:Patient` and the like (`search/kin.py` has `:above` and `:below`)."""
    wanted = unescape(text)
    if not wanted:
        raise asked.wrong("the value is empty")
    if asked.modifier == "identifier":
        pieces = [unescape(piece) for piece in split(text, "|", 1)]
        system, code = (None, pieces[0]) if len(pieces) == 1 else (pieces[0], pieces[1])
        if not code:
            return either(*(Prefix(f"{name}:identifier={token.escaped(system or '')}|") for name in asked.field.names))
        return Keys(tuple(token.key(f"{name}:identifier", system, code, False) for name in asked.field.names))
    return to(asked.field, tuple(dict.fromkeys(candidates(asked, wanted))))


def candidates(asked: Asked, wanted: str) -> list[str]:
    """Stored forms that the value may mean. Raises 400 where it is no reference."""
    kinds = (asked.modifier,) if asked.modifier else allowed(asked.spec, asked.field)
    if "/" not in wanted and ":" not in wanted and "|" not in wanted:
        if not ID.fullmatch(wanted):
            raise asked.wrong("the value is neither an id nor a reference")
        return [f"{kind}/{wanted}" for kind in kinds[:MAX_TYPES]]
    found = normal(wanted, asked.base)
    head, _, tail = found.partition("/")
    if head in asked.spec.types:
        if not ID.fullmatch(tail):
            raise asked.wrong("the value is not a reference of the form type/id")
        stored = [found] if found == wanted else [found, wanted]  # an absolute one may have been stored under another name of this server
        return stored if head in kinds or not (asked.field.only or asked.modifier) else []
    if not ABSOLUTE.match(found):
        raise asked.wrong("the value must be an id, a type with an id, or an absolute URI")
    if asked.field.only or asked.modifier:
        return [found] if f"/{asked.field.only or asked.modifier}/" in found else []
    return [found]
