"""Search parameters defined on this server: known to extraction as soon as they are noted, to queries when all resources are indexed for them.

Each process keeps them in its Spec's memo, renewed from the store by `jobs/reindex.py`. https://hl7.org/fhir/R4/searchparameter.html
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from conformance.outcome import Issue, unprocessable
from conformance.path import PathProblem, search_path
from conformance.spec import Param, Spec

TYPES = ("number", "date", "string", "token", "reference", "quantity", "uri", "composite")
Row = dict[str, Any]
COMPILED = (
    "search.schema",
    "search.extractors",
    "search.references",
    "search.definitions",
    "interactions.metadata",
    "security.rights",
    "search.narrowed",
    "search.conditions",
    "search.dates",
)  # what is made again when parameters change


@dataclass(frozen=True, slots=True)
class Custom:
    """One parameter on one type; ready: queries may use it."""

    param: Param
    rtype: str
    ready: bool


def of(spec: Spec, rtype: str) -> dict[str, Custom]:
    """The custom parameters of a type by code."""
    found: dict[str, dict[str, Custom]] = spec.memo.get("search.custom", {})
    return found.get(rtype, {})


def install(spec: Spec, customs: Iterable[Custom]) -> None:
    """Replace the custom parameters of this process; does nothing if they are the same."""
    found: dict[str, dict[str, Custom]] = {}
    for one in customs:
        own = spec.params(one.rtype).get(one.param.code)
        if own is None or own.url == one.param.url:  # the standard's own stay; a package's is ready when all is indexed for it
            found.setdefault(one.rtype, {})[one.param.code] = one
    if found != spec.memo.get("search.custom", {}):
        spec.memo["search.custom"] = found
        for name in COMPILED:
            spec.memo.pop(name, None)


def all_of(spec: Spec) -> list[Custom]:
    """All custom parameters of this process."""
    found: dict[str, dict[str, Custom]] = spec.memo.get("search.custom", {})
    return [one for rows in found.values() for one in rows.values()]


def of_packages(spec: Spec) -> dict[str, list[Param]]:
    """The parameters that installed packages add, by their definition's url, one for each type."""
    urls = {url for package in spec.packages for url in package.urls("SearchParameter")}
    found: dict[str, list[Param]] = {}
    for rtype in sorted(spec.types) if urls else ():
        for param in spec.params(rtype).values():
            if param.url in urls and param.type in TYPES:
                found.setdefault(param.url, []).append(replace(param, base=(rtype,)))
    return found


def unready(spec: Spec, known: Iterable[Custom]) -> list[Custom]:
    """The parameters of packages that are not among the known ones: not to be used before all is indexed for them."""
    urls = {one.param.url for one in known}
    return [Custom(param, param.base[0], False) for url, params in of_packages(spec).items() if url not in urls for param in params]


def read(spec: Spec, res: Mapping[str, Any]) -> list[Param]:
    """The parameter of a SearchParameter resource, for each type of its base. Raises Refusal 422 saying what cannot be served."""
    bases, kind, expression = res.get("base", ()), res.get("type"), res.get("expression")
    wrong: list[Issue] = []
    if kind not in TYPES:
        wrong.append(Issue("error", "not-supported", f"custom parameters can be of type {', '.join(TYPES)}", "SearchParameter.type"))
    if res.get("status") != "active":
        wrong.append(Issue("error", "business-rule", "only an active definition can be used", "SearchParameter.status"))
    if not expression:
        wrong.append(Issue("error", "required", "an expression is needed", "SearchParameter.expression"))
    rtypes = [rtype for base in bases for rtype in (sorted(spec.types) if base in ("Resource", "DomainResource") else [base])]
    for rtype in rtypes:
        if rtype not in spec.types:
            wrong.append(Issue("error", "value", "a base is not a resource type of R4", "SearchParameter.base"))
        elif res.get("code") in spec.params(rtype):
            wrong.append(Issue("error", "business-rule", f"{rtype} has a parameter with this code already", "SearchParameter.code"))
    if kind == "composite" and not wrong:
        wrong += _component_problems(spec, res, rtypes)
    if not wrong:
        wrong += _expression_problems(spec, str(expression))
    if wrong:
        raise unprocessable(wrong)
    return [
        Param(
            code=str(res["code"]),
            type=str(kind),
            expression=_own(str(expression), rtype),
            base=(rtype,),
            url=str(res["url"]),
            targets=tuple(res.get("target", ())),
            components=tuple((str(each["definition"]), str(each["expression"])) for each in res.get("component", ())),
            modifiers=tuple(res.get("modifier", ())),
            comparators=tuple(res.get("comparator", ())),
            multiple_or=res.get("multipleOr", True),
            multiple_and=res.get("multipleAnd", True),
        )
        for rtype in rtypes
    ]


def _component_problems(spec: Spec, res: Mapping[str, Any], rtypes: list[str]) -> list[Issue]:
    """A composite needs two or more components, each a published parameter of its types that is none itself."""
    components = res.get("component", ())
    defined = [spec.param_at(str(each.get("definition")), rtype) for each in components for rtype in rtypes]
    if len(components) > 1 and all(one is not None and one.type not in ("composite", "special") for one in defined):
        return []
    return [Issue("error", "not-supported", "components are two or more published search parameters of the type", "SearchParameter.component")]


def _own(expression: str, rtype: str) -> str:
    """The branches that can select something from this type; all if none names a type."""
    parts = [part.strip() for part in expression.split("|")]
    heads = tuple(f"{name}." for name in (rtype, "Resource", "DomainResource"))
    return " | ".join(part for part in parts if part.lstrip("(").startswith(heads)) or expression


def _expression_problems(spec: Spec, expression: str) -> list[Issue]:
    try:
        search_path(expression, spec=spec)
    except PathProblem as problem:
        return [Issue("error", "invalid", f"the expression cannot be used: {problem}", "SearchParameter.expression")]
    return []


def params_of(row: Row) -> list[Param]:
    """The parameters of a stored definition, one for each type."""
    rules = row.get("rules", {})  # rows of older versions have none
    return [
        Param(
            code=row["code"],
            type=row["type"],
            expression=expression,
            base=(rtype,),
            url=row["_id"],
            targets=tuple(row["targets"]),
            components=tuple((url, part) for url, part in row.get("components", ())),
            modifiers=tuple(rules.get("modifiers", ())),
            comparators=tuple(rules.get("comparators", ())),
            multiple_or=rules.get("or", True),
            multiple_and=rules.get("and", True),
        )
        for rtype, expression in row["expressions"]
    ]


def row_of(rid: str, params: list[Param], now: datetime, state: str = "indexing") -> Row:
    """What is stored for a definition that is to be indexed."""
    first = params[0]
    return {
        "_id": first.url,
        "rid": rid,
        "code": first.code,
        "type": first.type,
        "targets": list(first.targets),
        "components": [list(each) for each in first.components],
        "rules": {
            "modifiers": list(first.modifiers),
            "comparators": list(first.comparators),
            "or": first.multiple_or,
            "and": first.multiple_and,
        },
        "expressions": [[param.base[0], param.expression] for param in params],
        "state": state,
        "at": now,
        "done": 0,
        "total": 0,
        "place": [params[0].base[0], ""],
        "owner": None,
        "until": None,
    }
