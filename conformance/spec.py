"""The Spec: what R4 (and installed packages) define, as one immutable object. Types, elements, search parameters, compartments, operations.

`load_spec()` reads the generated tables of `r4/` once; the rows of a type become objects on first use, so start-up stays short and memory small.
Paragraphs: https://hl7.org/fhir/R4/elementdefinition.html, https://hl7.org/fhir/R4/searchparameter.html, https://hl7.org/fhir/R4/compartmentdefinition.html
"""

import gzip
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeGuard

import msgspec

from conformance.package import Package, decode_definition, open_package, version_key
from conformance.valuesets import listed

R4 = Path(__file__).parent / "r4"
EXTRA = Path(__file__).parent / "extra"
DEFINITIONS = ("CodeSystem", "CompartmentDefinition", "ConceptMap", "OperationDefinition", "SearchParameter", "StructureDefinition", "ValueSet")
CORE = "http://hl7.org/fhir/StructureDefinition/"
BLOCKS_KEPT = 4
NONE: Mapping[str, Any] = MappingProxyType({})

# https://hl7.org/fhir/R4/search.html#prefix and #modifiers: what a type allows where its definition names nothing narrower
PREFIXES = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")
MODIFIERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "string": ("missing", "exact", "contains"),
        "token": ("missing", "text", "not", "above", "below", "in", "not-in", "of-type"),
        "reference": ("missing", "type", "identifier", "above", "below"),
        "uri": ("missing", "above", "below"),
        "number": ("missing",),
        "date": ("missing",),
        "quantity": ("missing",),
        "composite": ("missing",),
        "special": ("missing",),
    }
)


@dataclass(frozen=True, slots=True)
class Element:
    """One ElementDefinition of a base type (https://hl7.org/fhir/R4/elementdefinition.html).

    path: 'Patient.contact.name'; name: JSON name without '[x]' ('value'); types: FHIR type codes; max: None for '*';
    content: the type name to pass to `Spec.children` for what stands inside ('Patient.contact' for a backbone, the referred path for a
    contentReference, '' for a data type or a primitive); targets: resource types a Reference or canonical may point at ('Resource': any);
    binding: (strength, value set url) or None; rules: invariant keys; profiles: SimpleQuantity or MoneyQuantity where the type is narrowed.
    """

    path: str
    name: str
    types: tuple[str, ...]
    min: int
    max: int | None
    content: str = ""
    choice: bool = False
    targets: tuple[str, ...] = ()
    binding: tuple[str, str] | None = None
    rules: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    summary: bool = False
    modifier: bool = False
    attribute: bool = False
    regex: str = ""


@dataclass(frozen=True, slots=True)
class Param:
    """One search parameter as it applies to one resource type (https://hl7.org/fhir/R4/searchparameter.html).

    expression: only the branches of the union that start at that type; components: (definition url, expression) of a composite;
    published: comparators and modifiers come from the definition where it names them, else from the parameter type's table.
    """

    code: str
    type: str
    expression: str
    base: tuple[str, ...]
    url: str
    targets: tuple[str, ...] = ()
    components: tuple[tuple[str, str], ...] = ()
    modifiers: tuple[str, ...] = ()
    comparators: tuple[str, ...] = ()
    multiple_or: bool = True
    multiple_and: bool = True


@dataclass(frozen=True, slots=True)
class Rule:
    """One invariant: key, severity (error | warning), FHIRPath, and the standard's sentence about it."""

    key: str
    severity: str
    expression: str
    human: str


JUDGED = ("extensions", "trees", "profiles", "asks", "supported profiles", "interactions.metadata")  # memos that depend on profiles


@dataclass(frozen=True)
class Spec:
    """R4, the packages installed on top of it, and the profiles stored over REST. Immutable but for `adopt` and `take_stored`: `with_package` gives
    another one that shares the tables."""

    version = "4.0.1"
    tables: Mapping[str, Any]
    packages: tuple[Package, ...] = ()
    stored: Package | None = None
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)  # what others compile once per Spec (checkers)

    @cached_property
    def types(self) -> frozenset[str]:
        """The concrete resource types of R4."""
        return frozenset(name for name, (kind, _, abstract, _) in self.tables["elements"].items() if kind == "resource" and not abstract)

    @cached_property
    def normative(self) -> frozenset[str]:
        """Resource types whose definition is normative (https://hl7.org/fhir/R4/versions.html#std-process)."""
        return frozenset(self.tables["normative"]["types"]) & self.types

    @cached_property
    def datatypes(self) -> frozenset[str]:
        """Complex data types, Element and BackboneElement among them."""
        return frozenset(name for name, row in self.tables["elements"].items() if row[0] == "complex-type")

    @cached_property
    def primitives(self) -> frozenset[str]:
        """Primitive types ('string', 'xhtml' ...)."""
        return frozenset(name for name, row in self.tables["elements"].items() if row[0] == "primitive-type")

    def parent(self, name: str) -> str:
        """The type that this type specialises, '' for Element and Resource; KeyError if R4 has no such type."""
        return str(self.tables["elements"][name][1])

    def is_a(self, name: str, ancestor: str) -> bool:
        """True if type `name` is `ancestor` or specialises it ('Age' is a 'Quantity')."""
        while name and name != ancestor:
            name = self.parent(name)
        return bool(name)

    @cached_property
    def _types(self) -> dict[str, tuple[dict[str, Element], dict[str, dict[str, Element]]]]:
        return {}

    def _type(self, name: str) -> tuple[dict[str, Element], dict[str, dict[str, Element]]]:
        """(path -> Element, parent path -> name -> Element) of one base type, made on first use."""
        if name not in self._types:
            rows = self.tables["elements"].get(name)
            self._types[name] = _read_type(name, rows) if rows else ({}, {})
        return self._types[name]

    def element(self, path: str) -> Element | None:
        """The element at 'Patient.contact.name' or 'Observation.value[x]'; None if R4 has none there."""
        return self._type(path.split(".", 1)[0])[0].get(path)

    def children(self, name: str) -> Mapping[str, Element]:
        """What stands inside a type or backbone ('Patient', 'Patient.contact', 'HumanName'), by name without '[x]', in the order of XML."""
        return self._type(name.split(".", 1)[0])[1].get(name, NONE)

    @cached_property
    def _properties(self) -> dict[str, Mapping[str, tuple[Element, str]]]:
        return {}

    def properties(self, name: str) -> Mapping[str, tuple[Element, str]]:
        """JSON name -> (Element, FHIR type), choices spelt out ('valueQuantity'), in the order of XML. No `resourceType`, no `_name`."""
        if name not in self._properties:
            self._properties[name] = MappingProxyType(_json_names(self.children(name)))
        return self._properties[name]

    @cached_property
    def rules(self) -> Mapping[str, Rule]:
        """Invariant key -> Rule."""
        return MappingProxyType({key: Rule(key, *row) for key, row in self.tables["invariants"].items()})

    @cached_property
    def _params(self) -> Mapping[str, Mapping[str, Param]]:
        return _params_by_type(self)

    def params(self, rtype: str) -> Mapping[str, Param]:
        """Search parameters of a resource type by code, those of Resource and DomainResource included."""
        return self._params.get(rtype, NONE)

    def param(self, rtype: str, code: str) -> Param | None:
        """One search parameter of a type, None if there is none."""
        return self.params(rtype).get(code)

    def param_at(self, url: str, rtype: str) -> Param | None:
        """The search parameter with this definition url as it applies to the type (for components of composites)."""
        return next((each for each in self.params(rtype).values() if each.url == url), None)

    @property
    def compartments(self) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
        """Compartment ('Patient') -> resource type -> codes of the parameters that place it there."""
        table: Mapping[str, Mapping[str, tuple[str, ...]]] = self.tables["compartments"]
        return table

    @cached_property
    def operations(self) -> Mapping[str, dict[str, Any]]:
        """Definition url -> OperationDefinition (no prose), packages included."""
        added = {url: self.definition(url) or {} for package in self.packages for url in package.urls("OperationDefinition")}
        return MappingProxyType({**self.tables["operations"], **added})

    def codes(self, valueset: str) -> Mapping[str, frozenset[str]] | None:
        """System -> codes of a value set, if the definitions alone list it (R4's published expansions first); None for others."""
        bare = valueset.split("|", 1)[0]
        if bare not in self._codes:
            self._codes[bare] = listed(self, valueset)
        return self._codes[bare]

    @cached_property
    def _codes(self) -> dict[str, Mapping[str, frozenset[str]] | None]:
        rows = self.tables["valuesets"]
        replaced = {url for package in self.packages for url in package.urls("ValueSet")}
        return {url: {system: frozenset(codes) for system, codes in systems.items()} for url, systems in rows.items() if url not in replaced}

    def urls(self, rtype: str) -> tuple[str, ...]:
        """Canonical urls of every definition of one kind ('CodeSystem', 'StructureDefinition' ...), packages first."""
        found = dict.fromkeys(url for package in self._asked for url in package.urls(rtype))
        return tuple(found | dict.fromkeys(_places(rtype)))

    def definition(self, url: str, rtype: str = "") -> dict[str, Any] | None:
        """The definition with this canonical ('url' or 'url|version'): a stored one first, then the newest installed, then R4's own; None if unknown.

        rtype narrows the kind where a url could mean several. R4's own come without prose.
        """
        bare, _, version = url.partition("|")
        for package in self._asked:
            found = package.definition(bare, version, rtype)
            if found is not None:
                return found
        for kind in (rtype,) if rtype else DEFINITIONS:
            place = _places(kind).get(bare)
            if place is not None and version in ("", self.version):
                return decode_definition(_block(kind, place[0])[place[1]])
        return None

    def own(self, url: str, kind: str) -> bool:
        """True for the canonical of a definition that R4 itself publishes."""
        return url in _places(kind)

    def published(self, url: str) -> bool:
        """True if R4 or an installed package defines it; stored ones do not count."""
        return any(url in package.index for package in self.packages) or any(url in _places(kind) for kind in DEFINITIONS)

    @property
    def _asked(self) -> Iterator[Package]:
        """Where definitions are looked for, in this order."""
        if self.stored is not None:
            yield self.stored
        yield from reversed(self.packages)

    def take_stored(self, definitions: Package | None) -> None:
        """From now on these are the stored profiles and what they bind to; what was compiled with others is compiled again when it is next asked for."""
        object.__setattr__(self, "stored", definitions)
        self.__dict__.pop("_codes", None)
        for name in JUDGED:  # emptied in place: what was compiled holds them
            self.memo.get(name, {}).clear()

    def with_package(self, package: Package | Path) -> "Spec":
        """This Spec with one more package on top."""
        added = package if isinstance(package, Package) else open_package(package)
        at = next(
            (at for at, each in enumerate(self.packages) if each.name == added.name and version_key(each.version) > version_key(added.version)), None
        )
        at = len(self.packages) if at is None else at
        return Spec(self.tables, (*self.packages[:at], added, *self.packages[at:]))

    def adopt(self, packages: Iterable[Package]) -> None:
        """Make this very Spec one with these packages: everything that holds it sees them from now on, what was compiled is compiled again.

        The one way a Spec changes: a worker takes up what was installed, in one step between two requests.
        """
        object.__setattr__(self, "packages", tuple(packages))
        for name in ("_params", "operations", "_codes"):  # what was derived from the packages
            self.__dict__.pop(name, None)
        self.memo.clear()


@cache
def _index() -> Mapping[str, list[tuple[int, int, list[str]]]]:
    """Kind -> blocks of R4's own definitions: (offset, length, canonicals)."""
    return msgspec.json.decode((R4 / "definitions" / "index.json").read_bytes(), type=dict[str, list[tuple[int, int, list[str]]]])


@cache
def _places(kind: str) -> Mapping[str, tuple[int, int]]:
    """Canonical -> (block, position in it)."""
    return {url: (block, at) for block, row in enumerate(_index().get(kind, ())) for at, url in enumerate(row[2])}


@lru_cache(BLOCKS_KEPT)
def _block(kind: str, number: int) -> list[msgspec.Raw]:
    """A block of definitions, still encoded: few are in use at a time, so that few lie in memory."""
    start, length, _ = _index()[kind][number]
    with (R4 / "definitions" / f"{kind}.gz").open("rb") as file:
        file.seek(start)
        return msgspec.json.decode(gzip.decompress(file.read(length)), type=list[msgspec.Raw])


@cache
def errata(name: str) -> dict[str, Any]:
    """A table of `extra/` that mends what R4 publishes wrongly; extra/README.md gives the reason of each row."""
    table: dict[str, Any] = msgspec.json.decode((EXTRA / f"{name}.json").read_bytes())
    return table


@cache
def _tables() -> Mapping[str, Any]:
    names = ("invariants", "params", "compartments", "operations", "valuesets", "normative")
    tables = {name: msgspec.json.decode((R4 / f"{name}.json").read_bytes()) for name in names}
    # the rows of a type stay encoded until the type is used
    tables["elements"] = msgspec.json.decode((R4 / "elements.json").read_bytes(), type=dict[str, tuple[str, str, bool, msgspec.Raw]])
    tables["params"] |= errata("params")
    return MappingProxyType(tables)


@cache
def _load(packages: tuple[Path, ...]) -> Spec:
    spec = Spec(_tables())
    for path in packages:
        spec = spec.with_package(path)
    return spec


def load_spec(packages: Iterable[Path] = ()) -> Spec:
    """R4 and the packages at these paths (.tgz or folder), in this order. The same paths give the same object. Raises Refusal on a bad package."""
    return _load(tuple(packages))


def _read_type(name: str, row: tuple[str, str, bool, msgspec.Raw]) -> tuple[dict[str, Element], dict[str, dict[str, Element]]]:
    elements: dict[str, Element] = {}
    children: dict[str, dict[str, Element]] = {}
    for path, low, high, types, facts in msgspec.json.decode(row[3]):
        full = f"{name}.{path}" if path else name
        element = _element(full, low, high, types, facts)
        if row[0] == "resource" and path == "id":  # published as string; https://hl7.org/fhir/R4/resource.html#id says id
            element = replace(element, types=("id",))
        elements[full] = element
        if path:
            children.setdefault(full.rsplit(".", 1)[0], {})[element.name] = element
    return elements, children


def _element(full: str, low: int, high: str, types: list[str], facts: Mapping[str, Any]) -> Element:
    name = full.rsplit(".", 1)[-1]
    backbone = bool(set(types) & {"BackboneElement", "Element"}) and "." in full
    return Element(
        path=full,
        name=name.removesuffix("[x]"),
        types=tuple(types),
        min=low,
        max=None if high == "*" else int(high),
        content=facts.get("same", full if backbone else ""),
        choice=name.endswith("[x]"),
        targets=tuple(facts.get("targets", ())),
        binding=tuple(facts["binding"]) if "binding" in facts else None,
        rules=tuple(facts.get("rules", ())),
        profiles=tuple(facts.get("profiles", ())),
        summary=bool(facts.get("summary")),
        modifier=bool(facts.get("modifier")),
        attribute=bool(facts.get("attribute")),
        regex=facts.get("regex", ""),
    )


def _json_names(children: Mapping[str, Element]) -> dict[str, tuple[Element, str]]:
    names: dict[str, tuple[Element, str]] = {}
    for name, element in children.items():
        if element.choice:
            names |= {name + code[0].upper() + code[1:]: (element, code) for code in element.types}
        else:
            names[name] = (element, element.types[0] if element.types else "BackboneElement")
    return names


def _params_by_type(spec: Spec) -> Mapping[str, Mapping[str, Param]]:
    """R4's own, then those of the packages under codes that R4 does not use on the type; the newest package counts."""
    found: dict[str, dict[str, Param]] = {rtype: {} for rtype in spec.types}
    _place(spec, spec.tables["params"], found)
    added: dict[str, dict[str, Param]] = {rtype: {} for rtype in spec.types}
    for package in spec.packages:
        rows = {url: _param_row(package.definition(url, "", "SearchParameter") or {}) for url in package.urls("SearchParameter")}
        _place(spec, {url: row for url, row in rows.items() if row}, added)
    return {rtype: {**added[rtype], **own} for rtype, own in found.items()}


def _place(spec: Spec, rows: Mapping[str, list[Any]], found: dict[str, dict[str, Param]]) -> None:
    for url, row in rows.items():
        for base in row[2]:
            for rtype in spec.types if base in ("Resource", "DomainResource") else (base,):
                if rtype in found and (base != "DomainResource" or spec.parent(rtype) == "DomainResource"):
                    found[rtype][row[0]] = _param(url, row, rtype)


def _param_row(res: Mapping[str, Any]) -> list[Any] | None:
    """The table row of a package's SearchParameter; None if it cannot be evaluated (no base or expression)."""
    if "base" not in res or "expression" not in res or res.get("status") == "retired":
        return None
    facts = {key: res[key] for key in ("target", "comparator", "modifier", "multipleOr", "multipleAnd") if key in res}
    facts["component"] = [[each["definition"], each["expression"]] for each in res.get("component", ())]
    return [res["code"], res["type"], res["base"], res["expression"], facts]


def _param(url: str, row: list[Any], rtype: str) -> Param:
    code, kind, base, expression, facts = row
    return Param(
        code=code,
        type=kind,
        expression=_branches(expression, rtype),
        base=tuple(base),
        url=url,
        targets=tuple(facts.get("target", ())),
        components=tuple((each[0], each[1]) for each in facts.get("component", ())),
        modifiers=tuple(facts.get("modifier", MODIFIERS[kind])),
        comparators=tuple(facts.get("comparator", PREFIXES if kind in ("number", "date", "quantity") else ())),
        multiple_or=facts.get("multipleOr", True),
        multiple_and=facts.get("multipleAnd", True),
    )


def _branches(expression: str, rtype: str) -> str:
    """The branches of a union that can select something from this type; all of them if none names it."""
    branches = [each.strip() for each in _split_union(expression)]
    names = (rtype, "Resource", "DomainResource")
    kept = [each for each in branches if each.lstrip("( ").startswith(tuple(f"{name}." for name in names)) or each in names]
    return " | ".join(kept) or expression


def _split_union(expression: str) -> list[str]:
    parts, depth, start, quoted = [], 0, 0, False
    for at, char in enumerate(expression):
        if char == "'":
            quoted = not quoted
        elif not quoted:
            depth += (char in "([") - (char in ")]")
            if char == "|" and depth == 0:
                parts.append(expression[start:at])
                start = at + 1
    return [*parts, expression[start:]]


def is_resource(each: Any, spec: Spec) -> TypeGuard[dict[str, Any]]:
    """True for what says of itself that it is a resource of a type of R4; also asked before anything else is known of it."""
    rtype = each.get("resourceType") if isinstance(each, dict) else None
    return isinstance(rtype, str) and rtype in spec.types
