"""Which modifiers each parameter type takes: the one table that parsing refuses by, and that the README shows (`python -m fhir_server.search.table`)."""

import sys
from collections.abc import Mapping
from types import MappingProxyType

# https://hl7.org/fhir/R4/search.html#modifiers; '[type]' stands for a resource type
MODIFIERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "token": ("missing", "text", "not", "above", "below", "in", "not-in", "of-type"),
        "string": ("missing", "exact", "contains"),
        "reference": ("missing", "identifier", "above", "below", "[type]"),
        "uri": ("missing", "above", "below"),
        "date": ("missing",),
        "number": ("missing",),
        "quantity": ("missing",),
        "composite": ("missing",),
        "special": (),
    }
)
PREFIXED = ("date", "number", "quantity")


def allows(kind: str, modifier: str, types: frozenset[str]) -> bool:
    """True if a parameter of this type takes this modifier ('' always)."""
    allowed = MODIFIERS[kind]
    return not modifier or modifier in allowed or ("[type]" in allowed and modifier in types)


def markdown() -> str:
    """The table of parameter types x modifiers and prefixes."""
    names = list(dict.fromkeys(name for row in MODIFIERS.values() for name in row))
    head = ["type", *(f"`:{name}`" for name in names), "prefixes"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for kind, row in MODIFIERS.items():
        cells = ["yes" if name in row else "" for name in names]
        lines.append(f"| {kind} | {' | '.join(cells)} | {'all nine' if kind in PREFIXED else ''} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(markdown() + "\n")
