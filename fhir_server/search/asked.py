"""What a query's value is judged with (`Asked`), what extraction writes into (`Out`), and the refusals both share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from conformance.outcome import Refusal, bad_request, not_supported
from conformance.spec import Spec
from fhir_server.search.schema import Field


@dataclass(slots=True)
class Out:
    """The index document under construction; k and t are dicts so that each string stands once, in order.

    held: resources inside that a reference parameter points at: (stored name, id of a contained resource) or (stored name, the resource itself).
    patient: the one that is kept in `p`; members: patients in whose compartments the resource stands; day: the low bound of the hot date;
    shapes: what was made of a quantity, by the identity of its object, for the parameters that ask for the same one.
    """

    k: dict[str, None] = field(default_factory=dict)
    r: list[dict[str, Any]] = field(default_factory=list)
    t: dict[str, None] = field(default_factory=dict)
    held: list[tuple[str, str | dict[str, Any]]] = field(default_factory=list)
    patient: str = ""
    members: dict[str, None] = field(default_factory=dict)
    day: datetime | None = None
    shapes: dict[int, Any] = field(default_factory=dict)


Emit = Callable[[list[Any], Out], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """One parameter as asked: its field, the modifier ('' if none), and what values are judged with.

    name: as the client wrote it ('code:not'); rtype: the type searched; base: own base URL; now: for `ap`.
    """

    name: str
    field: Field
    modifier: str
    rtype: str
    spec: Spec
    terms: Any
    base: str
    now: datetime
    max_codes: int = 5000

    def wrong(self, what: str) -> Refusal:
        """400: the value has the wrong form. Names the parameter, never the value."""
        return bad_request(f"search parameter '{self.name}': {what}")

    def unsupported(self, what: str) -> Refusal:
        """400: not supported, by name."""
        return not_supported(f"search parameter '{self.name}': {what}")
