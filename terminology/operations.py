"""The terminology operations as functions from Parameters to (status, resource): what HTTP, bundles and tests call.

`call(terms, operation, parameters, ...)` knows the operations of OPERATIONS by name. https://hl7.org/fhir/R4/terminology-service.html
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from conformance.dates import interval
from terminology import units, validate
from terminology.concepts import as_text
from terminology.expand import DEFAULT_LIMIT, Wishes, expand
from terminology.judging import Request
from terminology.language import BadLanguage, Languages, languages
from terminology.library import Library, Supplement, split
from terminology.lookup import Wanted, find_matches, find_system, lookup, lookup_unit, subsumption, value_of
from terminology.mapping import Sought, answer, translate
from terminology.parameters import Arguments, made, read
from terminology.service import Terms
from terminology.trouble import Stop, outcome, stop, trouble
from terminology.unitsystem import check_unit, unit_value_set
from terminology.valueset import Rules, Scope, Selection, canonical, evaluate, expansion_parameters, find_value_set
from terminology.versions import matches

Json = dict[str, Any]
ECHOED = (
    ("activeOnly", "valueBoolean"),
    ("count", "valueInteger"),
    ("offset", "valueInteger"),
    ("filter", "valueString"),
    ("excludeNested", "valueBoolean"),
    ("excludeNotForUI", "valueBoolean"),
    ("excludePostCoordinated", "valueBoolean"),
    ("includeDesignations", "valueBoolean"),
    ("includeDefinition", "valueBoolean"),
)
READ: Mapping[str, Callable[[Arguments, str], Any]] = {
    "valueBoolean": Arguments.flag,
    "valueInteger": Arguments.number,
    "valueString": Arguments.text,
}
RULING = frozenset({"system-version", "force-system-version", "check-system-version", "default-valueset-version", "useSupplement"})
MOST_SOUGHT, MOST_VALIDATIONS = 100, 5000  # in one call, which is answered in one go
PLAIN = Rules()


@dataclass(frozen=True, slots=True)
class Call:
    """One operation call: the library with the request's own resources on top, its arguments, and what came beside them.

    accept: Accept-Language; limit: codes before too-costly; target: the resource of an instance-level call, None otherwise.
    """

    library: Library
    arguments: Arguments
    now: datetime
    accept: str = ""
    limit: int = DEFAULT_LIMIT
    target: Json | None = None


def call(
    terms: Terms, operation: str, parameters: Json | None, *, now: datetime, accept: str = "", limit: int = DEFAULT_LIMIT, target: Json | None = None
) -> tuple[int, Json]:
    """(HTTP status, resource) of an operation: 'ValueSet/$expand', 'CodeSystem/$lookup' ... Raises KeyError for one that is not in OPERATIONS."""
    run = OPERATIONS[operation]
    try:
        arguments = read(parameters)
        library = terms.library.with_resources(arguments.structures("tx-resource"))
        return 200, run(Call(as_of(library, arguments, now), arguments, now, accept, limit, target))
    except Stop as stopped:
        return stopped.status, stopped.outcome()


def as_of(library: Library, arguments: Arguments, now: datetime) -> Library:
    """The library as it was on `date`; as it is for the present and the future. Raises Stop if that is no date."""
    text = arguments.text("date")
    if not text:
        return library
    try:
        _, until = interval(text)
    except ValueError as bad:
        raise stop("bad-parameter", name="date", reason=bad, status=400) from bad
    return library.as_of(until) if until <= now else library


def rules_of(arguments: Arguments) -> Rules:
    """The version and supplement parameters."""
    if RULING.isdisjoint(arguments.rows):
        return PLAIN

    def table(*names: str) -> dict[str, str]:
        return dict(split(each) for name in names for each in arguments.texts(name))

    return Rules(
        system=table("system-version"),
        force=table("force-system-version"),
        check=table("check-system-version"),
        value_sets=table("default-valueset-version"),
        supplements=tuple(arguments.texts("useSupplement")),
    )


def asked_languages(of: Call, value_set: Json | None) -> Languages:
    """displayLanguage of the request, else of the definition, else Accept-Language, else the definition's own language. Raises Stop if malformed."""
    own = value_set or {}
    text = of.arguments.text("displayLanguage") or str(expansion_parameters(own).get("displayLanguage", "")) or of.accept or own.get("language", "")
    try:
        return languages(text)
    except BadLanguage as bad:
        raise stop("bad-language", language=text, status=400) from bad


def asked_value_set(of: Call) -> Json:
    """The ValueSet of the call: its own (instance level), `valueSet`, or by `url` (and `valueSetVersion`). Raises Stop."""
    if of.target is not None:
        return of.target
    if not isinstance(of.arguments.one("valueSet"), str):
        given = of.arguments.structure("valueSet", rtype="ValueSet")
        if given is not None:
            return given
    url, version = split(of.arguments.need("url", "valueSet"))
    version = of.arguments.text("valueSetVersion") or version
    scope = Scope(of.library, rules_of(of.arguments))
    return unit_value_set(url) or find_value_set(scope, f"{url}|{version}" if version else url)


def run_expand(of: Call) -> Json:
    """ValueSet/$expand."""
    arguments = of.arguments
    value_set = asked_value_set(of)
    rules = rules_of(arguments)
    selection = _less(evaluate(Scope(of.library, rules), value_set), arguments)
    return expand(value_set, selection, wishes_of(of, value_set), of.now)


def _less(selection: Selection, arguments: Arguments) -> Selection:
    """The selection without the code systems, or versions of them, that `exclude-system` names."""
    gone = [split(each) for each in arguments.texts("exclude-system")]
    if not gone:
        return selection
    kept = [
        each for each in selection.segments if not any(each.system.meta.url == u and (not v or matches(v, each.system.meta.version)) for u, v in gone)
    ]
    return replace(selection, segments=tuple(kept))


def wishes_of(of: Call, value_set: Json) -> Wishes:
    """The parameters that shape an expansion."""
    arguments, own = of.arguments, expansion_parameters(value_set)
    asked = asked_languages(of, value_set)

    def flag(name: str) -> bool:
        return arguments.flag(name, own.get(name) in (True, "true"))

    return Wishes(
        text=arguments.text("filter"),
        count=arguments.number("count"),
        offset=arguments.number("offset"),
        active_only=flag("activeOnly"),
        flat=flag("excludeNested"),
        designations=flag("includeDesignations") or bool(arguments.all("designation")),
        wanted=tuple(arguments.texts("designation")),
        properties=tuple(arguments.texts("property")),
        languages=asked,
        not_abstract=flag("excludeNotForUI"),
        definition=flag("includeDefinition"),
        limit=of.limit,
        echo=tuple(echo(arguments, asked)),
    )


def echo(arguments: Arguments, asked: Languages) -> list[tuple[str, str, Any]]:
    """(name, value name, value) of the parameters that had a say in the expansion."""
    rows: list[tuple[str, str, Any]] = []
    for name, kind in ECHOED:
        if arguments.one(name) is not None:
            rows.append((name, kind, READ[kind](arguments, name)))
    if asked:
        rows.append(("displayLanguage", "valueCode", asked.text))
    if arguments.text("date"):
        rows.append(("date", "valueDateTime", arguments.text("date")))
    rows += [("designation", "valueString", each) for each in arguments.texts("designation")]
    rows += [("exclude-system", "valueUri", each) for each in arguments.texts("exclude-system")]
    return rows


def run_validate_value_set(of: Call) -> Json:
    """ValueSet/$validate-code; without any value set, the code is judged against its own system."""
    arguments = of.arguments
    named = of.target is not None or arguments.one("url", "valueSet") is not None
    value_set = asked_value_set(of) if named else None
    return validate.validate(read_request(of, value_set))


def read_request(of: Call, value_set: Json | None, system: str = "", version: str = "") -> Request:
    """The Request of a $validate-code call. Raises Stop if there is nothing to validate, or a supplement is missing."""
    arguments = of.arguments
    rules = rules_of(arguments)
    coding, concept, bare = arguments.structure("coding"), arguments.structure("codeableConcept"), False
    if coding is None and concept is None:
        coding, bare = _bare(arguments, system, version), True
    wanted = (*rules.supplements, *(_supplements_of(value_set) if value_set else ()))
    return Request(
        library=of.library,
        rules=rules,
        value_set=value_set,
        coding=None if isinstance(concept, dict) else coding,
        concept=concept if isinstance(concept, dict) else None,
        bare=bare,
        infer=arguments.flag("inferSystem") or arguments.flag("implySystem"),
        languages=asked_languages(of, value_set),
        abstract=arguments.flag("abstract", True),
        active_only=arguments.flag("activeOnly"),
        lenient=arguments.flag("lenient-display-validation"),
        membership_only=arguments.flag("valueset-membership-only"),
        supplements=[_supplement(of.library, each) for each in wanted],
    )


def _bare(arguments: Arguments, system: str, version: str) -> Json:
    code = arguments.text("code")
    system = system or arguments.text("system")
    if not code or not (system or arguments.flag("inferSystem") or arguments.flag("implySystem") or arguments.one("url") is not None):
        raise Stop(400, (trouble("nothing-to-validate"),))
    url, piped = split(system)
    row = {"system": url, "version": version or arguments.text("systemVersion") or piped, "code": code, "display": arguments.text("display")}
    return {name: value for name, value in row.items() if value}


def _supplements_of(value_set: Json) -> list[str]:
    return [each.get("valueCanonical", "") for each in value_set.get("extension", ()) if each.get("url", "").endswith("/valueset-supplement")]


def _supplement(library: Library, name: str) -> Supplement:
    found = library.supplement(name)
    if found is None:
        raise stop("missing-supplement", url=name, status=422)
    return found


def run_validate_code_system(of: Call) -> Json:
    """CodeSystem/$validate-code: by `url`, `codeSystem`, or the system of the coding."""
    arguments = of.arguments
    given = of.target if of.target is not None else arguments.structure("codeSystem", rtype="CodeSystem")
    if given is not None:
        of = replace(of, library=of.library.with_resources([given]))
    coding = arguments.structure("coding")
    url, version = split(given.get("url", "") if given is not None else arguments.text("url"))
    if "codeableConcept" not in arguments.rows and units.SYSTEM in (url, coding.get("system") if coding is not None else ""):
        return check_unit(coding or {"code": arguments.need("code"), "display": arguments.text("display")}, bool(coding))
    return validate.validate(replace(read_request(of, None, url, arguments.text("version") or version), system=url))


def run_batch(of: Call) -> Json:
    """ValueSet/$batch-validate-code: every `validation` is a $validate-code of its own, with the parameters of the batch as defaults."""
    shared = {name: rows for name, rows in of.arguments.rows.items() if name not in ("validation", "tx-resource")}
    rows = []
    asked = of.arguments.structures("validation", rtype="Parameters")
    if len(asked) > MOST_VALIDATIONS:
        raise stop("bad-parameter", name="validation", reason=f"there are more than {MOST_VALIDATIONS}", status=422)
    for each in asked:
        own = read(each)
        try:
            one = replace(of, library=as_of(of.library, own, of.now), arguments=Arguments({**shared, **own.rows}))
            rows.append({"name": "validation", "resource": run_validate_value_set(one)})
        except Stop as stopped:
            rows.append({"name": "validation", "resource": outcome(stopped.troubles)})
    return {"resourceType": "Parameters", "parameter": rows}


def run_lookup(of: Call) -> Json:
    """CodeSystem/$lookup."""
    arguments = of.arguments
    row = arguments.structure("coding") or {}
    url, version = split(str(row.get("system") or arguments.need("system")))
    code = str(row.get("code") or arguments.need("code"))
    if url == units.SYSTEM:
        return lookup_unit(code)
    system = find_system(of.library, url, str(row.get("version", "")) or arguments.text("version") or version)
    supplements = [_supplement(of.library, each) for each in arguments.texts("useSupplement")]
    wanted = arguments.texts("property")
    return lookup(system, code, wanted, asked_languages(of, None), supplements)


def run_subsumes(of: Call) -> Json:
    """CodeSystem/$subsumes."""
    arguments = of.arguments
    first, second = arguments.structure("codingA"), arguments.structure("codingB")
    if first is not None and second is not None:
        codes, url = (str(first.get("code", "")), str(second.get("code", ""))), str(first.get("system", ""))
        named = str(first.get("version") or second.get("version") or "")
        if url != second.get("system", "") or (named != (second.get("version") or named)):
            raise stop("bad-parameter", name="codingB", reason="it is of another code system, or version of it, than codingA", status=400)
    else:
        named = ""
        codes, url = (arguments.need("codeA"), arguments.need("codeB")), of.target.get("url", "") if of.target else arguments.need("system")
    bare, version = split(url)
    system = find_system(of.library, bare, named or arguments.text("version") or version)
    return made(("outcome", "valueCode", subsumption(system, *codes)))


def run_find_matches(of: Call) -> Json:
    """CodeSystem/$find-matches."""
    arguments = of.arguments
    url, version = split(of.target.get("url", "") if of.target else arguments.need("system"))
    system = find_system(of.library, url, arguments.text("version") or version)
    wanted = [_wanted(each) for each in arguments.parts("property")]
    if not wanted:
        raise stop("missing-parameter", name="property", status=400)
    if len(wanted) > MOST_SOUGHT:
        raise stop("bad-parameter", name="property", reason=f"there are more than {MOST_SOUGHT}", status=422)
    arguments.flag("compositional")  # allows post-coordinated matches; none are made, so it changes nothing but must be readable
    return find_matches(system, wanted, arguments.flag("exact"))


def _wanted(part: Arguments) -> Wanted:
    """One `property` of $find-matches. Raises Stop: no code, no value, a subproperty."""
    code = part.need("code")
    row = next(iter(part.rows.get("value", ())), {})
    sent = value_of(row)
    if sent[1] is None:
        raise stop("missing-parameter", name=f"property.value of {code}", status=400)
    if "subproperty" in part.rows:
        raise stop("not-supported", reason="a subproperty cannot be searched", status=400)
    return Wanted(code, as_text(sent[1]), part.text("op") or "=", sent)


def run_translate(of: Call) -> Json:
    """ConceptMap/$translate, with R4's parameters (code, system, source, target, targetsystem, reverse) or R5's (sourceCode, targetSystem ...)."""
    arguments = of.arguments
    modern = any(
        name in arguments.rows for name in ("sourceCode", "sourceCoding", "sourceCodeableConcept", "targetCode", "targetCoding", "sourceSystem")
    )
    found = []
    for sought in sought_of(arguments):
        dependencies = {each.text("element"): _dependency(each) for each in arguments.parts("dependency")}
        found += translate(maps_of(of), sought, dependencies, of.library.concept_map)
    return answer(found, modern=modern)


def _dependency(part: Arguments) -> str:
    value = part.one("concept")
    row = value.get("coding", [{}])[0] if isinstance(value, dict) else {}
    return str(row.get("code", value))


def maps_of(of: Call) -> Sequence[Json]:
    """The maps to search: the instance, the one named by `url` or given, or all. Raises Stop if the one named is unknown."""
    given = of.target if of.target is not None else of.arguments.structure("conceptMap", rtype="ConceptMap")
    if given is not None:
        return [given]
    url, version = split(of.arguments.text("url"))
    if not url:
        return of.library.concept_maps()
    found = of.library.concept_map(url, of.arguments.text("conceptMapVersion") or version)
    if found is None:
        raise stop("unknown-map", url=url, status=404)
    return [found]


def sought_of(arguments: Arguments) -> list[Sought]:
    """What to look for: one for a code or Coding, one for each coding of a CodeableConcept. Raises Stop if there is none."""
    back = arguments.flag("reverse") or any(name in arguments.rows for name in ("targetCode", "targetCoding", "targetCodeableConcept"))
    concept = arguments.structure("codeableConcept", "sourceCodeableConcept", "targetCodeableConcept")
    coding = arguments.structure("coding", "sourceCoding", "targetCoding")
    target = arguments.text("targetsystem", "targetSystem")
    if concept is not None:
        rows = list(concept.get("coding", ()))
        if len(rows) > MOST_SOUGHT:
            raise stop("bad-parameter", name="codeableConcept", reason=f"it has more than {MOST_SOUGHT} codings", status=422)
    elif coding is not None:
        rows = [coding]
    else:
        system = target if "targetCode" in arguments.rows else arguments.text("system", "sourceSystem")
        rows = [{"system": system, "code": arguments.need("code", "sourceCode", "targetCode"), "version": arguments.text("version")}]
    other = arguments.text("sourceSystem") if "targetCode" in arguments.rows else target
    sets = arguments.text("source", "sourceScope"), arguments.text("target", "targetScope")
    return [_sought(row, other, *sets, back) for row in rows]


def _sought(row: Json, other: str, source: str, target: str, back: bool) -> Sought:
    url, piped = split(str(row.get("system") or ""))
    return Sought(url, str(row.get("code") or ""), other, source, target, back, str(row.get("version") or "") or piped)


OPERATIONS: Mapping[str, Callable[[Call], Json]] = {
    "CodeSystem/$lookup": run_lookup,
    "CodeSystem/$validate-code": run_validate_code_system,
    "CodeSystem/$subsumes": run_subsumes,
    "CodeSystem/$find-matches": run_find_matches,
    "ValueSet/$expand": run_expand,
    "ValueSet/$validate-code": run_validate_value_set,
    "ValueSet/$batch-validate-code": run_batch,
    "ConceptMap/$translate": run_translate,
}

__all__ = ["OPERATIONS", "Call", "call", "canonical"]
