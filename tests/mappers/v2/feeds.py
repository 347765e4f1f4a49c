"""Messages and look-ups that the tests of mappers/v2 share."""

from typing import Any

from mappers.v2 import convert, message, tables
from mappers.v2.convert import Conversion

MSH = "MSH|^~\\&|LAB^1.2.3^ISO|HOSP|EHR|CLINIC|20240102030405+0100||{}|42|P|2.5.1"


def segment(name: str, fields: dict[int, str]) -> str:
    """A segment with these fields by number."""
    return "|".join([name, *(fields.get(number, "") for number in range(1, max(fields) + 1))])


def mapped(kind: str, *lines: str, **options: Any) -> Conversion:
    """The conversion of a message of a kind ('ORU^R01') with these segments after MSH."""
    raw = "\r".join([MSH.format(kind), *lines]).encode()
    return convert.convert(message.parse(raw), tables.load_tables(), **options)


def resources(conversion: Conversion, rtype: str) -> list[dict[str, Any]]:
    """The resources of a type, in bundle order."""
    return [entry["resource"] for entry in conversion.bundle.get("entry", []) if entry["resource"]["resourceType"] == rtype]


def one(conversion: Conversion, rtype: str) -> dict[str, Any]:
    """The only resource of a type."""
    found = resources(conversion, rtype)
    assert len(found) == 1, [item["resourceType"] for item in found]
    return found[0]


def target(conversion: Conversion, reference: dict[str, Any]) -> dict[str, Any]:
    """The resource that a reference of the bundle points to."""
    return next(entry["resource"] for entry in conversion.bundle["entry"] if entry["fullUrl"] == reference["reference"])
