"""The shape of a $operation in the operation table. https://hl7.org/fhir/R4/operations.html

The table itself is `fhir_server/operations`, which stands above this package; it reaches the routes as `Context.operations`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fhir_server.context import Context, Reply, Request

Handler = Callable[[Context, Request], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One row: an operation and where it may be called.

    name: without the '$'; definition: canonical URL of its OperationDefinition; levels: of 'system', 'type', 'instance';
    types: resource types it is for ('*': all); changes: OperationDefinition.affectsState (GET is then refused); handler: does it;
    takes_bytes: a body that is none of FHIR's formats is handed to it as it came.
    """

    name: str
    definition: str
    levels: frozenset[str]
    types: frozenset[str]
    changes: bool
    handler: Handler
    takes_bytes: bool = False

    def serves(self, level: str, rtype: str) -> bool:
        """True if this row answers calls on that level ('system', 'type', 'instance') and type ('' on system level)."""
        return level in self.levels and (level == "system" or "*" in self.types or rtype in self.types)
