"""One parameter of a query (name, value) -> its condition: plain parameters, modifiers, chains, `_has`. https://hl7.org/fhir/R4/search.html"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from conformance.outcome import Refusal, bad_request, not_supported, too_costly
from conformance.spec import Param, Spec
from fhir_server.query.clauses import EVERYTHING, NOTHING, Clause, Ids, Keys, Prefix, Range, Updated, both, either, negated
from fhir_server.search.asked import Asked
from fhir_server.search.escape import split, unescape
from fhir_server.search.kin import related
from fhir_server.search.plan import AllOf, AnyOf, Chain, Has, Listed, Node
from fhir_server.search.schema import Field, elements_of, part_fields, schema
from fhir_server.search.table import PREFIXED, allows
from fhir_server.search.types import composite, date, fulltext, number, quantity, reference, special, string, token, uri

Valued = Callable[[Asked, str], Clause]
TEXTUAL = ("_text", "_content")
RANGED, MOST_RANGES = ("date", "number", "quantity", "composite"), 100  # each of their values is several scans
OWN = ("_id", "_lastUpdated", "_list", "_type", *TEXTUAL)
OWN_MODIFIED = {("_id", "not"), ("_id", "missing"), ("_lastUpdated", "missing")}
NEEDED = {"of-type": "Identifier", "identifier": "Reference"}  # modifier -> what some element must be
ILLEGAL = re.compile(r"(?<!\\)(?:\\\\)*\\(?![\\,|$])")  # https://hl7.org/fhir/R4/search.html#escaping: `xx\xx` is illegal
MEMO, MEMO_DATES = "search.conditions", "search.dates"
MOST_REMEMBERED = (100, 5000)  # characters of a value, conditions
PASSING = frozenset({"_lastUpdated", "in", "not-in", "above", "below"})  # what the moment or terminology decides


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds on one query; settings name them."""

    parameters: int = 200
    values: int = 1000
    depth: int = 8
    codes: int = 5000


@dataclass(slots=True)
class Budget:
    """What one query may still ask for: steps through references (a chain without a type takes one for each type it may mean)."""

    steps: int = 100

    def step(self, name: str) -> None:
        """One more step of a chain. Raises 400."""
        self.steps -= 1
        if self.steps < 0:
            raise too_costly(
                f"search parameter '{short(name)}': the chains of this search go through too many types; name them (subject:Patient.name)"
            )


@dataclass(frozen=True, slots=True)
class Reading:
    """What conditions are read with."""

    spec: Spec
    terms: Any
    base: str
    now: datetime
    limits: Limits
    budget: Budget = field(default_factory=Budget)


def condition(reading: Reading, rtype: str, name: str, value: str, depth: int = 0) -> Node:
    """The condition of one (name, value) on type `rtype`. Raises Refusal 400 naming the parameter."""
    if depth + name.count(".") > reading.limits.depth:
        raise too_costly(f"search parameter '{short(name)}': chains of more than {reading.limits.depth} steps are not answered")
    if name.startswith("_has:"):
        return _has(reading, rtype, name, value, depth)
    if "." in name:
        return _chain(reading, rtype, name, value, depth)
    asked = ask(reading, rtype, name)
    if asked.modifier == "missing":
        return missing(asked, value)
    if "\\" in value and ILLEGAL.search(value):
        raise asked.wrong("a backslash stands only before a backslash, comma, bar or dollar sign")
    values = split(value, ",")
    most = min(reading.limits.values, MOST_RANGES) if asked.field.type in RANGED else reading.limits.values
    if len(values) > most:
        raise too_costly(f"search parameter '{short(name)}': more than {most} values are not answered")
    _kept_to_definition(asked, values)
    if asked.field.type == "reference" and asked.modifier in ("above", "below"):
        return joined_any([related(asked, one) for one in values])
    if asked.field.code == "_list":
        return AnyOf(tuple(_listed(asked, one) for one in values))
    made = [valued(asked, one) for one in values]
    return both(*made) if asked.modifier in ("not", "not-in") else either(*made)


def short(name: str) -> str:
    """A parameter's name as an error may repeat it."""
    return name if len(name) <= 80 else name[:77] + "..."


def ask(reading: Reading, rtype: str, name: str) -> Asked:
    """The question behind a name without chain. Raises 400 for an unknown parameter or a modifier it does not take."""
    code, mark, modifier = name.partition(":")
    field = schema(reading.spec, rtype).fields.get(code) or _own_field(reading.spec, rtype, code)
    if field is None:
        raise not_supported(f"search parameter '{short(name)}' is not known for {rtype}")
    kind = "string" if code in TEXTUAL else field.type
    if mark and not modifier:
        raise bad_request(f"search parameter '{short(name)}': a modifier must follow the colon")
    if not allows(kind, modifier, reading.spec.types) or (code in OWN and modifier and (code, modifier) not in OWN_MODIFIED):
        raise not_supported(f"search parameter '{short(name)}': parameters of type {field.type} do not take this modifier here")
    if modifier and not _fitting(reading.spec, field, modifier):
        raise not_supported(f"search parameter '{short(name)}': its elements do not take this modifier")
    if modifier and not _defined(reading.spec, field.param, modifier):
        raise not_supported(f"search parameter '{short(name)}': its definition does not name this modifier")
    return Asked(name, field, modifier, rtype, reading.spec, reading.terms, reading.base, reading.now, reading.limits.codes)


def _fitting(spec: Spec, field: Field, modifier: str) -> bool:
    """The elements of the parameter have what the modifier asks for: identifiers for `:of-type`, references for `:identifier`, targets of that type."""
    needed = NEEDED.get(modifier)
    if needed is not None:
        kinds = elements_of(spec, field.param)
        return not kinds or needed in kinds
    return field.type != "reference" or modifier not in spec.types or modifier in reference.allowed(spec, field)


def _defined(spec: Spec, param: Param, modifier: str) -> bool:
    """The definition names the modifier, or none at all (https://hl7.org/fhir/R4/searchparameter-definitions.html#SearchParameter.modifier)."""
    spelt = "type" if modifier in spec.types else "ofType" if modifier == "of-type" else modifier
    return not param.modifiers or bool({spelt, modifier} & set(param.modifiers))


def _kept_to_definition(asked: Asked, values: list[str]) -> None:
    """Raises 400 for a prefix, or a list, that the parameter's definition does not allow."""
    param = asked.field.param
    if len(values) > 1 and not param.multiple_or and asked.field.type != "composite":  # those of R4 say so, and its text allows them all the same
        raise asked.unsupported("its definition allows one value only")
    if asked.field.type in PREFIXED and param.comparators:
        for text in values:
            if text[:2] in number.PREFIXES and text[:2] not in ("eq", *param.comparators):
                raise asked.unsupported(f"its definition does not name the prefix '{text[:2]}'")


def _own_field(spec: Spec, rtype: str, code: str) -> Field | None:
    """Parameters that are not extracted by an expression."""
    if code not in OWN or code == "_type":
        return None
    kind = {"_id": "token", "_lastUpdated": "date"}.get(code, "special")
    return Field(code, kind, spec.param(rtype, code) or Param(code, kind, "", (rtype,), ""), (code,))


def valued(asked: Asked, text: str) -> Clause:
    """What one value of the parameter means."""
    own = _OWN_VALUES.get(asked.field.code)
    if own is not None:
        return own(asked, text)
    if asked.field.type == "composite":
        return composite.clause(asked, text, part_fields(asked.spec, asked.field))
    return _VALUES[asked.field.type](asked, text)


def _id(asked: Asked, text: str) -> Clause:
    wanted = unescape(text)
    if not wanted:
        raise asked.wrong("the value is empty")
    found = Ids((wanted,)) if reference.ID.fullmatch(wanted) else NOTHING
    return negated(found) if asked.modifier == "not" else found


def _last_updated(asked: Asked, text: str) -> Clause:
    low, high, outside = date.updated(asked, text)
    return negated(Updated(low, high)) if outside else Updated(low, high)


def _near(asked: Asked, text: str) -> Clause:
    if asked.field.code != "near":
        raise asked.unsupported("this special parameter is not answered")
    return special.near(asked, text)


_OWN_VALUES: dict[str, Valued] = {"_id": _id, "_lastUpdated": _last_updated, "_text": fulltext.text_search, "_content": fulltext.text_search}
_VALUES: dict[str, Valued] = {
    "token": token.clause,
    "string": string.clause,
    "reference": reference.clause,
    "uri": uri.clause,
    "date": date.clause,
    "number": number.clause,
    "quantity": quantity.clause,
    "special": _near,
}


def missing(asked: Asked, value: str) -> Clause:
    """`:missing=true|false`."""
    if value not in ("true", "false"):
        raise asked.wrong("the value must be true or false")
    present = presence(asked)
    return negated(present) if value == "true" else present


def presence(asked: Asked) -> Clause:
    """The parameter has some value."""
    field = asked.field
    if field.code in ("_id", "_lastUpdated"):
        return EVERYTHING
    if field.type == "reference":
        return reference.present(field)
    if field.type == "composite":
        return _composite_presence(field)
    if field.type == "special":
        raise asked.unsupported("':missing' is not answered for it")
    return either(*(one for name in field.names for one in _PRESENCE[field.type](name)))


def _composite_presence(field: Field) -> Clause:
    if any(part.type in composite.RANGED for part in field.parts):
        raise not_supported(f"search parameter '{field.code}': ':missing' is not answered for composites with a number, quantity or date")
    return either(*(Prefix(f"{name}=") for name in field.names))


_PRESENCE: dict[str, Callable[[str], tuple[Clause, ...]]] = {
    "token": lambda name: (Prefix(f"{name}="),),
    "string": lambda name: (Prefix(f"{name}~"),),
    "uri": lambda name: (Prefix(f"{name}="),),
    "date": lambda name: (Keys((f"{name}=",)), *(Range(name + suffix) for suffix in ("", "+m", "+y", date.OPEN))),
    "number": lambda name: (Keys((f"{name}=",)), Range(name), Range(name + "+")),
    "quantity": lambda name: (Keys((f"{name}=",)), Range(name), Range(name + "+")),
}


def _listed(asked: Asked, text: str) -> Node:
    rid = unescape(text).removeprefix("List/")
    if rid.startswith("$"):
        raise asked.unsupported("functional lists are not answered")
    return Listed(rid, asked.rtype) if reference.ID.fullmatch(rid) else NOTHING


def _chain(reading: Reading, rtype: str, name: str, value: str, depth: int) -> Node:
    """`subject:Patient.name=x`. https://hl7.org/fhir/R4/search.html#chaining"""
    head, _, rest = name.partition(".")
    asked = ask(reading, rtype, head)
    field = asked.field
    if field.type != "reference" or asked.modifier in ("missing", "identifier", "above", "below"):
        raise not_supported(f"search parameter '{short(name)}': only references can be chained")
    targets = [one for one in reference.allowed(reading.spec, field) if asked.modifier in ("", one)]
    first = rest.split(":", 1)[0].split(".", 1)[0]
    if not rest.startswith("_has:"):
        known = [one for one in targets if first in schema(reading.spec, one).fields or first in OWN]
        if not known:
            raise not_supported(f"search parameter '{short(name)}': no type that '{short(head)}' may point at has the parameter '{short(first)}'")
        targets = known
    nodes: list[Node] = []
    refused: list[Refusal] = []
    for target in targets:
        try:
            nodes.append(_step(reading, rtype, name, field, target, rest, value, depth))
        except Refusal as refusal:  # what one of the types does not have, another may; a value of the wrong form is none for any
            if any(issue.code != "not-supported" for issue in refusal.issues):
                raise
            refused.append(refusal)
    if not nodes:
        raise refused[0]
    return AnyOf(tuple(nodes))


def _step(reading: Reading, source: str, name: str, field: Field, target: str, rest: str, value: str, depth: int) -> Chain:
    reading.budget.step(name)
    return Chain(source, field, target, condition(reading, target, rest, value, depth + 1))


def _has(reading: Reading, rtype: str, name: str, value: str, depth: int) -> Node:
    """`_has:Observation:patient:code=x`. https://hl7.org/fhir/R4/search.html#has"""
    pieces = name.split(":", 3)
    if len(pieces) != 4 or not all(pieces):
        raise bad_request(f"search parameter '{short(name)}': the form is _has:Type:reference:parameter")
    _, source, code, rest = pieces
    if source not in reading.spec.types:
        raise not_supported(f"search parameter '{short(name)}': '{short(source)}' is not a resource type")
    field = schema(reading.spec, source).fields.get(code)
    if field is None or field.type != "reference":
        raise not_supported(f"search parameter '{short(name)}': '{short(code)}' is not a reference parameter of {source}")
    if rtype not in reference.allowed(reading.spec, field):
        raise not_supported(f"search parameter '{short(name)}': '{short(code)}' of {source} does not point at {rtype}")
    return Has(source, field, rtype, condition(reading, source, rest, value, depth + 1))


Pair = tuple[str, str]


def conditions(reading: Reading, rtype: str, pairs: list[Pair]) -> Node:
    """All pairs together. Bounds on a date that a resource has at most once are merged, so that one range is scanned, not two."""
    nodes: list[Node] = []
    dates: dict[str, tuple[date.Bounds, ...]] = {}
    once: set[str] = set()
    for name, value in pairs:
        field = schema(reading.spec, rtype).fields.get(name)
        if field is not None and not field.param.multiple_and and name in once:
            raise not_supported(f"search parameter '{short(name)}': its definition allows it only once")
        once.add(name)
        if field is None or field.type != "date" or not field.single or len(value) > 400:
            nodes.append(_remembered(reading, rtype, name, value))
            continue
        asked = ask(reading, rtype, name)
        values = split(value, ",")
        _kept_to_definition(asked, values)
        found = tuple(bounds for one in values for bounds in date.wanted(asked, one))
        if name not in dates:
            dates[name] = found
        elif len(dates[name]) * len(found) <= 64:
            dates[name] = date.merged(dates[name], found)
        else:
            nodes.append(date.of(field, found))
    nodes += [_dates(reading, rtype, name, found) for name, found in dates.items()]
    return joined(nodes)


def _remembered(reading: Reading, rtype: str, name: str, value: str) -> Node:
    """`condition` of one short value, made once where it is a plain clause that depends on neither the moment nor terminology: codes and patients repeat."""
    if len(value) > MOST_REMEMBERED[0] or "," in value or name.rpartition(":")[2] in PASSING or name in PASSING:
        return condition(reading, rtype, name, value)
    memo: dict[tuple[str, str, str, str], Node] = reading.spec.memo.setdefault(MEMO, {})
    key = (reading.base, rtype, name, value)
    found = memo.get(key)
    if found is None:
        found = condition(reading, rtype, name, value)
        field = schema(reading.spec, rtype).fields.get(name)
        if isinstance(found, Clause) and (field is None or field.type not in ("date", "composite")):
            _remember(memo, key, found)
    return found


def _dates(reading: Reading, rtype: str, name: str, found: tuple[date.Bounds, ...]) -> Clause:
    """The clause of bounds on a date, made once: days repeat."""
    memo: dict[tuple[str, str, tuple[date.Bounds, ...]], Clause] = reading.spec.memo.setdefault(MEMO_DATES, {})
    key = (rtype, name, found)
    made = memo.get(key)
    if made is None:
        made = date.of(schema(reading.spec, rtype).fields[name], found)
        _remember(memo, key, made)
    return made


def _remember(memo: dict[Any, Any], key: Any, made: Any) -> None:
    if len(memo) >= MOST_REMEMBERED[1]:
        memo.clear()
    memo[key] = made


def joined_any(nodes: list[Node]) -> Node:
    """The disjunction; a plain clause if all are."""
    clauses = [node for node in nodes if isinstance(node, Clause)]
    return either(*clauses) if len(clauses) == len(nodes) else AnyOf(tuple(nodes))


def joined(nodes: list[Node]) -> Node:
    """The conjunction; the plain clauses of it become one."""
    clauses = [node for node in nodes if isinstance(node, Clause)]
    others = [node for node in nodes if not isinstance(node, Clause)]
    plain = both(*clauses)
    return plain if not others else AllOf((plain, *others))


def restrict(asked: Asked, modifier: str) -> Asked:
    """The same question with another modifier."""
    return replace(asked, modifier=modifier)
