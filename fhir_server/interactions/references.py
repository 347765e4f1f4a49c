"""References inside resources: finding them, and rewriting those of a bundle to what they became on this server.

https://hl7.org/fhir/R4/http.html#trules: links that match an entry's fullUrl are replaced in Reference.reference, in elements of type
uri, url, oid and uuid, and in `<a href>` and `<img src>` of narratives; canonical elements are left alone. Resources inside a stored
Bundle are left alone too: their references resolve within that Bundle.
"""

import html
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from fhir_server.context import Resource

NO_LINKS: Mapping[str, str] = MappingProxyType({})
NO_MADE: Mapping[str, Resource] = MappingProxyType({})
LITERAL = re.compile(r"([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?(?:#.*)?")
SEARCH = re.compile(r"([A-Z][A-Za-z]+)\?(.+)", re.DOTALL)
ROOT = re.compile(r"(https?://.+/)[A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?")
VERSION = re.compile(r"/_history/[A-Za-z0-9\-.]{1,64}$")
LINK = re.compile(r"""(\b(?:href|src)\s*=\s*)(?:"([^"]*)"|'([^']*)')""")
REPLACED = frozenset({"uri", "url", "oid", "uuid"})


@dataclass(frozen=True, slots=True)
class Links:
    """What the references of a bundle stand for.

    base: our public base with a trailing slash ('http://x/fhir/'); targets: fullUrl -> 'Patient/1'; local: 'Patient/a' of a posted resource
    that names no fullUrl -> 'Patient/1'; found: conditional reference ('Patient?identifier=..') -> 'Patient/1'.
    """

    base: str
    targets: Mapping[str, str] = field(default_factory=lambda: NO_LINKS)
    local: Mapping[str, str] = field(default_factory=lambda: NO_LINKS)
    found: Mapping[str, str] = field(default_factory=lambda: NO_LINKS)

    def resolve(self, text: str, root: str = "") -> str:
        """The reference to store for `text`, which stands in an entry whose fullUrl has this root; `text` itself if it is not ours."""
        body, mark, fragment = text.partition("#")
        if not body:
            return text
        target = self.targets.get(body) or self._target(body, root)
        return text if target is None else f"{target}{mark}{fragment}"

    def _target(self, body: str, root: str) -> str | None:
        for name in (body, VERSION.sub("", body)) if "/_history/" in body else (body,):
            found = self.targets.get(name) or (self.targets.get(root + name) if root else None) or self.local.get(name)
            if found:
                return found
        if body.startswith(self.base):
            body = body[len(self.base) :]
            return self.found.get(body, body)
        return self.found.get(body)


def root_of(full_url: str) -> str:
    """The server root of a RESTful fullUrl ('http://other/base/'), '' for urn:uuid and the like."""
    match = ROOT.fullmatch(full_url)
    return match.group(1) if match else ""


def references(value: Any) -> list[str]:
    """Every Reference.reference text in a resource, contained ones included; not those inside the entries of a stored Bundle."""
    found: list[str] = []
    _collect(value, found)
    return found


def _collect(node: Any, found: list[str]) -> None:
    if type(node) is list:
        for child in node:
            kind = type(child)
            if kind is dict or kind is list:
                _collect(child, found)
        return
    for name, child in node.items():
        kind = type(child)
        if kind is str:
            if name == "reference":
                found.append(child)
        elif (kind is dict or kind is list) and not (name == "entry" and node.get("resourceType") == "Bundle"):
            _collect(child, found)


def literal(text: str, base: str, types: Collection[str]) -> tuple[str, str] | None:
    """(type, id) on this server that a reference names, None if it is contained, foreign, logical or conditional."""
    match = LITERAL.fullmatch(text.removeprefix(base))
    return (match.group(1), match.group(2)) if match and match.group(1) in types else None


def conditional(texts: Iterable[str], base: str, types: Collection[str]) -> set[str]:
    """The conditional ones among references, own base removed: {'Patient?identifier=http://x|1'}."""
    matches = [SEARCH.fullmatch(text.removeprefix(base)) for text in texts if "?" in text]
    return {match.group(0) for match in matches if match and match.group(1) in types} if matches else set()


def narrative(div: str, links: Links, root: str) -> str:
    """Links of an XHTML narrative, https://hl7.org/fhir/R4/narrative.html."""

    def replaced(match: re.Match[str]) -> str:
        text = html.unescape(match.group(2) if match.group(2) is not None else match.group(3))
        fresh = links.resolve(text, root)
        return match.group(0) if fresh == text else f'{match.group(1)}"{html.escape(fresh)}"'

    return LINK.sub(replaced, div) if links.targets and ("href" in div or "src" in div) else div


def rewrite_uris(node: Any, owner: str, targets: Mapping[str, str], spec: Any) -> Any:
    """Values of uri, url, oid and uuid elements of a dict of FHIR type or backbone `owner` (a copy)."""
    properties = spec.properties(str(node.get("resourceType", owner)))
    copy = dict(node)
    for name, child in node.items():
        if name in properties and not (name == "entry" and owner == "Bundle"):
            element, kind = properties[name]
            copy[name] = _uris_of(child, element.content or kind, targets, spec)
    return copy


def _uris_of(child: Any, kind: str, targets: Mapping[str, str], spec: Any) -> Any:
    if isinstance(child, list):
        return [_uris_of(one, kind, targets, spec) for one in child]
    if isinstance(child, dict):
        return rewrite_uris(child, kind, targets, spec)
    return targets.get(child, child) if isinstance(child, str) and kind in REPLACED else child
