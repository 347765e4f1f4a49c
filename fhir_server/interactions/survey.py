"""One walk over a resource that is to be written: its links rewritten, and on the way what the later steps look for in it.

References, codings and human text are asked for by different packages. A walk of its own for each cost a fifth of a bundle: most of that is waiting for
memory, because a bundle of a hundred resources does not stay in the processor's cache.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from conformance.spec import Spec
from fhir_server.context import Resource
from fhir_server.interactions.references import Links, narrative, rewrite_uris
from fhir_server.search.types.special import text_names

NO_NAMES = frozenset[str]()
NO_TARGETS: Mapping[str, str] = {}  # a dict: asked for every text


@dataclass(frozen=True, slots=True)
class Survey:
    """What a walk found.

    res: the resource with its links replaced, itself if there was nothing to replace; sent: each Reference.reference in it as it was sent, contained
    resources' included, not those inside the entries of a stored Bundle; texts: the same as they are now; codings: as `terminology.ingest.codings_of`
    gives them, prose: as `special.prose_of` does; None where they must be looked for anew.
    """

    res: Resource
    sent: Sequence[str]
    texts: Sequence[str]
    codings: Sequence[Resource] | None = None
    prose: Sequence[Sequence[str]] | None = None


@dataclass(slots=True)
class _Walk:
    """A walk under way. links: None if they stay; names: of elements that hold human text; top: the resource; uris: a text that is no reference equals
    a fullUrl.
    """

    links: Links | None
    root: str
    names: frozenset[str]
    top: Resource | None
    sent: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    codings: list[Resource] = field(default_factory=list)
    prose: list[list[str]] = field(default_factory=list)
    uris: bool = False


def survey(res: Resource, spec: Spec, links: Links | None = None, root: str = "") -> Survey:
    """Walk over a resource; `res` itself is never changed. links: see `rewrite`; None: they stay; root: see `references.root_of`."""
    walk = _Walk(links, root, text_names(spec), res)
    fresh = _object(res, walk)
    if links is not None and walk.uris:
        return Survey(_with_uris(fresh, links, spec), walk.sent, walk.texts)
    if "system" in fresh:  # as in no resource of R4: it would count as a coding, but what is stored is a copy of it
        return Survey(fresh, walk.sent, walk.texts)
    walk.codings.reverse()
    walk.prose.reverse()
    return Survey(fresh, walk.sent, walk.texts, walk.codings, walk.prose)


def rewrite(res: Resource, links: Links, spec: Spec, root: str = "") -> Resource:
    """The resource with its links replaced; `res` itself is never changed and is returned as it is if nothing had to be replaced."""
    walk = _Walk(links, root, NO_NAMES, res)
    fresh = _object(res, walk)
    return _with_uris(fresh, links, spec) if walk.uris else fresh


def _with_uris(res: Resource, links: Links, spec: Spec) -> Resource:
    changed: Resource = rewrite_uris(res, str(res["resourceType"]), links.targets, spec)
    return changed


def _object(node: Resource, walk: _Walk) -> Resource:
    """The object with its links replaced: itself, or a copy. It is noted behind its elements; `survey` turns the order round."""
    links, names = walk.links, walk.names
    targets = NO_TARGETS if links is None else links.targets
    copy: Resource | None = None
    prose: list[str] = []
    fresh: Any
    for name, child in node.items():
        kind = type(child)
        if kind is str:
            if name == "reference" or name == "div":
                fresh = _linked(name, child, walk)
                if fresh == child:
                    continue
            else:
                if name in names:
                    prose.append(child)
                if child in targets:
                    walk.uris = True
                continue
        elif kind is dict or kind is list:
            if name == "entry" and node.get("resourceType") == "Bundle":
                _apart(child, walk)
                continue
            if name == "meta" and node is walk.top:
                fresh = _within(child, walk, NO_NAMES)
            else:
                fresh = _object(child, walk) if kind is dict else _list(child, walk, prose if name in names else None)
            if fresh is child:
                continue
        else:
            continue
        if copy is None:
            copy = node.copy()
        copy[name] = fresh
    made = node if copy is None else copy
    if prose:
        walk.prose.append(prose)
    if "code" in made and type(made["code"]) is str and type(made.get("system")) is str:
        walk.codings.append(made)
    return made


def _list(items: list[Any], walk: _Walk, prose: list[str] | None) -> list[Any]:
    """The same of an array. prose: takes the texts in it, if they are human text."""
    copy: list[Any] | None = None
    for at, child in enumerate(items):
        kind = type(child)
        if kind is dict:
            fresh = _object(child, walk)
        elif kind is str:
            if prose is not None:
                prose.append(child)
            if walk.links is not None and child in walk.links.targets:
                walk.uris = True
            continue
        elif kind is list:
            fresh = _within(child, walk, NO_NAMES)
        else:
            continue
        if fresh is not child:
            if copy is None:
                copy = items.copy()
            copy[at] = fresh
    return items if copy is None else copy


def _linked(name: str, text: str, walk: _Walk) -> str:
    """A reference or narrative with its links replaced; references are noted."""
    if name == "div":
        return text if walk.links is None else narrative(text, walk.links, walk.root)
    fresh = text if walk.links is None else walk.links.resolve(text, walk.root)
    walk.sent.append(text)
    walk.texts.append(fresh)
    return fresh


def _within(child: Any, walk: _Walk, names: frozenset[str]) -> Any:
    """The same walk with other names of human text: meta has none, an array in an array is not of R4."""
    outer, walk.names = walk.names, names
    fresh = _object(child, walk) if type(child) is dict else _list(child, walk, None)
    walk.names = outer
    return fresh


def _apart(entries: Any, walk: _Walk) -> None:
    """The entries of a stored Bundle: their references resolve within it, so they are neither replaced nor noted."""
    inner = _Walk(None, "", walk.names, None)
    _within(entries, inner, walk.names)
    walk.codings += inner.codings
    walk.prose += inner.prose
