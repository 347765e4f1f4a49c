"""What a query means before it is run: conditions, some of which need searches of their own, and what the answer shall look like."""

from dataclasses import dataclass

from conformance.outcome import Issue
from fhir_server.query.clauses import Clause
from fhir_server.search.schema import Field


@dataclass(frozen=True, slots=True)
class Chain:
    """The reference `field` of type `source` points at a resource of type `target` that meets `inner`."""

    source: str
    field: Field
    target: str
    inner: "Node"


@dataclass(frozen=True, slots=True)
class Has:
    """A resource of type `source` that meets `inner` points here through its reference `field`; rtype: the type searched."""

    source: str
    field: Field
    rtype: str
    inner: "Node"


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry of this List (https://hl7.org/fhir/R4/search.html#list)."""

    rid: str
    rtype: str


@dataclass(frozen=True, slots=True)
class Kin:
    """The reference `field` points at one of `refs` ('Location/1'), or at what is above or below it (https://hl7.org/fhir/R4/search.html#recursive)."""

    field: Field
    refs: tuple[str, ...]
    above: bool


@dataclass(frozen=True, slots=True)
class AllOf:
    """All of the parts."""

    parts: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of the parts."""

    parts: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class NotOf:
    """Not the part."""

    part: "Node"


Node = Clause | Chain | Has | Listed | Kin | AllOf | AnyOf | NotOf


@dataclass(frozen=True, slots=True)
class Include:
    """One `_include` or `_revinclude`: source type ('*': any), parameter ('*': every reference), target type ('': any)."""

    source: str
    param: str
    target: str
    iterate: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A parsed query. types: what is searched, () for everything; pairs: the conditions (`parse.where` reads them for a type).

    total: '' (as it comes), none, estimate, accurate; summary: '', true, text, data, count, false; contained: false, true, both; applied: the
    parameters that count, for `self`; ignored: what was ignored under lenient handling.
    """

    types: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    sort: tuple[str, ...] = ()
    count: int = 50
    total: str = ""
    summary: str = ""
    elements: tuple[str, ...] = ()
    includes: tuple[Include, ...] = ()
    revincludes: tuple[Include, ...] = ()
    contained: str = "false"
    container: bool = True
    explain: bool = False
    cursor: str = ""
    applied: tuple[tuple[str, str], ...] = ()
    ignored: tuple[Issue, ...] = ()
