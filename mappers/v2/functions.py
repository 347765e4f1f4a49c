"""The named conversions that a cell of a table may call (`@concept`): what rows alone cannot say.

Each entry of FUNCTIONS takes the row's code map (or None) and gives `(run, raw, place, level) -> value | None`: raw text, split at the
component mark for level 0 and at the subcomponent mark for level 1.
"""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from mappers.v2 import authority, codings, location, observation, quantities, telecom, times, timings
from mappers.v2.place import At
from mappers.v2.run import Element, Run
from mappers.v2.values import birth_time, number, string

Codes = tuple[str, dict[str, dict[str, str]]]
Convert = Callable[[Run, str, At, int], Any]
Make = Callable[[Codes | None], Convert]


def _only(run: Run, raw: str, level: int) -> str:
    """The first component; that others are left out is noted."""
    parts = codings.split(run, raw, level)
    run.unsaid = any(parts[1:])
    return parts[0]


def _plain(convert: Convert) -> Make:
    return lambda codes: convert


def _authority(run: Run, raw: str, place: At, level: int) -> str | None:
    """HD -> identifier system."""
    parts = authority.parts(run, raw, level)
    found = authority.system(run, *parts)
    run.unsaid = authority.hides(run, parts[1], found)
    return found or None


def _authority_name(run: Run, raw: str, place: At, level: int) -> str | None:
    """HD -> what a person reads: the namespace, else the universal id."""
    namespace, universal, _ = authority.parts(run, raw, level)
    run.unsaid = bool(namespace and universal)
    return namespace or universal or None


def _default_authority(run: Run, raw: str, place: At, level: int) -> str | None:
    return run.source.authority or None


def _ei_system(run: Run, raw: str, place: At, level: int) -> str | None:
    """EI.2-4 -> identifier system; without them the source's own."""
    found = authority.system(run, place.value("EI", 2, 0), place.value("EI", 3, 0), place.value("EI", 4, 0))
    run.unsaid = authority.hides(run, place.value("EI", 3, 0), found)
    return found or run.source.authority or None


def _cnn_system(run: Run, raw: str, place: At, level: int) -> str | None:
    """CNN.9-11 -> identifier system."""
    return authority.system(run, place.value("CNN", 9, 0), place.value("CNN", 10, 0), place.value("CNN", 11, 0)) or None


def _identifier(run: Run, raw: str, place: At, level: int) -> Element | None:
    """EI -> Identifier (value, system)."""
    mark = run.marks[level] if level < 3 else ""
    parts = [run.text(part) for part in (raw.split(mark) if mark else [raw])] + ["", "", ""]
    if not parts[0]:
        return None
    found: Element = {"value": parts[0]}
    system = authority.system(run, parts[1], parts[2], parts[3]) or run.source.authority
    if parts[1] and system:
        found["assigner"] = {"display": parts[1]}
    if any(parts[4:]) or (parts[1] and not system) or authority.hides(run, parts[2], system):
        run.unsaid = True
    return {"system": system, **found} if system else found


def _software(run: Run, raw: str, place: At, level: int) -> str:
    """HD -> MessageHeader.source.endpoint: a URL, by what the universal id says."""
    parts = authority.parts(run, raw, level)
    found = authority.endpoint(run, *parts)
    run.unsaid = authority.hides(run, parts[1], found) or raw.count(run.marks[level]) > 2
    return found


def _joined(run: Run, raw: str, place: At, level: int) -> str | None:
    """All repetitions of the field as lines of one text."""
    segment = place.segment
    if run.repetition > 1:
        return None
    lines = [string(run, part) or "" for part in segment.repetitions(run.field)]
    return "\n".join(lines).strip() or None


def _xhtml(run: Run, raw: str, place: At, level: int) -> Element | None:
    """Text -> Narrative."""
    text = string(run, raw)
    if text is None:
        return None
    safe = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", "<br/>")
    return {"status": "additional", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{safe}</div>'}


def _pointer(run: Run, raw: str, place: At, level: int) -> str | None:
    """RP.1 or a path -> url; what is no URL is percent-encoded."""
    text = run.text(raw)
    return quote(text, safe=":/?#[]@!$&'()*+,;=%-._~") if text else None


def _coding_system(run: Run, raw: str, place: At, level: int) -> str | None:
    """Name of a coding system -> its URI."""
    return codings.system_of(run, run.text(raw)) or None


def _licence_system(run: Run, raw: str, place: At, level: int) -> str | None:
    """DLN.2, the issuing state or country -> identifier system."""
    text = codings.split(run, raw, level)[0]
    return f"urn:id:driver-licence:{quote(text, safe='.-_')}" if text else None


def _text(run: Run, raw: str, place: At, level: int) -> str | None:
    """CWE, CE, ID, IS, ST -> what a person reads: original text, else text, else code."""
    parts = codings.split(run, raw, level)
    shown = parts[8] or parts[1] or parts[0] or None
    codings.check_said(run, parts, shown)
    return shown


def _universal(run: Run, raw: str, place: At, level: int) -> str | None:
    """HD.2 -> URI of the universal id, as its type says; as sent where that names no URI."""
    text = run.text(raw)
    return authority.system(run, "", text, place.value("HD", 3, 0)) or text or None


def _hd_scope(run: Run, raw: str, place: At, level: int) -> str:
    """The system in which a namespace id of HD is unique: the source's."""
    return f"urn:id:{quote(run.source.name, safe='.-_')}:hd" if run.source.name else "urn:id:hd"


def _control_scope(run: Run, raw: str, place: At, level: int) -> str:
    """The system in which a message control id (MSH-10) is unique: its sender's."""
    return f"urn:id:{quote(run.source.name, safe='.-_')}:message" if run.source.name else "urn:id:message"


def _degree(run: Run, raw: str, place: At, level: int) -> str | None:
    """A degree for the suffix of a name: its code."""
    parts = codings.split(run, raw, level)
    codings.check_said(run, parts, parts[0])
    return parts[0] or None


def _whole_name(run: Run, raw: str, place: At, level: int) -> str | None:
    """XPN -> one text: prefix given family suffix (the family name of an FN without its parts)."""
    sub = run.marks[1] or "\x00"
    parts = [run.text(part.split(sub)[0]) for part in place.parts or [raw]] + [""] * 6
    if any(parts[5:]):
        run.unsaid = True
    return " ".join(part for part in (parts[4], parts[1], parts[2], parts[0], parts[3]) if part) or None


def _source_table(run: Run, raw: str, place: At, level: int) -> str | None:
    """XCN.8 -> identifier system of the table that the id number came from."""
    text = run.text(raw.split(run.marks[1])[0] if run.marks[1] else raw)
    return authority.system(run, text) or None


def _telecom_one(run: Run, raw: str, place: At, level: int) -> Element | None:
    """The first ContactPoint of an XTN, for elements that hold one."""
    points = telecom.telecom(run, raw, place, level)
    return points[0] if points else None


def _default_use(use: str) -> Convert:
    """XTN where an empty XTN.2 means the use that the field has by its name."""

    def convert(run: Run, raw: str, place: At, level: int) -> list[Element] | None:
        points = telecom.telecom(run, raw, place, level)
        if not points or all("use" in point for point in points) or codings.split(run, raw, level)[1]:
            return points
        return [point if "use" in point else {**point, "use": use} for point in points]

    return convert


def _language(run: Run, raw: str, place: At, level: int) -> str | None:
    """A language code of ISO 639 in BCP 47's form, None for anything else."""
    text = _only(run, raw, level)
    return text.lower() if text.isalpha() and 2 <= len(text) <= 3 else None


def _processing(run: Run, raw: str, place: At, level: int) -> Element | None:
    """MSH-11.1 -> a tag of table 0103."""
    text = _only(run, raw, level).upper()
    return {"system": "http://terminology.hl7.org/CodeSystem/v2-0103", "code": text} if text else None


def _message_time(run: Run, raw: str, place: At, level: int) -> str | None:
    """MSH-7 as instant."""
    return times.instant(run.header.get("7.1"), run.zone)


def _event_activity(run: Run, raw: str, place: At, level: int) -> Element:
    """The trigger event as a CodeableConcept."""
    trigger = run.message.trigger
    return {
        "coding": [
            {
                "system": "http://terminology.hl7.org/CodeSystem/v2-0003",
                "code": trigger or "unknown",
                "display": f"event - {run.message.code}^{trigger}",
            }
        ]
    }


def _cx_value(run: Run, raw: str, place: At, level: int) -> str | None:
    """CX.1."""
    return _only(run, raw, level) or None


_PRIORITIES = {"S": 1, "A": 2, "P": 3, "C": 3, "T": 1, "R": 5, "STAT": 1, "ASAP": 2, "ROUTINE": 5}


def _priority(run: Run, raw: str, place: At, level: int) -> int | None:
    """Table 0485 -> iCalendar priority (1 highest, 9 lowest)."""
    return _PRIORITIES.get(_only(run, raw, level).upper())


def _minutes(run: Run, raw: str, place: At, level: int) -> int | None:
    """A duration in the unit of the next field (minutes without one) -> whole minutes."""
    amount = number(_only(run, raw, level))
    unit = timings.unit_beside(run, place.segment)
    factor = {"s": 1 / 60, "min": 1, "h": 60, "d": 1440}.get(unit)
    return round(float(amount) * factor) or None if amount is not None and 0 < amount <= timings.MOST_UNITS and factor else None


def _minutes_duration(run: Run, raw: str, place: At, level: int) -> Element | None:
    """NM in minutes -> Duration."""
    amount = number(_only(run, raw, level))
    return {"value": amount, "unit": "min", "system": "http://unitsofmeasure.org", "code": "min"} if amount is not None else None


def _active(run: Run, raw: str, place: At, level: int) -> bool | None:
    """Table 0183: A active, I inactive."""
    return {"A": True, "I": False}.get(_only(run, raw, level).upper())


def _event_status(codes: Codes | None) -> Convert:
    """@event_status: the trigger event -> status; None where the event says nothing of it."""

    def convert(run: Run, raw: str, place: At, level: int) -> str | None:
        row = codes[1].get(run.message.trigger.casefold()) if codes else None
        return (row["code"] or None) if row else None

    return convert


def _day_time(run: Run, raw: str, place: At, level: int) -> str | None:
    return birth_time(run, raw)


FUNCTIONS: dict[str, Make] = {
    "code": codings.code,
    "code_or_sent": codings.code_or_sent,
    "concept": codings.concept,
    "concepts": codings.concepts,
    "bound": codings.bound,
    "coding": codings.coding,
    "alternate": codings.alternate,
    "event": _plain(codings.event),
    "table_code": codings.table_code,
    "coding_system": _plain(_coding_system),
    "licence_system": _plain(_licence_system),
    "text": _plain(_text),
    "universal": _plain(_universal),
    "hd_scope": _plain(_hd_scope),
    "degree": _plain(_degree),
    "whole_name": _plain(_whole_name),
    "source_table": _plain(_source_table),
    "birth_time": _plain(_day_time),
    "untranslated": codings.untranslated,
    "authority": _plain(_authority),
    "authority_name": _plain(_authority_name),
    "default_authority": _plain(_default_authority),
    "ei_system": _plain(_ei_system),
    "cnn_system": _plain(_cnn_system),
    "identifier": _plain(_identifier),
    "endpoint": _plain(_software),
    "joined": _plain(_joined),
    "narrative": _plain(_xhtml),
    "pointer": _plain(_pointer),
    "telecom": _plain(telecom.telecom),
    "telecom_home": _plain(_default_use("home")),
    "telecom_work": _plain(_default_use("work")),
    "language": _plain(_language),
    "processing": _plain(_processing),
    "priority": _plain(_priority),
    "minutes": _plain(_minutes),
    "minutes_duration": _plain(_minutes_duration),
    "active": _plain(_active),
    "document_text": _plain(observation.document_text),
    "message_time": _plain(_message_time),
    "event_activity": _plain(_event_activity),
    "cx_value": _plain(_cx_value),
    "event_status": _event_status,
    "location": _plain(location.location),
    "place_of_ndl": _plain(location.of_ndl),
    "observation_value": _plain(observation.value),
    "components": _plain(observation.components),
    "sub_id": _plain(observation.sub_id),
    "collected": _plain(observation.collected),
    "document": _plain(observation.document),
    "reference_range": _plain(observation.reference_range),
    "unit": _plain(quantities.unit),
    "quantity": _plain(quantities.of_cq),
    "amount": _plain(quantities.of_amount),
    "money": _plain(quantities.money),
    "comparator_quantity": _plain(quantities.of_sn),
    "repeat_pattern": _plain(timings.repeat_pattern),
    "interval": _plain(timings.interval),
    "duration": _plain(timings.duration),
    "timing_duration": _plain(timings.timing_duration),
    "offset_minutes": _plain(timings.offset_minutes),
    "bounds_end": _plain(timings.bounds_end),
    "bounds_start": _plain(timings.bounds_start),
    "minutes_end": _plain(timings.minutes_end),
    "control_scope": _plain(_control_scope),
    "telecom_one": _plain(_telecom_one),
    "offset_end": _plain(timings.end),
}
