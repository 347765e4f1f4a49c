"""Search expressions as closures, for the forms that R4's own definitions use, until a Spec gives others: dotted paths, choices, filters.

Forms: `A.b.c`, `(A.b as T)`, `A.b.as(T)`, `.ofType(T)`, `.where(x='y')`, `.where(resolve() is T)`, `.extension('url')`, `[0]`, `.exists() and A.b != false`.
"""

import re
from collections.abc import Callable
from typing import Any

from fhir_server.search.schema import branches

Step = Callable[[list[Any]], list[Any]]
Evaluate = Callable[[dict[str, Any]], list[Any]]
TOKEN = re.compile(
    r"\.?(?:as|ofType)\((?P<cast>\w+)\)|\s+as\s+(?P<cast2>\w+)|\.?where\((?P<field>[\w.]+)\s*=\s*'(?P<value>[^']*)'\)|\.?where\(resolve\(\) is (?P<target>\w+)\)"
    r"|\.?extension\('(?P<url>[^']*)'\)|\.?where\(hasExtension\('(?P<has>[^']*)'\)\)|\[(?P<at>\d+)\]|\.?(?P<name>\w+)"
)
CAST_HEAD = re.compile(r"^\((\S+ as \w+)\)(.+)$")
PRESENT = re.compile(r"([\w.]+)\.exists\(\) and \1 != false")


def search_path(expression: str) -> Evaluate:
    """The values an expression selects: raw FHIR values. Raises ValueError for a form that is not one of ours."""
    compiled = [_branch(part) for part in branches(expression)]
    if len(compiled) == 1:
        return compiled[0]
    return lambda res: [value for evaluate in compiled for value in evaluate(res)]


def _branch(text: str) -> Evaluate:
    present = PRESENT.fullmatch(text)
    if present:
        inner = _branch(present.group(1))
        return lambda res: [any(value is not False for value in inner(res))]
    steps = _steps(text)
    if len(steps) == 1 and isinstance(steps[0], str) and steps[0] not in CHOICES:
        return _single(steps[0])
    compiled = [_name(step) if isinstance(step, str) else step for step in steps]

    def evaluate(res: dict[str, Any]) -> list[Any]:
        values: list[Any] = [res]
        for step in compiled:
            values = step(values)
            if not values:
                return values
        return values

    return evaluate


def _single(name: str) -> Evaluate:
    def evaluate(res: dict[str, Any]) -> list[Any]:
        value = res.get(name)
        return [] if value is None else value if type(value) is list else [value]

    return evaluate


def _steps(text: str) -> list[Any]:
    steps: list[Any] = []
    text, at = CAST_HEAD.sub(r"\1\2", text), 0
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None or found.end() == at:
            raise ValueError(f"search expression is not supported: {text}")
        steps += _step(found, steps, first=at == 0)
        at = found.end()
    return steps


def _step(found: re.Match[str], steps: list[Any], *, first: bool) -> list[Any]:
    kind = found.lastgroup
    if kind in ("cast", "cast2"):
        _cast(found.group(kind), steps)
        return []
    if kind == "value":
        return [_where(found["field"].split("."), found["value"])]
    if kind == "name":
        return [] if first and found["name"][0].isupper() else [found["name"]]
    if kind == "at":
        index = int(found["at"])
        return [lambda values: values[index : index + 1]]
    return [{"target": _target, "url": _extension, "has": _has_extension}[str(kind)](found[str(kind)])]


def _cast(kind: str, steps: list[Any]) -> None:
    """A choice element narrowed to a type: 'value' becomes 'valueQuantity'; an element that is no choice stays."""
    name = steps.pop()
    chosen = name + kind[0].upper() + kind[1:]

    def step(values: list[Any]) -> list[Any]:
        return _flat(values, chosen) or _flat(values, name)

    steps.append(step)


def _flat(values: list[Any], name: str) -> list[Any]:
    found: list[Any] = []
    for value in values:
        inner = value.get(name) if type(value) is dict else None
        if type(inner) is list:
            found += inner
        elif inner is not None:
            found.append(inner)
    return found


CHOICES = (
    "value",
    "effective",
    "onset",
    "abatement",
    "deceased",
    "occurrence",
    "performed",
    "medication",
    "timing",
    "scheduled",
    "identified",
    "product",
    "item",
)


def _name(name: str) -> Step:
    if name not in CHOICES:
        return lambda values: _flat(values, name)
    chosen = re.compile(re.escape(name) + "(?:[A-Z]\\w*)?")

    def step(values: list[Any]) -> list[Any]:
        names = dict.fromkeys(key for value in values if type(value) is dict for key in value if chosen.fullmatch(key))
        return [found for key in names for found in _flat(values, key)]

    return step


def _where(path: list[str], wanted: str) -> Step:
    def step(values: list[Any]) -> list[Any]:
        kept = []
        for value in values:
            inner = [value]
            for name in path:
                inner = _flat(inner, name)
            if wanted in inner:
                kept.append(value)
        return kept

    return step


def _target(kind: str) -> Step:
    head = kind + "/"

    def step(values: list[Any]) -> list[Any]:
        texts = ((value, value.get("reference") if type(value) is dict else value) for value in values)
        return [value for value, text in texts if isinstance(text, str) and (text.startswith(head) or f"/{head}" in text)]

    return step


def _extension(url: str) -> Step:
    def step(values: list[Any]) -> list[Any]:
        found = [each for each in _flat(values, "extension") if each.get("url") == url]
        return [inner for each in found for key, inner in each.items() if key.startswith("value")]

    return step


def _has_extension(url: str) -> Step:
    return lambda values: [value for value in values if any(each.get("url") == url for each in _flat([value], "extension"))]
