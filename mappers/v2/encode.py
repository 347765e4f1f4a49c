"""FHIR elements -> HL7 v2 data types (CX CWE XPN XAD XTN XCN PL DTM ...), with the default delimiters; the reverse of the tables.

Codes and systems are turned back through the same code maps and table 0396. https://hl7.org/fhir/R4/datatypes.html
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mappers.v2 import escape
from mappers.v2.escape import Delimiters
from mappers.v2.run import Element
from mappers.v2.tables import Tables

MARKS = Delimiters()
_V2_SYSTEM = re.compile(r"http://terminology\.hl7\.org/CodeSystem/v2-(\d{4})$")
_LINES = "http://hl7.org/fhir/StructureDefinition/humanname-own-"
_USES = {"official": "L", "usual": "D", "nickname": "N", "maiden": "M", "temp": "TEMP", "anonymous": "S", "old": "BAD"}
_ADDRESS = {"home": "H", "work": "B", "billing": "BI", "temp": "C", "old": "BA"}
_TELECOM = {"home": "PRN", "work": "WPN", "mobile": "PRS", "temp": "VHN"}
_EQUIPMENT = {"phone": "PH", "fax": "FX", "pager": "BP", "email": "Internet", "sms": "CP"}


@dataclass(frozen=True, slots=True)
class Writer:
    """Turns elements back with these tables."""

    tables: Tables

    def authority(self, system: str, namespace: str = "") -> str:
        """Identifier system -> HD as subcomponents."""
        if system.startswith("urn:oid:"):
            return join("&", namespace, system[8:], "ISO")
        if system.startswith("urn:uuid:"):
            return join("&", namespace, system[9:], "UUID")
        if system.startswith("urn:id:"):
            return text(system[7:])
        known = _reverse(self.tables, "authorities").get(system, "")
        if known and known[0].isdigit():
            return join("&", namespace, known, "ISO")
        return text(known) if known else join("&", namespace, system, "URI" if system else "")

    def cx(self, identifier: Element) -> str:
        """Identifier -> CX."""
        kind = next((coding.get("code", "") for coding in identifier.get("type", {}).get("coding", [])), "")
        namespace = identifier.get("assigner", {}).get("display", "")
        period = identifier.get("period", {})
        return join(
            "^",
            text(identifier.get("value", "")),
            "",
            "",
            Raw(self.authority(identifier.get("system", ""), namespace)),
            kind,
            "",
            day(period.get("start")),
            day(period.get("end")),
        )

    def ei(self, identifier: Element) -> str:
        """Identifier -> EI."""
        namespace = identifier.get("assigner", {}).get("display", "")
        parts = self.authority(identifier.get("system", ""), namespace).split("&")
        return join("^", text(identifier.get("value", "")), *(Raw(part) for part in parts))

    def system_name(self, system: str) -> str:
        """Code system URI -> the name CWE.3 has for it."""
        match = _V2_SYSTEM.match(system)
        if match:
            return f"HL7{match[1]}"
        known = _reverse(self.tables, "systems").get(system)
        if known:
            return known
        return system.rpartition(":")[2] if system.startswith("urn:id:") else system.removeprefix("urn:oid:")

    def cwe(self, concept: Element | None) -> str:
        """CodeableConcept -> CWE: codes that came from a v2 table first, then the others."""
        if not concept:
            return ""
        codings = sorted(concept.get("coding", []), key=lambda coding: not _V2_SYSTEM.match(coding.get("system", "")))
        parts = [""] * 9
        for at, coding in enumerate(codings[:2]):
            parts[3 * at : 3 * at + 3] = [coding.get("code", ""), coding.get("display", ""), self.system_name(coding.get("system", ""))]
            parts[6 + at] = coding.get("version", "")
        parts[8] = concept.get("text", "") if concept.get("text") != parts[0] else ""
        if not codings:
            parts[1], parts[8] = parts[8], ""
        return join("^", *parts)

    def code(self, name: str, value: str | None) -> str:
        """A FHIR code -> the v2 code that the code map turns into it."""
        return _codes(self.tables, name).get(value or "", "")

    def xcn(self, practitioner: Element | None) -> str:
        """Practitioner -> XCN."""
        if not practitioner:
            return ""
        identifier: Element = next(iter(practitioner.get("identifier", [])), {})
        name: Element = next(iter(practitioner.get("name", [])), {})
        kind = next((coding.get("code", "") for coding in identifier.get("type", {}).get("coding", [])), "")
        degree = next(
            (coding.get("code", "") for held in practitioner.get("qualification", []) for coding in held.get("code", {}).get("coding", [])), ""
        )
        given = [*name.get("given", []), "", ""]
        authority = self.authority(identifier.get("system", ""), identifier.get("assigner", {}).get("display", ""))
        use = _USES.get(name.get("use", ""), "")
        names = (Raw(family(name)), given[0], " ".join(part for part in given[1:] if part), first(name.get("suffix")), first(name.get("prefix")))
        return join("^", identifier.get("value", ""), *names, degree, "", Raw(authority), use, "", "", kind)

    def xon(self, organization: Element | None) -> str:
        """Organization -> XON."""
        if not organization:
            return ""
        identifier: Element = next(iter(organization.get("identifier", [])), {})
        kind = next((coding.get("code", "") for coding in identifier.get("type", {}).get("coding", [])), "")
        return join(
            "^",
            organization.get("name", ""),
            "",
            "",
            "",
            "",
            Raw(self.authority(identifier.get("system", ""))),
            kind,
            "",
            "",
            identifier.get("value", ""),
        )


class Raw(str):
    """Text that is HL7 already: not escaped again."""

    __slots__ = ()


def text(value: Any) -> Raw:
    """A leaf, escaped."""
    return Raw(escape.encode(str(value), MARKS))


def join(mark: str, *parts: Any) -> Raw:
    """Parts escaped (unless Raw) and joined; empty ones at the end left out."""
    return Raw(mark.join(part if isinstance(part, Raw) else text(part) for part in parts).rstrip(mark))


def repeat(parts: Iterable[str]) -> Raw:
    """Repetitions that are not empty."""
    return Raw("~".join(part for part in parts if part))


def first(values: list[str] | None) -> str:
    """The first of a list, '' of none."""
    return values[0] if values else ""


def family(name: Element) -> str:
    """HumanName.family -> FN."""
    extensions = {item.get("url"): item.get("valueString", "") for item in name.get("_family", {}).get("extension", [])}
    return join("&", name.get("family", ""), extensions.get(_LINES + "prefix", ""), extensions.get(_LINES + "name", ""))


def xpn(name: Element) -> str:
    """HumanName -> XPN."""
    given = [*name.get("given", []), ""]
    use = _USES.get(name.get("use", ""), "")
    return join(
        "^", Raw(family(name)), given[0], " ".join(part for part in given[1:] if part), first(name.get("suffix")), first(name.get("prefix")), "", use
    )


def xad(address: Element) -> str:
    """Address -> XAD."""
    lines = address.get("line", [])
    use = _ADDRESS.get(address.get("use", ""), "M" if address.get("type") == "postal" else "")
    fields = [address.get(name, "") for name in ("city", "state", "postalCode", "country")]
    return join("^", first(lines), " ".join(lines[1:]), *fields, use, "", address.get("district", ""))


def xtn(point: Element) -> str:
    """ContactPoint -> XTN."""
    kind, use, value = point.get("system", ""), _TELECOM.get(point.get("use", ""), ""), point.get("value", "")
    if kind == "email":
        return join("^", "", use or "NET", "Internet", value)
    return join("^", value, use, _EQUIPMENT.get(kind, "PH"))


def day(value: str | None) -> str:
    """FHIR date -> DT."""
    return (value or "")[:10].replace("-", "")


def moment(value: str | None) -> str:
    """FHIR dateTime or instant -> DTM, offset included."""
    if not value:
        return ""
    date, _, clock = value.partition("T")
    match = re.match(r"([0-9:]+)(\.\d{1,4})?\d*(Z|[+-]\d\d:\d\d)?$", clock)
    if match is None:
        return date.replace("-", "")
    offset = "+0000" if match[3] == "Z" else (match[3] or "").replace(":", "")
    return date.replace("-", "") + match[1].replace(":", "") + (match[2] or "") + offset


def clock(value: str) -> str:
    """FHIR time -> TM."""
    return value.replace(":", "")


@lru_cache(maxsize=64)
def _reverse_of(rows: tuple[tuple[str, str], ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in rows:
        found.setdefault(value, name)
    return found


def _reverse(tables: Tables, name: str) -> dict[str, str]:
    """URI -> the first name that the table has for it."""
    key = f"reverse {name}"
    if key not in tables.compiled:
        tables.compiled[key] = _reverse_of(tuple(getattr(tables, name).items()))
    found: dict[str, str] = tables.compiled[key]
    return found


def _codes(tables: Tables, name: str) -> dict[str, str]:
    key = f"reverse codes {name}"
    if key not in tables.compiled:
        tables.compiled[key] = _reverse_of(tuple((row["from"], row["code"]) for row in tables.codes[name.casefold()].values() if row["code"]))
    found: dict[str, str] = tables.compiled[key]
    return found
