"""URIs, compared exactly. https://hl7.org/fhir/R4/search.html#uri

Stored in `k`: 'url=http://x/y'; of a canonical with a version also the bare url.
"""

from typing import Any

from fhir_server.query.clauses import Clause, Keys, Prefix, either
from fhir_server.search import canonical
from fhir_server.search.asked import Asked, Emit, Out
from fhir_server.search.escape import unescape
from fhir_server.search.schema import Field


def forms(value: Any) -> list[str]:
    """What stands behind 'name='."""
    if not isinstance(value, str):
        return [""]
    return [value, value.split("|", 1)[0]] if "|" in value else [value]


def emitter(name: str, field: Field) -> Emit:
    """Writes the keys of the values of a parameter."""
    head = f"{name}="

    def emit(values: list[Any], out: Out) -> None:
        for value in values:
            for form in forms(value):
                out.k[head + form] = None

    return emit


def clause(asked: Asked, text: str) -> Clause:
    """The same URI, a definition's also as url|version; `:below`: it and all URIs that continue it behind a '/'; `:above`: it and all that it continues."""
    wanted = unescape(text)
    if not wanted:
        raise asked.wrong("the value is empty")
    if "|" in wanted and not asked.modifier and asked.field.code == "url" and canonical.defines(asked.spec, asked.rtype):
        return Keys((canonical.DEFINED + wanted,))
    return either(*(_one(asked, f"{name}=", wanted) for name in asked.field.names))


def _one(asked: Asked, head: str, wanted: str) -> Clause:
    if asked.modifier == "below":
        return either(Keys((head + wanted,)), Prefix(head + wanted.rstrip("/") + "/"))
    if asked.modifier == "above":
        return Keys(tuple(head + one for one in _ancestors(wanted)))
    return Keys((head + wanted,))


def _ancestors(uri: str) -> list[str]:
    scheme, mark, rest = uri.partition("://")
    steps = rest.split("/") if mark else uri.split("/")
    start = scheme + mark if mark else ""
    found = [uri]
    for count in range(len(steps) - 1, 0, -1):
        shorter = start + "/".join(steps[:count])
        found += [shorter, shorter + "/"]
    return list(dict.fromkeys(found))
