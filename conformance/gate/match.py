"""Values against fixed and pattern values, and the discriminators of slices. https://hl7.org/fhir/R4/profiling.html#discriminator"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from conformance.gate.references import contained_types
from conformance.gate.report import Report
from conformance.gate.tree import Node

_EXTENSION = re.compile(r"extension\('([^']+)'\)")


@dataclass(slots=True)  # not frozen: one is made for each repetition that a profile looks at
class Instance:
    """One repetition of an element: its value (None for a primitive of extensions only), `_name` beside it, its type, its index."""

    value: Any
    extra: Any
    type: str
    index: int | None


def fixed_kept(fixed: Any, value: Any) -> bool:
    """Exactly equal, decimals by value, arrays in order. https://hl7.org/fhir/R4/elementdefinition-definitions.html#ElementDefinition.fixed_x_"""
    return bool(fixed == value) and isinstance(value, bool) == isinstance(fixed, bool)


def pattern_kept(pattern: Any, value: Any) -> bool:
    """All of the pattern is in the value; each item of an array in some item. #ElementDefinition.pattern_x_"""
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(key in value and pattern_kept(each, value[key]) for key, each in pattern.items())
    if isinstance(pattern, list):
        return isinstance(value, list) and all(any(pattern_kept(each, one) for one in value) for each in pattern)
    return fixed_kept(pattern, value)


def expected(definition: dict[str, Any]) -> Callable[[Any], bool] | None:
    """The check of an ElementDefinition's fixed or pattern value, None if it has neither."""
    for key, want in definition.items():
        if key.startswith("fixed"):
            return partial(fixed_kept, want)
        if key.startswith("pattern"):
            return partial(pattern_kept, want)
    return None


def steps(path: str) -> list[str]:
    """'code.coding' -> its steps; 'extension('url').value' keeps the url in one step."""
    found, rest = [], path
    while rest:
        call = _EXTENSION.match(rest)
        step = call[0] if call else rest.split(".", 1)[0]
        found.append(step)
        rest = rest[len(step) :].removeprefix(".")
    return [step for step in found if step != "$this"]


def walk(value: Any, path: list[str], report: Report) -> Iterator[Any]:
    """The values at a discriminator path below a value; a reference that cannot be resolved gives nothing."""
    if not path:
        yield value
        return
    for each in _step(value, path[0], report):
        yield from walk(each, path[1:], report)


def _step(value: Any, step: str, report: Report) -> Iterator[Any]:
    if step == "resolve()":
        found = resolve(value, report)
        if found is not None:
            yield found
    elif not isinstance(value, dict):
        return
    elif call := _EXTENSION.match(step):
        yield from (each for each in value.get("extension", ()) if isinstance(each, dict) and each.get("url") == call[1])
    elif step.startswith("ofType("):
        yield value
    else:
        held = value.get(step)
        if held is None:  # a choice: the value under the name of its type
            held = next((each for key, each in value.items() if key.startswith(step) and key[len(step) : len(step) + 1].isupper()), None)
        if isinstance(held, list):
            yield from held
        elif held is not None:
            yield held


def resolve(value: Any, report: Report) -> dict[str, Any] | None:
    """The resource that a Reference or canonical points at: contained, in the bundle, or by the caller's `resolve`; None if it cannot be had."""
    text = value.get("reference") if isinstance(value, dict) else value
    if not isinstance(text, str) or not text:
        return None
    if text[0] == "#":
        rows = report.root.get("contained", ()) if len(text) > 1 and text[1:] in contained_types(report) else ()
        return next((each for each in rows if isinstance(each, dict) and each.get("id") == text[1:]), None)
    found = _in_bundle(text, report)
    if found is None and report.resolve is not None:
        fetched: dict[str, Any] | None = report.resolve(text)
        return fetched
    return found


def _in_bundle(text: str, report: Report) -> dict[str, Any] | None:
    """https://hl7.org/fhir/R4/bundle.html#references: by fullUrl, a relative one also by its end."""
    if report.bundle is None:
        return None
    table = report.memo.get(("resources", id(report.bundle)))
    if table is None:
        table = report.memo[("resources", id(report.bundle))] = _table(report.bundle)
    found: dict[str, Any] | None = table.get(text.split("/_history/", 1)[0])
    return found


def _table(bundle: dict[str, Any]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    listed = bundle.get("entry")
    for each in listed if isinstance(listed, list) else ():
        res = each.get("resource") if isinstance(each, dict) else None
        if isinstance(res, dict):
            table.setdefault(f"{res.get('resourceType')}/{res.get('id')}", res)
            table[str(each.get("fullUrl"))] = res
    return table


def node_at(node: Node, path: list[str]) -> Node | None:
    """The node of a slice that a discriminator path leads to, None if the slice says nothing there."""
    found: Node | None = node
    for step in path:
        call = _EXTENSION.match(step)
        if found is None:
            return None
        if call:
            extensions = found.children.get("extension")
            found = next((each for each in (extensions.slices if extensions else {}).values() if _extension_url(each) == call[1]), None)
        elif step != "resolve()" and not step.startswith("ofType("):
            found = found.children.get(step)
    return found


def _extension_url(node: Node) -> str:
    url = node.children.get("url")
    profiles = [each for one in node.definition.get("type", ()) for each in one.get("profile", ())]
    return str(url.definition.get("fixedUri", "")) if url and "fixedUri" in url.definition else (profiles[0].split("|")[0] if profiles else "")
