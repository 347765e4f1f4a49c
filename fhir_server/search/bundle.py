"""A searchset Bundle: entries, links, `_summary` and `_elements`. https://hl7.org/fhir/R4/search.html#return, #summary, #elements"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote

from conformance.outcome import Issue, outcome
from conformance.spec import Spec
from fhir_server.search.plan import Plan

Resource = dict[str, Any]
SUBSETTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}
ALWAYS = ("resourceType", "id", "meta")
PLAIN = re.compile(r"[A-Za-z0-9_.~:/|,$*-]*")


def url(base: str, path: str, pairs: Iterable[tuple[str, str]]) -> str:
    """An absolute search URL."""
    query = "&".join([f"{_quoted(name)}={_quoted(value)}" for name, value in pairs])
    return f"{base}/{path}".rstrip("/") + (f"?{query}" if query else "")


def _quoted(text: str) -> str:
    """Percent-encoded where it must be; most parameters and values need nothing."""
    return text if PLAIN.fullmatch(text) else quote(text, safe=":/|,$*")


def entry(base: str, res: Resource, mode: str) -> Resource:
    """One entry; mode: match, include or outcome."""
    found: Resource = {} if mode == "outcome" else {"fullUrl": f"{base}/{res['resourceType']}/{res.get('id', '')}"}
    return {**found, "resource": res, "search": {"mode": mode}}


def outcome_entry(base: str, issues: Iterable[Issue]) -> Resource:
    """An OperationOutcome that tells the client about its search."""
    return entry(base, outcome(issues), "outcome")


def searchset(entries: list[Resource], links: Mapping[str, str], total: int | None) -> Resource:
    """The Bundle; without total if that is not known."""
    made: Resource = {"resourceType": "Bundle", "type": "searchset"}
    if total is not None:
        made["total"] = total
    made["link"] = [{"relation": relation, "url": target} for relation, target in links.items()]
    if entries:
        made["entry"] = entries
    return made


Trim = Callable[[Resource], Resource]


def trimmer(spec: Spec, plan: Plan) -> Trim:
    """What `_summary` and `_elements` leave of a resource; `_elements` is for matches: it does not apply to what is included."""
    summary = _SUMMARY.get(plan.summary)
    if summary is not None and plan.elements:  # what both leave
        return lambda res: _marked(_only(spec, summary(spec, res), plan.elements))
    if summary is not None:
        return lambda res: _marked(summary(spec, res))
    return (lambda res: _marked(_only(spec, res, plan.elements))) if plan.elements else lambda res: res


def _marked(res: Resource) -> Resource:
    meta = dict(res.get("meta", {}))
    tags = [tag for tag in meta.get("tag", ()) if tag.get("code") != SUBSETTED["code"]]
    meta["tag"] = [*tags, SUBSETTED]
    head: Resource = {name: res[name] for name in ("resourceType", "id") if name in res}
    return {**head, "meta": meta, **{name: value for name, value in res.items() if name not in ALWAYS}}


def _kept(res: Resource, names: set[str]) -> Resource:
    return {name: value for name, value in res.items() if name in ALWAYS or name.removeprefix("_") in names}


def _mandatory(spec: Spec, rtype: str) -> set[str]:
    return {name for name, (element, _) in spec.properties(rtype).items() if element.min > 0}


def _text(spec: Spec, res: Resource) -> Resource:
    return _kept(res, {"text", *_mandatory(spec, res["resourceType"])})


def _data(spec: Spec, res: Resource) -> Resource:
    return {name: value for name, value in res.items() if name != "text"}


def _summary(spec: Spec, res: Resource) -> Resource:
    return _summarised(spec, res["resourceType"], res, top=True)


def _summarised(spec: Spec, owner: str, value: Resource, *, top: bool) -> Resource:
    """Elements marked as summary, inside backbones too."""
    properties = spec.properties(owner)
    kept: Resource = {}
    for name, inner in value.items():
        found = properties.get(name.removeprefix("_"))
        if top and name in ALWAYS:
            kept[name] = inner
        elif found is not None and (found[0].summary or (found[0].modifier and found[0].min > 0)):
            kept[name] = _inner(spec, found[0].content, inner)
    return kept


def _inner(spec: Spec, content: str, value: Any) -> Any:
    if not content:
        return value
    if isinstance(value, list):
        return [_inner(spec, content, each) for each in value]
    return _summarised(spec, content, value, top=False) if isinstance(value, dict) else value


_SUMMARY: dict[str, Callable[[Spec, Resource], Resource]] = {"true": _summary, "text": _text, "data": _data}


def _only(spec: Spec, res: Resource, elements: tuple[str, ...]) -> Resource:
    """The named elements and the mandatory ones; 'Type.element' counts for that type only."""
    rtype = res["resourceType"]
    wanted = {_element_name(one, rtype) for one in elements} - {""}
    properties = spec.properties(rtype)
    names = {name for name, (element, _) in properties.items() if element.name in wanted or name in wanted}
    return _kept(res, names | _mandatory(spec, rtype))


def _element_name(text: str, rtype: str) -> str:
    head, _, rest = text.partition(".")
    if head[:1].isupper():
        return rest.split(".", 1)[0] if head == rtype else ""
    return head
