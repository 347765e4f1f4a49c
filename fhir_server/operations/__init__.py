"""The operation table: one row per $operation that this exchange answers; each is one file of this package.

Routes find a row by name, level and type (`Context.operations`); the CapabilityStatement lists what stands here. To add one: write
`operations/<name>.py` with a handler (Context, Request) -> Reply and its `ROWS`, and name the module in MODULES.
"""

from collections.abc import Mapping
from types import MappingProxyType

from fhir_server.interactions.operation import Operation
from fhir_server.operations import closure, convert_v2, everything, meta, reindex, terminology, validate, versions

MODULES = (closure, convert_v2, everything, meta, reindex, terminology, validate, versions)


def table() -> Mapping[str, tuple[Operation, ...]]:
    """Name (without '$') -> rows."""
    found: dict[str, tuple[Operation, ...]] = {}
    for module in MODULES:
        for row in module.ROWS:
            found[row.name] = (*found.get(row.name, ()), row)
    return MappingProxyType(found)


TABLE = table()
