"""A query's pairs -> a Plan. https://hl7.org/fhir/R4/search.html

What is unknown, unsupported or malformed is refused by name (400); with `Prefer: handling=lenient` it is ignored and told.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from conformance.outcome import Issue, Refusal, bad_request, not_supported, too_costly
from fhir_server.context import Context
from fhir_server.query.clauses import Clause
from fhir_server.search.condition import Limits, Pair, Reading, conditions, joined, short
from fhir_server.search.filter import filter_node
from fhir_server.search.plan import Include, Node, Plan
from fhir_server.search.schema import Field, schema
from fhir_server.store import Sort

MOST_SORTS = 8
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
ONCE = ("_count", "_total", "_summary", "_contained", "_containedType")
FOLLOWED = ("_include", "_revinclude")  # the only result parameters with a modifier
IGNORED = ("_format", "_pretty")  # the door's own
SUMMARIES = ("true", "text", "data", "count", "false")
TOTALS = ("none", "estimate", "accurate")
SORT_KINDS = {
    "string": ("k", "~"),
    "token": ("k", "="),
    "reference": ("k", "="),
    "uri": ("k", "="),
    "date": ("r", ""),
    "number": ("r", ""),
    "quantity": ("r", ""),
}
DATE_SUFFIXES, NUMBER_SUFFIXES = ("", "+m", "+y", "+e"), ("", "+")


@dataclass(slots=True)
class Draft:
    """The plan under construction."""

    rtype: str | None
    types: tuple[str, ...]
    lenient: bool
    plain: list[Pair] = field(default_factory=list)
    sort: list[str] = field(default_factory=list)
    given: dict[str, Any] = field(default_factory=dict)
    includes: list[Include] = field(default_factory=list)
    revincludes: list[Include] = field(default_factory=list)
    applied: list[Pair] = field(default_factory=list)
    ignored: list[Issue] = field(default_factory=list)


def reading(ctx: Context) -> Reading:
    """What conditions are read with for this caller."""
    limits = Limits(ctx.settings.search_parameters, ctx.settings.search_values, ctx.settings.search_depth, ctx.settings.search_codes)
    return Reading(ctx.spec, ctx.terms, ctx.base, ctx.now, limits)


def parse(ctx: Context, rtype: str | None, pairs: Sequence[Pair]) -> Plan:
    """The plan of a query on one type, or on all types of `_type` (rtype None). Raises Refusal 400 naming the parameter."""
    read = reading(ctx)
    _bounded(read, pairs)
    lenient = ctx.prefer.get("handling") == "lenient"
    draft = Draft(rtype, (rtype,) if rtype else _types(ctx, pairs), lenient)
    for name, value in pairs:
        if name in IGNORED:
            continue
        try:
            _take(ctx, read, draft, name, value)
        except Refusal as refusal:
            if not lenient or refusal.status != 400 or name.split(":", 1)[0] in REFUSED:
                raise
            draft.ignored += [Issue("warning", issue.code, f"ignored: {issue.text}", issue.expression) for issue in refusal.issues]
            continue
        if name == "_count":
            draft.applied.append((name, str(draft.given["count"])))  # as reduced
        elif name != "_cursor":
            draft.applied.append((name, value))
    if draft.given.get("summary") == "text" and (draft.includes or draft.revincludes):
        _without_includes(draft)
    return _plan(ctx, draft)


def _without_includes(draft: Draft) -> None:
    """`_summary=text` cannot be mixed with includes (https://hl7.org/fhir/R4/search.html#summary). Raises 400, unless lenient."""
    told = "search parameters '_include' and '_revinclude' cannot be mixed with '_summary=text'"
    if not draft.lenient:
        raise bad_request(told)
    draft.includes, draft.revincludes = [], []
    draft.applied = [pair for pair in draft.applied if pair[0].split(":", 1)[0] not in FOLLOWED]
    draft.ignored.append(Issue("warning", "invalid", f"ignored: {told}"))


def _bounded(read: Reading, pairs: Sequence[Pair]) -> None:
    """Raises 400 for too many parameters or values, before any of them is read."""
    if len(pairs) > read.limits.parameters:
        raise too_costly(f"more than {read.limits.parameters} parameters in one search")
    most = 2 * read.limits.values
    if sum(value.count(",") for _, value in pairs) > most:
        names = ", ".join(dict.fromkeys(short(name) for name, value in pairs if "," in value))
        raise too_costly(f"search parameters {short(names)}: more than {most} values in one search")


def criteria(ctx: Context, rtype: str, pairs: Sequence[Pair]) -> Clause:
    """The clause of conditional interactions, scopes and subscriptions: no result parameters, nothing that needs another search.

    Raises Refusal 400 naming the parameter. `run.criteria` answers chains and `_has` too.
    """
    node = condition_of(ctx, rtype, pairs)
    if not isinstance(node, Clause):
        raise not_supported("chained parameters, _has and _list are not supported here")
    return node


def condition_of(ctx: Context, rtype: str, pairs: Sequence[Pair]) -> Node:
    """The condition of pairs that may only be search criteria."""
    read = reading(ctx)
    _bounded(read, pairs)
    for name, value in pairs:
        if UNPRINTABLE.search(name) or UNPRINTABLE.search(value):
            raise bad_request("search parameters: control characters are not allowed")
        if name.split(":", 1)[0] in _RESULTS or name == "_filter":
            raise not_supported(f"search parameter '{short(name)}' is not supported here")
    return conditions(read, rtype, [pair for pair in pairs if pair[0] not in IGNORED])


def _types(ctx: Context, pairs: Iterable[Pair]) -> tuple[str, ...]:
    """The types of `_type`; () for all."""
    named = [one for name, value in pairs if name == "_type" for one in value.split(",")]
    for one in named:
        if one not in ctx.spec.types:
            raise bad_request(f"search parameter '_type': '{short(one)}' is not a resource type")
    return tuple(dict.fromkeys(named))


def _take(ctx: Context, read: Reading, draft: Draft, name: str, value: str) -> None:
    if UNPRINTABLE.search(name) or UNPRINTABLE.search(value):
        raise bad_request(f"search parameter '{UNPRINTABLE.sub('?', short(name))}': control characters are not allowed")
    code, _, modifier = name.partition(":")
    taker = _RESULTS.get(code)
    if taker is not None:
        if modifier and code not in FOLLOWED:
            raise not_supported(f"search parameter '{short(name)}': it takes no modifier")
        if code in ONCE and any(code == given for given, _ in draft.applied):
            raise bad_request(f"search parameter '{name}': it is given twice, and only one can apply")
        taker(ctx, draft, name, value)
        return
    if name == "_type":
        if draft.rtype and draft.rtype not in value.split(","):
            raise bad_request(f"search parameter '_type': this is a search of {draft.rtype}; a search of other types is that of the base")
        return
    if not draft.types:
        _of_every_type(ctx, name)
    if draft.lenient or not draft.types:  # else judged when the plan's condition is made
        for rtype in draft.types or _shared(ctx):
            node_of(read, rtype, [(name, value)])
    draft.plain.append((name, value))


def _of_every_type(ctx: Context, name: str) -> None:
    """Raises 400 for a parameter that not all types have, in a search of all types."""
    code = name.split(":", 1)[0].split(".", 1)[0]
    if not code.startswith("_") and any(code not in schema(ctx.spec, rtype).fields for rtype in _shared(ctx)):
        raise not_supported(f"search parameter '{short(name)}': not every type has it; a search of all types needs '_type' to name those that do")


def _shared(ctx: Context) -> tuple[str, ...]:
    """Types that stand for all in a search over everything: what is known for these two is a parameter of every type."""
    return tuple(one for one in ("Basic", "Binary") if one in ctx.spec.types)


def _plan(ctx: Context, draft: Draft) -> Plan:
    return Plan(
        types=draft.types,
        pairs=tuple(draft.plain),
        sort=tuple(draft.sort),
        count=draft.given.get("count", ctx.settings.page_size),
        total=draft.given.get("total", ""),
        summary=draft.given.get("summary", ""),
        elements=draft.given.get("elements", ()),
        includes=tuple(draft.includes),
        revincludes=tuple(draft.revincludes),
        contained=draft.given.get("contained", "false"),
        container=draft.given.get("container", True),
        explain=draft.given.get("explain", False),
        cursor=draft.given.get("cursor", ""),
        applied=tuple(draft.applied),
        ignored=tuple(draft.ignored),
    )


def where(ctx: Context, plan: Plan, rtype: str) -> Node:
    """What resources of this type must meet. Raises Refusal 400 naming the parameter."""
    return node_of(reading(ctx), rtype, plan.pairs)


def node_of(read: Reading, rtype: str, pairs: Sequence[Pair]) -> Node:
    """The condition of search parameters, `_filter` among them."""
    plain = conditions(read, rtype, [pair for pair in pairs if pair[0] != "_filter"])
    return joined([plain, *(filter_node(read, rtype, value) for name, value in pairs if name == "_filter")])


def order(ctx: Context, plan: Plan, rtype: str) -> tuple[Sort, ...]:
    """The sort keys of a type, as asked."""
    return tuple(sort_key(ctx, rtype, one) for one in plan.sort)


def _count(ctx: Context, draft: Draft, name: str, value: str) -> None:
    if not value.isdecimal() or len(value) > 18:
        raise bad_request("search parameter '_count': the value must be a whole number of 0 or more")
    draft.given["count"] = min(int(value), ctx.settings.max_page_size)


def _choice(key: str, allowed: tuple[str, ...]) -> Callable[[Context, Draft, str, str], None]:
    def take(ctx: Context, draft: Draft, name: str, value: str) -> None:
        if value not in allowed:
            raise bad_request(f"search parameter '{short(name)}': the value must be one of {', '.join(allowed)}")
        draft.given[key] = value

    return take


def _contained_type(ctx: Context, draft: Draft, name: str, value: str) -> None:
    if value not in ("container", "contained"):
        raise bad_request(f"search parameter '{name}': the value must be container or contained")
    draft.given["container"] = value == "container"


def _sort(ctx: Context, draft: Draft, name: str, value: str) -> None:
    keys = value.split(",")
    if len(keys) + len(draft.sort) > MOST_SORTS or len({key.removeprefix("-") for key in keys}) < len(keys):
        raise not_supported(f"search parameter '_sort': more than {MOST_SORTS} keys, or one twice, are not answered")
    if not draft.types:
        for key in keys:
            _of_every_type(ctx, key.removeprefix("-"))
    for rtype in draft.types or _shared(ctx):
        for key in keys:
            sort_key(ctx, rtype, key)
    draft.sort += keys


def sort_key(ctx: Context, rtype: str, text: str) -> Sort:
    """One key of `_sort`. https://hl7.org/fhir/R4/search.html#sort. Raises 400 for a parameter that cannot be sorted by."""
    descending, code = text.startswith("-"), text.removeprefix("-")
    if code in ("_id", "_lastUpdated"):
        return Sort(code, descending)
    fields = schema(ctx.spec, rtype).fields
    asked = fields.get(code)
    if asked is None or asked.type not in SORT_KINDS:
        raise not_supported(f"search parameter '_sort': cannot sort {rtype} by '{short(code)}'")
    if asked.hot:
        return Sort(code, descending, "d")
    return Sort(code, descending, *_heads(asked))


def _heads(asked: Field) -> tuple[str, tuple[str, ...]]:
    if asked.patient:
        return "p", ()
    kind, mark = SORT_KINDS[asked.type]
    if kind == "k":
        return kind, tuple(name + mark for name in asked.names)
    suffixes = DATE_SUFFIXES if asked.type == "date" else NUMBER_SUFFIXES
    return kind, tuple(name + suffix for name in asked.names for suffix in suffixes)


def _elements(ctx: Context, draft: Draft, name: str, value: str) -> None:
    names = tuple(one for one in value.split(",") if one)
    if not names:
        raise bad_request(f"search parameter '{name}': the value is empty")
    for rtype in draft.types:
        known = ctx.spec.children(rtype)
        for one in names:
            if one.split(".", 1)[0].removeprefix(f"{rtype}.") not in known and not one.startswith(f"{rtype}."):
                raise bad_request(f"search parameter '_elements': {rtype} has no element '{short(one)}'")
    draft.given["elements"] = (*draft.given.get("elements", ()), *names)


def _include(ctx: Context, draft: Draft, name: str, value: str) -> None:
    kind, _, modifier = name.partition(":")
    if modifier not in ("", "iterate", "recurse"):
        raise not_supported(f"search parameter '{short(name)}': only ':iterate' is supported")
    draft.includes.append(include_of(ctx, kind, value, bool(modifier)))


def _revinclude(ctx: Context, draft: Draft, name: str, value: str) -> None:
    kind, _, modifier = name.partition(":")
    if modifier not in ("", "iterate", "recurse"):
        raise not_supported(f"search parameter '{short(name)}': only ':iterate' is supported")
    draft.revincludes.append(include_of(ctx, kind, value, bool(modifier)))


def include_of(ctx: Context, name: str, value: str, iterate: bool) -> Include:
    """`Observation:subject`, `Observation:subject:Patient`, `Observation:*`, `*`. https://hl7.org/fhir/R4/search.html#include"""
    if value == "*":
        return Include("*", "*", "", iterate)
    source, _, rest = value.partition(":")
    code, _, target = rest.partition(":")
    if source not in ctx.spec.types or not code:
        raise bad_request(f"search parameter '{name}': the form is Type:parameter or Type:parameter:Target")
    if target and target not in ctx.spec.types:
        raise bad_request(f"search parameter '{name}': '{short(target)}' is not a resource type")
    found = schema(ctx.spec, source).fields.get(code)
    if code != "*" and (found is None or found.type != "reference"):
        raise bad_request(f"search parameter '{name}': '{short(code)}' is not a reference parameter of {source}")
    return Include(source, code, target, iterate)


def _explain(ctx: Context, draft: Draft, name: str, value: str) -> None:
    if not ctx.grant.admin:
        raise not_supported("search parameter '_explain' is for administrators")
    draft.given["explain"] = value == "true"


def _cursor(ctx: Context, draft: Draft, name: str, value: str) -> None:
    if not value or "cursor" in draft.given:
        raise bad_request("search parameter '_cursor': a link of a page has one")
    draft.given["cursor"] = value


def _refused(ctx: Context, draft: Draft, name: str, value: str) -> None:
    """A server SHALL refuse a query that it does not recognise (https://hl7.org/fhir/R4/search.html#query): under lenient handling too."""
    raise not_supported(f"search parameter '{short(name)}': named queries are not supported")


_RESULTS: dict[str, Callable[[Context, Draft, str, str], None]] = {
    "_count": _count,
    "_total": _choice("total", TOTALS),
    "_summary": _choice("summary", SUMMARIES),
    "_sort": _sort,
    "_elements": _elements,
    "_contained": _choice("contained", ("true", "false", "both")),
    "_containedType": _contained_type,
    "_include": _include,
    "_revinclude": _revinclude,
    "_explain": _explain,
    "_cursor": _cursor,
    "_query": _refused,
}
REFUSED = frozenset(name for name, reads in _RESULTS.items() if reads is _refused)  # published by R4, not served here: not advertised either
