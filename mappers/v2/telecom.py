"""XTN and TN -> ContactPoints: a number and an address in one repetition are two. https://hl7.org/fhir/R4/datatypes.html#ContactPoint"""

from mappers.v2 import times
from mappers.v2.codings import check_said, split
from mappers.v2.place import At
from mappers.v2.run import Element, Run

_EXT = "http://hl7.org/fhir/StructureDefinition/contactpoint-"
_CODED = frozenset({2, 3, 13, 14})  # use, equipment, times: they show as FHIR codes and times
_PARTS = ((5, "country"), (6, "area"), (7, "local"), (8, "extension"))


def telecom(run: Run, raw: str, place: At, level: int) -> list[Element] | None:
    """@telecom: all ContactPoints of one repetition."""
    parts = split(run, raw, level)
    use, kind = _code(run, "TelecommunicationUseCode", parts[1]), _code(run, "TelecommunicationEquipmentType", parts[2])
    made = []
    address, number = parts[3], _number(parts)
    if not address and "@" in number and kind != "phone":
        address, number = number, ""
    if number:
        made.append(_point(run, number, kind if kind and kind != "email" else "phone", use, parts))
    if address:
        made.append(_point(run, address, "email" if "@" in address or kind in (None, "email") else kind, use, parts, address=True))
    check_said(run, parts, made, _CODED)
    run.unsaid = run.unsaid or bool(parts[1] and not use) or bool(parts[2] and not kind)
    return made or None


def _number(parts: list[str]) -> str:
    """XTN.12, else XTN.1, else the number composed of its parts."""
    if parts[11] or parts[0]:
        return parts[11] or parts[0]
    country, area, local, extension = parts[4:8]
    if not local:
        return ""
    text = " ".join(part for part in (f"+{country.lstrip('+')}" if country else "", area, local) if part)
    return f"{text} X{extension}" if extension else text


def _point(run: Run, value: str, system: str | None, use: str | None, parts: list[str], *, address: bool = False) -> Element:
    made: Element = {"system": system or "other", "value": value}
    if use:
        made["use"] = use
    extensions = [] if address else [{"url": _EXT + name, "valueString": parts[number - 1]} for number, name in _PARTS if parts[number - 1]]
    for number, text in ((1, parts[0] if parts[11] and parts[0] != value else ""), (9, parts[8])):
        if text and not address:
            extensions.append({"url": f"urn:hl7-org:v2xml:XTN.{number}", "valueString": text})
    if extensions:
        made["extension"] = extensions
    period = {name: text for name, text in (("start", _time(run, parts[12])), ("end", _time(run, parts[13]))) if text}
    if period:
        made["period"] = period
    if parts[17].isdecimal() and 0 < int(parts[17]) < 2147483648:
        made["rank"] = int(parts[17])
    return made


def _time(run: Run, text: str) -> str | None:
    return times.date_time(text, run.zone) if text else None


def _code(run: Run, name: str, text: str) -> str | None:
    if not text:
        return None
    row = run.tables.codes[name.casefold()].get(text.casefold())
    return (row["code"] or None) if row else None
