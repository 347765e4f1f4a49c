"""Composites: several values of one element. https://hl7.org/fhir/R4/search.html#composite

Every base element (the resource itself, or each component) is stored apart, so parts never match across elements. Parts that are keys only: `k` holds
'code-value-concept=8480-6$123'; with a number, quantity or date the other parts become the key of the range: {k: 'code-value-quantity=8480-6$', l: 120}.
A second range of the same element is `n` of the first.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from conformance.path import search_path
from conformance.spec import Spec
from fhir_server.query.clauses import NOTHING, Clause, Keys, Prefix, Range, either
from fhir_server.search.asked import Asked, Out
from fhir_server.search.escape import split
from fhir_server.search.schema import Field, Part, branches
from fhir_server.search.types import date, number, quantity, reference, string, token, uri

RANGED = ("number", "quantity", "date")
Evaluate = Callable[..., list[Any]]


def _evaluator(spec: Spec, part: Part, bases: tuple[str, ...]) -> Evaluate:
    """The closure `run(element, resource)` of a component; bases: the paths of the elements it starts at."""
    element = spec.element(bases[0])
    context = bases[0] if element is None or "." not in bases[0] else element.content or element.types[0]
    return search_path(part.expression, context=context, spec=spec)


def _forms(field: Field, value: Any, base: str) -> list[str]:
    if field.type == "token":
        return [form for form in token.forms(value, field.folded, field.systems is not None) if form]
    if field.type == "reference":
        return reference.targets(value, base)
    if field.type == "string":
        return [string.form(text) for text in string.strings(value)]
    return uri.forms(value)


def _shapes(kind: str, value: Any, out: Out) -> Sequence[tuple[Any, ...]]:
    """(what follows the key, low, high, units) of one value of a part."""
    if kind == "quantity":
        return quantity.shapes_once(value, out)
    if kind == "date":
        found = date.interval_of(value)
        return [] if found is None else [(date.width(*found), *found)]
    bounds = number.interval(value)
    return [] if bounds is None else [("", *bounds, None)]


def _entry(kind: str, key: str, shape: Any) -> dict[str, Any]:
    return {"k": key + shape[0], "l": shape[1], "h": shape[2]} if kind == "date" else number.entry(key + shape[0], *shape[1:])


def _ordered(field: Field) -> list[int]:
    """Positions of the key-like parts, a string last (it may be continued)."""
    return sorted((at for at, part in enumerate(field.parts) if part.type not in RANGED), key=lambda at: field.parts[at].type == "string")


def emitter(name: str, field: Field, parts: tuple[Field, ...], spec: Spec, base: str) -> Callable[[list[Any], Out, dict[str, Any]], None]:
    """Writes keys or ranges of the base elements; `parts` are the fields of the components."""
    bases = branches(field.param.expression)
    evaluators = [_evaluator(spec, part, bases) for part in field.parts]
    keyed = _ordered(field)
    ranged = [at for at, part in enumerate(field.parts) if part.type in RANGED]

    def emit(elements: list[Any], out: Out, res: dict[str, Any]) -> None:
        for element in elements:
            found = _found(evaluators, element, res)
            if not found:
                continue
            forms = [[escape(form) for value in found[at] for form in _forms(parts[at], value, base)] for at in keyed]
            choices = ["$".join(choice) for choice in product(*forms)] if len(forms) != 1 else forms[0]
            if ranged:
                _emit_ranges(name, choices, [(parts[at].type, found[at]) for at in ranged], out)
            else:
                for choice in choices:
                    out.k[f"{name}={choice}"] = None

    return emit


def escape(form: str) -> str:
    """A part of a composite's key, so that '$' only ever separates."""
    return form.replace("$", "\\$") if "$" in form else form


def _found(evaluators: Sequence[Evaluate], element: Any, res: dict[str, Any]) -> list[list[Any]]:
    """The values of all parts; [] if one has none."""
    found = []
    for evaluate in evaluators:
        values = evaluate(element, res)
        if not values:
            return []
        found.append(values)
    return found


def _emit_ranges(name: str, choices: Sequence[str], ranged: list[tuple[str, list[Any]]], out: Out) -> None:
    """An element of `r` for each key and value of the range part; for each value of a second such part, too."""
    kind, values = ranged[0]
    firsts = [shape for value in values for shape in _shapes(kind, value, out)]
    seconds = [_entry(other, "", shape) for other, others in ranged[1:] for value in others for shape in _shapes(other, value, out)]
    for choice in choices:
        for shape in firsts:
            made = _entry(kind, f"{name}={choice}$", shape)
            if len(ranged) == 1:
                out.r.append(made)
            else:
                out.r += [{**made, "n": {"l": one["l"], "h": one.get("h", one["l"])}} for one in seconds]


def clause(asked: Asked, text: str, parts: tuple[Field, ...]) -> Clause:
    """One value, 'part$part': all parts match within one element."""
    pieces = split(text, "$")
    if len(pieces) != len(parts):
        raise asked.wrong(f"the value must have {len(parts)} parts separated by '$'")
    keyed = _ordered(asked.field)
    wanted = [_wanted_forms(asked, parts[at], pieces[at]) for at in keyed]
    if not all(wanted):
        return NOTHING
    keys = [f"{name}={'$'.join(choice)}" for name in asked.field.names for choice in product(*wanted)]
    ranged = [(parts[at], pieces[at]) for at, part in enumerate(parts) if part.type in RANGED]
    if ranged:
        return either(*(_ranged(asked, key + "$", ranged) for key in keys))
    if keyed and asked.field.parts[keyed[-1]].type == "string":
        return either(*(Prefix(key) for key in keys))
    return Keys(tuple(keys))


def part_of(asked: Asked, part: Field) -> Asked:
    """The question for one component."""
    return replace(asked, field=part, modifier="")


def _wanted_forms(asked: Asked, part: Field, text: str) -> list[str]:
    """What the key of the composite holds for this part: read off the keys of the part's own clause."""
    made = _KEYED[part.type](part_of(asked, part), text)
    if isinstance(made, Prefix) and part.type == "string":
        return [escape(made.text.removeprefix(f"{part.code}~"))]
    if isinstance(made, Keys):
        return [escape(value.removeprefix(f"{part.code}=")) for value in made.values]
    if made is NOTHING:
        return []
    raise asked.unsupported(f"part '{part.code}' needs a code, not only a system")


def _ranged(asked: Asked, key: str, ranged: list[tuple[Field, str]]) -> Clause:
    part, text = ranged[0]
    inner = part_of(asked, replace(part, names=(key,), hot=False))
    first = _RANGED[part.type](inner, text)
    if len(ranged) == 1:
        return first
    sought = number.wanted(ranged[1][1])
    if sought is None:
        raise asked.wrong("the last part must be a number with an optional prefix")
    seconds = [Range("", **bounds) for bounds in number.bounds_of(sought)]
    parts = first.parts if hasattr(first, "parts") else (first,)
    return either(*(replace(one, also=also) for one in parts if isinstance(one, Range) for also in seconds))


_KEYED: dict[str, Callable[[Asked, str], Clause]] = {"token": token.clause, "string": string.clause, "reference": reference.clause, "uri": uri.clause}
_RANGED: dict[str, Callable[[Asked, str], Clause]] = {"number": number.clause, "quantity": quantity.clause, "date": date.clause}
