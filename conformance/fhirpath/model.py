"""What FHIRPath needs to know of R4's types: which JSON members an element name means, and which type specialises which.

https://hl7.org/fhir/R4/fhirpath.html#types: FHIR's primitives are elements with children (`id`, `extension`) and a system value.
"""

from functools import cached_property
from typing import Any

from conformance.spec import Spec

SYSTEM = frozenset(("Boolean", "String", "Integer", "Decimal", "Date", "DateTime", "Time", "Quantity", "Any"))
ABSTRACT_RESOURCES = frozenset(("Resource", "DomainResource"))
TEMPORAL = {"date": "date", "dateTime": "dateTime", "instant": "dateTime", "time": "time"}


class Step:
    """One JSON member that an element name may mean: its key, the key of its extensions, the FHIR type and what to ask for its children."""

    __slots__ = ("content", "key", "type", "under")

    def __init__(self, key: str, type_: str, content: str) -> None:
        self.key, self.under, self.type, self.content = key, "_" + key, type_, content


class Model:
    """Typed navigation over a Spec; every answer is remembered."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._steps: dict[tuple[str, str], tuple[Step, ...]] = {}
        self._members: dict[str, dict[str, Step]] = {}

    def steps(self, content: str, name: str) -> tuple[Step, ...]:
        """The JSON members that `name` may mean inside `content` (a type or a backbone path); () if it has no such element."""
        found = self._steps.get((content, name))
        if found is None:
            found = self._steps[content, name] = tuple(step for step in self.members(content).values() if self._named(content, step, name))
        return found

    def _named(self, content: str, step: Step, name: str) -> bool:
        element = self.spec.properties(content)[step.key][0]
        return element.name == name

    def members(self, content: str) -> dict[str, Step]:
        """JSON key -> Step of all members of a type or backbone."""
        found = self._members.get(content)
        if found is None:
            found = {key: Step(key, type_, element.content or self.content(type_)) for key, (element, type_) in self.spec.properties(content).items()}
            self._members[content] = found
        return found

    def content(self, type_: str) -> str:
        """What to ask for the children of a type: primitives have those of Element."""
        return "Element" if type_ in self.spec.primitives else type_

    @cached_property
    def names(self) -> frozenset[str]:
        """Every type name of R4."""
        return self.spec.types | self.spec.datatypes | self.spec.primitives | ABSTRACT_RESOURCES

    def is_a(self, type_: str, ancestor: str) -> bool:
        """True if FHIR type `type_` is `ancestor` or specialises it. A backbone ('Patient.contact') is a BackboneElement."""
        if type_ == ancestor:
            return True
        if "." in type_:
            return ancestor in ("BackboneElement", "Element")
        return type_ in self.names and self.spec.is_a(type_, ancestor)

    def root(self, res: dict[str, Any], type_: str) -> str:
        """The type of a resource's root: its own name where R4 knows it."""
        name = res.get("resourceType")
        return name if isinstance(name, str) and name in self.spec.types else type_
