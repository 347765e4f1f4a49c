"""A resource -> its index document (query/clauses.py says what stands in it). Compiled once per type; docs/search.md has the stored forms."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from conformance.path import search_path
from conformance.spec import Spec, is_resource
from fhir_server.query.clauses import Index
from fhir_server.query.indexes import HOT, UNIVERSAL
from fhir_server.search import canonical
from fhir_server.search.asked import Emit, Out
from fhir_server.search.schema import Schema, Source, branches, part_fields, schema
from fhir_server.search.types import composite, date, number, quantity, reference, special, string, token, uri

Resource = dict[str, Any]
Step = Callable[[Resource, Out], None]
Evaluate = Callable[[Resource], list[Any]]
Extract = Callable[..., Index]
MOST_NARROWED = 5000
MOST_BASES = 32  # that are kept compiled, the latest: each tenant has its own, and on loopback the base is what the client called it
MEMBER = "@"  # '@Patient/1': a member of this patient's compartment other than by `p`
DATE, PATIENT = "d", "p"  # in `narrowed`: the hot date, the patient reference


def extractor(spec: Spec, terms: Any = None, base: str = "") -> Extract:
    """The function `extract(res, prose_of(res)) -> Index`; the second argument may be left out. terms: not needed now (UCUM is always there); base: own
    base URL if configured.
    """
    memo: dict[str, Extract] = spec.memo.setdefault("search.extractors", {})
    if base not in memo:
        if len(memo) >= MOST_BASES:
            del memo[next(iter(memo))]
        memo[base] = _extractor(spec, base)
    return memo[base]


def _extractor(spec: Spec, base: str) -> Extract:
    compiled: dict[str, Extract] = {}

    def extract(res: Resource, prose: special.Prose | None = None) -> Index:
        rtype = res["resourceType"]
        one = compiled.get(rtype)
        if one is None:
            one = compiled[rtype] = _compile(spec, base, rtype, extract)
        return one(res, prose)

    return extract


def narrowed(spec: Spec, rtype: str, names: frozenset[str], base: str = "") -> Extract:
    """`extract` for these stored names only (MEMBER: all that makes a member, DATE, PATIENT): the rest of the index document is left out."""
    memo: dict[tuple[str, frozenset[str], str], Extract] = spec.memo.setdefault("search.narrowed", {})
    key = (rtype, names, base)
    if key not in memo:
        if len(memo) >= MOST_NARROWED:
            memo.clear()
        shape = schema(spec, rtype)
        wanted = (
            (names - {MEMBER, DATE, PATIENT}) | ({shape.date} if DATE in names else set()) | ({shape.patient} if names & {PATIENT, MEMBER} else set())
        )
        if MEMBER in names:
            wanted |= _members(spec, shape)
        wanted -= {""}  # a type without a date or a patient
        known = wanted <= {one.name for one in shape.sources}  # else the whole document: nothing asked for may be missing
        memo[key] = _compile(spec, base, rtype, extractor(spec, None, base), frozenset(wanted) if known else None)
    return memo[key]


def _compile(spec: Spec, base: str, rtype: str, extract: Extract, only: frozenset[str] | None = None) -> Extract:
    shape = schema(spec, rtype)
    if only is not None:
        shape = replace(shape, sources=tuple(one for one in shape.sources if one.name in only))
    steps, always = _dispatch(spec, base, rtype, shape)
    names, universal = special.text_names(spec), rtype in HOT
    definition = canonical.defines(spec, rtype)

    def run(res: Resource, prose: special.Prose | None = None) -> Index:
        out = Out()
        done: set[int] = set()
        for key in res:
            for at, step in steps.get(key, NO_STEPS):
                if at not in done:
                    done.add(at)
                    step(res, out)
        for _, step in always:
            step(res, out)
        if only is None:
            special.emit_words(res, names, out, prose)
        index: Index = {}
        if out.patient:
            index["p"] = out.patient
        for ref in out.members:
            if ref != out.patient:
                out.k[MEMBER + ref] = None
        if universal:
            out.k[UNIVERSAL] = None
        if definition and "url" in res and only is None:
            out.k[canonical.key_of(res)] = None
        if out.k:
            index["k"] = list(out.k)
        if out.r:
            index["r"] = out.r
        if out.t:
            index["t"] = list(out.t)
        if out.day is not None:
            index["d"] = out.day
        if rtype == "Location":
            place = special.position(res.get("position"))
            if place is not None:
                index["g"] = place
        if only is None and ("contained" in res or out.held):
            index["c"] = _inside(spec, extract, res, out)
        return index

    return run


Steps = tuple[tuple[int, Step], ...]
NO_STEPS: Steps = ()
FIRST = re.compile(r"\(?\s*(?:[A-Z]\w*\.)?([a-z]\w*)(?:\.(?:as|ofType)\((\w+)\)|\s+as\s+(\w+))?")


def _dispatch(spec: Spec, base: str, rtype: str, shape: Schema) -> tuple[dict[str, Steps], Steps]:
    """The steps by the elements of the resource that they start at, and those that always run: a resource has few of its type's elements."""
    by_key: dict[str, Steps] = {}
    always: Steps = ()
    for at, source in enumerate(shape.sources):
        step = _step(spec, base, shape, source)
        names = _first_names(spec, rtype, source)
        for name in names:
            by_key[name] = (*by_key.get(name, ()), (at, step))
        if not names:
            always = (*always, (at, step))
    return by_key, always


def _first_names(spec: Spec, rtype: str, source: Source) -> tuple[str, ...]:
    """JSON names of the elements an expression starts at; () where that cannot be told."""
    if "exists()" in source.expression:
        return ()
    texts = branches(source.expression)
    if source.field.parts and texts == (rtype,):
        texts = branches(source.field.parts[-1].expression)
    found = [FIRST.match(text) for text in texts]
    if not all(found):
        return ()
    wanted = {(match.group(1), (match.group(2) or match.group(3) or "").lower()) for match in found if match}
    return tuple(name for name, (element, kind) in spec.properties(rtype).items() if {(element.name, ""), (element.name, kind.lower())} & wanted)


def _inside(spec: Spec, extract: Callable[[Resource], Index], res: Resource, out: Out) -> list[Index]:
    """Contained resources and those of entries, each with the parameters that point at it (https://hl7.org/fhir/R4/search.html#contained)."""
    contained = [inner for inner in res.get("contained", ()) if is_resource(inner, spec)]
    found = [_contained(extract, inner, [name for name, held in out.held if held == inner.get("id", "")]) for inner in contained]
    inline = [(name, held) for name, held in out.held if is_resource(held, spec)]
    return found + [{**(one := _contained(extract, held, [name])), "f": reference.INLINE + one["f"]} for name, held in inline]


def _contained(extract: Callable[[Resource], Index], inner: Resource, pointing: list[str]) -> Index:
    found = extract({**inner, "contained": []} if "contained" in inner else inner)
    kept: Index = {name: found[name] for name in ("k", "r", "t", "p", "d") if name in found}
    if pointing:
        kept["k"] = [*kept.get("k", ()), *(reference.BY + name for name in pointing)]
    return {"f": inner["resourceType"], **({"i": inner["id"]} if "id" in inner else {}), **kept}


def _members(spec: Spec, shape: Schema) -> frozenset[str]:
    """Stored names of the references whose patients make the resource a member of their compartments."""
    codes = spec.compartments.get("Patient", {}).get(shape.rtype, ())
    return frozenset(name for code in codes if code in shape.fields for name in shape.fields[code].names)


def _step(spec: Spec, base: str, shape: Schema, source: Source) -> Step:
    evaluate = _values(spec, source)
    if source.type == "composite":
        emit_parts = composite.emitter(source.name, source.field, part_fields(spec, source.field), spec, base)
        return lambda res, out: emit_parts(evaluate(res) or [], out, res)
    return _joined(evaluate, _emitter(spec, base, shape, source))


def _values(spec: Spec, source: Source) -> Evaluate:
    """The closure of a source's expression; of an extension its value."""
    evaluate: Evaluate = search_path(source.expression, spec=spec)
    if not source.expression.endswith("')"):
        return evaluate
    return lambda res: [inner for value in evaluate(res) for inner in _extension_values(value)]


def _extension_values(value: Any) -> list[Any]:
    if not isinstance(value, dict) or "url" not in value:
        return [value]
    return [inner for name, inner in value.items() if name.startswith("value")]


def _joined(evaluate: Evaluate, emit: Emit) -> Step:
    def step(res: Resource, out: Out) -> None:
        values = evaluate(res)
        if values:
            emit(values, out)

    return step


def _emitter(spec: Spec, base: str, shape: Schema, source: Source) -> Emit:
    if source.type == "reference":
        return reference.emitter(source.name, base, patient=source.name == shape.patient, member=source.name in _members(spec, shape))
    if source.type == "date":
        return date.emitter(source.name, source.field, day=source.name == shape.date)
    return _EMITTERS[source.type](source.name, source.field)


def _nothing(name: str, field: Any) -> Emit:
    """Special parameters are stored by `_compile` itself."""
    return lambda values, out: None


_EMITTERS: dict[str, Callable[[str, Any], Emit]] = {
    "token": token.emitter,
    "string": string.emitter,
    "number": number.emitter,
    "uri": uri.emitter,
    "quantity": quantity.emitter,
    "special": _nothing,
}
