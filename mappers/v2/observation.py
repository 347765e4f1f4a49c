"""OBX-5 by OBX-2 -> Observation.value[x], or a document; OBX-7 -> reference range; OBX-4 -> sub-id extension.

Every value type gives the value FHIR has for it; what cannot be read as its type becomes text, so that no result is lost.
https://hl7.org/fhir/R4/observation-definitions.html#Observation.value_x_
"""

import base64
import binascii
import quopri
import re
from collections.abc import Callable
from decimal import Decimal

from mappers.v2 import codings, quantities, recall, telecom, times
from mappers.v2.message import NULL, content
from mappers.v2.place import At
from mappers.v2.run import Element, Run
from mappers.v2.values import NUMBER, first, number, string

Value = Callable[[Run, str, At], Element | None]
MOST_DIGITS = 34
COMPARATORS = ("<", "<=", ">=", ">")
_RANGE = re.compile(r"([+-]?(?:\d{1,17}(?:\.\d{0,16})?|\.\d{1,16}))\s*-\s*([+-]?(?:\d{1,17}(?:\.\d{0,16})?|\.\d{1,16}))$")
_BOUND = re.compile(r"(<=|>=|<|>)\s*([+-]?(?:\d{1,17}(?:\.\d{0,16})?|\.\d{1,16}))$")
_LINES = ("TX", "FT", "ST")
_PARAGRAPHS = ("TX", "FT")
_DOCUMENTS = ("ED", "RP")
_ATTACHMENT = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Observation.value"
_concept = recall.by_settings(codings.concept(None))


def value(run: Run, raw: str, place: At, level: int) -> Element | None:
    """@observation_value: OBX-5, one repetition, as {'valueX': ...}. Lines of a text that came as repetitions are joined."""
    segment = place.segment
    kind = segment.text(2)
    kind = kind if kind in _TYPES else segment.get("2").strip().upper()
    mark = segment.delimiters.repetition
    if not mark or mark not in segment.text(5):
        return _typed(run, kind, raw, place)
    if kind in _PARAGRAPHS and len(segment.repetitions(5)) > 1:
        if run.repetition > 1:
            return None
        text = "\n".join(string(run, part) or "" for part in segment.repetitions(5)).strip()
        return {"valueString": text} if text else None
    if run.repetition > 1 or (len(segment.repetitions(5)) > 1 and kind not in ("NA", "MA")):
        return None
    return _typed(run, kind, raw, place)


def components(run: Run, raw: str, place: At, level: int) -> list[Element] | None:
    """@components: each repetition of a value becomes a component, with the code and reference range of the observation.

    Repetitions of TX and FT are no values of their own but lines (HL7 v2.5.1, 2.A.78).
    """
    segment = place.segment
    mark = segment.delimiters.repetition
    if not mark or mark not in segment.text(5):
        return None
    kind = segment.get("2").strip().upper()
    reps = segment.repetitions(5)
    if kind in (*_PARAGRAPHS, "NA", "MA") or len(reps) < 2 or run.repetition > 1:
        return None
    limits = reference_range(run, segment.repetitions(7)[0], place, 0) if segment.valued(7) else None
    code = _concept(run, segment.repetitions(3)[0], place, 0) if segment.repetitions(3) else None
    made = []
    for part in reps:
        if content(part, segment.delimiters):
            found = _attached(run, part, kind) if kind in _DOCUMENTS else _typed(run, kind, part, place)
            if found:
                ranged = {"referenceRange": [limits]} if limits else {}
                made.append({"code": code or {"text": "unknown"}, **found, **ranged})
    return made or None


def _attached(run: Run, raw: str, kind: str) -> Element | None:
    """A document as a component's value: R5's valueAttachment."""
    found = _document(run, raw, kind)
    return {"extension": [{"url": _ATTACHMENT, "valueAttachment": found}]} if found else None


def _typed(run: Run, kind: str, raw: str, place: At) -> Element | None:
    convert = _TYPES.get(kind)
    if convert is None:
        if not kind:
            convert = _guess
        elif kind not in ("ED", "RP"):
            run.warn("103", "OBX-2 is no value type; the value is kept as text")
            convert = _text
        else:
            return None
    found = convert(run, raw, place)
    if found is None:
        text = string(run, raw)
        if text is None:
            return None
        run.warn("102", f"OBX-5 is no {kind}; it is kept as text")
        return {"valueString": text}
    return found


def _text(run: Run, raw: str, place: At) -> Element | None:
    text = string(run, raw)
    return {"valueString": text} if text else None


def _guess(run: Run, raw: str, place: At) -> Element | None:
    """Without OBX-2: a number with a unit is a quantity, anything else text."""
    if NUMBER.match(run.text(raw)) and place.segment.valued(6):
        return _numeric(run, raw, place)
    return _text(run, raw, place)


def _unit(run: Run, place: At) -> Element:
    """OBX-6 as unit, system and code: shared by all that have it, so to be copied into what is made of it."""
    raw = place.segment.text(6)
    run.landed.add(6)
    found = run.units.get(raw)
    if found is None:
        mark = place.segment.delimiters.repetition
        before, run.unsaid = run.unsaid, False
        made = quantities.units(run, raw.split(mark, 1)[0] if mark and mark in raw else raw, 0)
        found = run.units[raw] = made, run.unsaid or bool(mark and mark in raw)
        run.unsaid = before
    if found[1]:
        run.leftover[6] = [raw]
    return found[0]


def _numeric(run: Run, raw: str, place: At) -> Element | None:
    if len(raw) <= MOST_DIGITS and raw.isascii() and raw.replace(".", "", 1).isdecimal() and raw[0] != "." != raw[-1]:
        return {"valueQuantity": {"value": Decimal(raw), **_unit(run, place)}}
    found = quantities.compared(first(run, raw))
    if found is None:
        return None
    made: Element = {"value": found[1]}
    if found[0]:
        made["comparator"] = found[0]
    made.update(_unit(run, place))
    return {"valueQuantity": made}


def _structured(run: Run, raw: str, place: At) -> Element | None:
    """SN: comparator ^ number ^ separator ^ number; some senders begin with an empty component (^<^5)."""
    parts = codings.split(run, raw, 0)
    if not parts[0] and parts[1] in COMPARATORS:
        parts = [*parts[1:], ""]
    sign, one, between, other = parts[0], number(parts[1]), parts[2], number(parts[3])
    unit = _unit(run, place)
    comparator = {"comparator": sign} if sign in COMPARATORS else {}
    if one is None or sign not in ("", "=", *COMPARATORS):
        return _sn_text(parts, unit)
    if between == "-" and other is not None and not comparator:
        return {"valueRange": {"low": {"value": one, **unit}, "high": {"value": other, **unit}}}
    if between in (":", "/") and other is not None:
        return {"valueRatio": {"numerator": {**comparator, "value": one, **unit}, "denominator": {"value": other, **unit}}}
    if not between and other is None:
        return {"valueQuantity": {**comparator, "value": one, **unit}}
    return _sn_text(parts, unit)


def _sn_text(parts: list[str], unit: Element) -> Element | None:
    text = " ".join(part for part in [*parts[:4], unit.get("unit", "")] if part)
    return {"valueString": text} if text else None


def _coded(run: Run, raw: str, place: At) -> Element | None:
    found = _concept(run, raw, place, 0)
    return {"valueCodeableConcept": found} if found else None


def _date_time(run: Run, raw: str, place: At) -> Element | None:
    found = times.date_time(first(run, raw), run.zone)
    return {"valueDateTime": found} if found else None


def _time(run: Run, raw: str, place: At) -> Element | None:
    found = times.time(first(run, raw))
    return {"valueTime": found} if found else None


def _period(run: Run, raw: str, place: At) -> Element | None:
    parts = codings.split(run, raw, 0)
    made = {name: found for name, found in (("start", times.date_time(parts[0], run.zone)), ("end", times.date_time(parts[1], run.zone))) if found}
    return {"valuePeriod": made} if made and len(made) == bool(parts[0]) + bool(parts[1]) else None


def _number_range(run: Run, raw: str, place: At) -> Element | None:
    parts = codings.split(run, raw, 0)
    unit = _unit(run, place)
    made = {name: {"value": found, **unit} for name, found in (("low", number(parts[0])), ("high", number(parts[1]))) if found is not None}
    return {"valueRange": made} if made else None


def _series(run: Run, raw: str, place: At) -> Element | None:
    """NA, MA: all numbers, repetitions are further channels or lines -> SampledData (period unknown, 1 dimension per repetition)."""
    rows = [[run.text(part) for part in rep.split(run.marks[0])] for rep in place.segment.repetitions(5)]
    width = max(len(row) for row in rows)
    if not all(NUMBER.match(cell) or not cell for row in rows for cell in row):
        return None
    cells = [(row[place_in] if place_in < len(row) else "") or "E" for place_in in range(width) for row in rows]
    origin: Element = {"value": Decimal(0), **_unit(run, place)}
    return {"valueSampledData": {"origin": origin, "period": Decimal(1), "dimensions": len(rows), "data": " ".join(cells)}}


def _boolean(run: Run, raw: str, place: At) -> Element | None:
    text = first(run, raw).upper()
    return {"valueBoolean": text == "Y"} if text in ("Y", "N") else _text(run, raw, place)


def _identifier(run: Run, raw: str, place: At) -> Element | None:
    parts = codings.split(run, raw, 0)
    shown = " ".join(part for part in parts if part)
    return {"valueString": shown} if shown else None


def _spaced(run: Run, raw: str, place: At) -> Element | None:
    """Names, addresses: Observation has no such value; the parts as text, in order."""
    flat = raw.replace(run.marks[1], run.marks[0]) if run.marks[1] else raw
    shown = " ".join(part for part in (run.text(piece) for piece in flat.split(run.marks[0])) if part)
    return {"valueString": shown} if shown else None


def _telecom(run: Run, raw: str, place: At) -> Element | None:
    points = telecom.telecom(run, raw, place, 0) or []
    return {"valueString": ", ".join(str(point["value"]) for point in points)} if points else _spaced(run, raw, place)


def _composite_quantity(run: Run, raw: str, place: At) -> Element | None:
    found = quantities.of_cq(run, raw, place, 0)
    return {"valueQuantity": {**_unit(run, place), **found}} if found else None


def _price(run: Run, raw: str, place: At) -> Element | None:
    found = quantities.money(run, raw, place, 0)
    if found is None:
        return None
    currency = {"unit": found["currency"], "system": "urn:iso:std:iso:4217", "code": found["currency"]} if "currency" in found else {}
    return {"valueQuantity": {"value": found["value"], **currency}}


_TYPES: dict[str, Value] = {
    **dict.fromkeys(("NM", "SI"), _numeric),
    "SN": _structured,
    **dict.fromkeys(("ST", "TX", "FT", "VR", "GTS"), _text),
    **dict.fromkeys(("CE", "CWE", "CNE", "CF", "IS", "ID", "CD", "CK_"), _coded),
    **dict.fromkeys(("DT", "DTM", "TS"), _date_time),
    "TM": _time,
    "DR": _period,
    "NR": _number_range,
    **dict.fromkeys(("NA", "MA"), _series),
    **dict.fromkeys(("CQ",), _composite_quantity),
    **dict.fromkeys(("MO", "CP"), _price),
    **dict.fromkeys(("EI", "CX", "CK", "CN", "HD", "OG", "EIP"), _identifier),
    **dict.fromkeys(("XPN", "PN", "XAD", "AD", "XCN", "XON", "PL", "FN", "SAD", "JCC", "RI", "VH"), _spaced),
    **dict.fromkeys(("XTN", "TN"), _telecom),
}


def sub_id(run: Run, raw: str, place: At, level: int) -> Element | None:
    """@sub_id: OBX-4 (ST, or OG from 2.8.2) -> the observation-v2-subid extension."""
    url = "http://hl7.org/fhir/StructureDefinition/observation-v2-subid"
    if raw.isalnum():
        return {"url": url, "extension": [{"url": "original-sub-identifier", "valueString": raw}]}
    parts = codings.split(run, raw, level)
    rows: list[Element] = []
    if parts[0]:
        rows.append({"url": "original-sub-identifier", "valueString": parts[0]})
    for text, name in ((parts[1], "group"), (parts[2], "sequence")):
        if NUMBER.match(text):
            rows.append({"url": name, "valueDecimal": Decimal(text)})
    if parts[3]:
        rows.append({"url": "identifier", "valueString": parts[3]})
    codings.check_said(run, parts, rows)
    return {"url": url, "extension": rows} if rows else None


def reference_range(run: Run, raw: str, place: At, level: int) -> Element | None:
    """@reference_range: OBX-7: the text always; low and high only where all of it is a range or a bound. Kept per message."""
    key = (raw, place.segment.text(6))
    found: Element | None = run.ranges.get(key)
    if found is None:
        made = _reference_range(run, raw, place)
        if made is None:
            return None
        found = run.ranges[key] = made
    copied = found.copy()
    for name in ("low", "high"):
        if name in copied:
            copied[name] = copied[name].copy()
    return copied


def _reference_range(run: Run, raw: str, place: At) -> Element | None:
    text = string(run, raw)
    if text is None:
        return None
    made: Element = {}
    found = _RANGE.match(text)
    bound = _BOUND.match(text)
    unit = _unit(run, place) if found or bound else {}
    if found and Decimal(found[1]) <= Decimal(found[2]):
        made = {"low": {"value": Decimal(found[1]), **unit}, "high": {"value": Decimal(found[2]), **unit}}
    elif bound:
        made = {"high" if bound[1].startswith("<") else "low": {"value": Decimal(bound[2]), **unit}}
    return {**made, "text": text}


def collected(run: Run, raw: str, place: At, level: int) -> Element | None:
    """@collected: OBR-7, or OBR-7 to OBR-8, of the order that a result stands under: when it was observed if it does not say so itself (HL7 v2.8 7.4.2.14)."""
    fields = place.segment.fields
    order = place.scope.segment("OBR") if len(fields) < 15 or fields[14] in ("", NULL) else None
    if order is None:
        return None
    key = ("collected", str(order.index))
    if key not in run.cache:
        start, end = (times.date_time(order.get(f"{number}.1"), run.zone) for number in (7, 8))
        run.cache[key] = (start, end) if start else None
    found = run.cache[key]
    if found is None:
        return None
    start, end = found
    return {"effectivePeriod": {"start": start, "end": end}} if end and end != start else {"effectiveDateTime": start}


def document(run: Run, raw: str, place: At, level: int) -> Element | None:
    """@document: OBX-5 of type ED or RP -> Attachment; the bytes of an ED become one Binary that the Attachment points to."""
    kind = place.segment.get("2").strip().upper()
    if kind not in ("ED", "RP"):
        return None
    return _document(run, raw, kind)


def _document(run: Run, raw: str, kind: str) -> Element | None:
    key = ("document", raw)
    if key not in run.cache:
        run.cache[key] = _embedded(run, raw) if kind == "ED" else _pointed(run, raw)
    found: Element | None = run.cache[key]
    run.unsaid = kind == "RP" and bool(codings.split(run, raw, 0)[1])
    return dict(found) if found else None


def document_text(run: Run, raw: str, place: At, level: int) -> Element | None:
    """@document_text: all text of the document's OBX segments, at the first of them, as one text/plain Attachment."""
    if place.segment.get("2").strip().upper() not in _LINES or ("text of document", "") in run.cache:
        return None
    run.cache[("text of document", "")] = True
    lines = []
    for segment in run.message.segments[place.segment.index :]:
        if segment.name == "TXA":
            del run.cache[("text of document", "")]
            break
        if segment.name == "OBX" and segment.get("2").strip().upper() in _LINES:
            lines += [string(run, part) or "" for part in segment.repetitions(5)]
    text = "\n".join(lines).strip()
    return {"contentType": "text/plain", "data": base64.b64encode(text.encode()).decode()} if text else None


def _embedded(run: Run, raw: str) -> Element | None:
    """ED: source ^ type ^ subtype ^ encoding ^ data."""
    mark = run.marks[0]
    head, data = raw.split(mark, 4)[:4], (raw.split(mark, 4) + [""] * 5)[4]
    parts = [run.text(part) for part in head] + [""] * 4
    kind = _media_type(run, parts[1], parts[2])
    payload = _payload(run, data, parts[3].upper())
    if payload is None:
        run.warn("102", "the data of an ED cannot be decoded as its encoding says")
        return {"contentType": kind, "title": parts[0] or "undecodable data"}
    draft = run.keep(run.draft("Binary", {"contentType": kind, "data": payload}))
    made: Element = {"contentType": kind, "url": draft.url}
    draft.refs.append({"reference": draft.url})
    return {**made, "title": parts[0]} if parts[0] else made


def _payload(run: Run, data: str, encoding: str) -> str | None:
    """base64 of the data: ED.4 `Base64` (with its padding or without), `Hex`, `A` (escaped text); not of the standard: quoted-printable."""
    try:
        if encoding == "BASE64":
            compact = "".join((run.decode(data) if "\\" in data else data).split())
            compact += "=" * (-len(compact) % 4)
            base64.b64decode(compact, validate=True)
            return compact or None
        if encoding == "HEX":
            return base64.b64encode(bytes.fromhex("".join(data.split()))).decode() or None
    except (binascii.Error, ValueError):
        return None
    text = run.decode(data)
    if encoding in ("QP", "QUOTED-PRINTABLE"):
        return base64.b64encode(quopri.decodestring(text.encode())).decode() or None
    return base64.b64encode(text.encode()).decode() if text and text != NULL else None


def _media_type(run: Run, kind: str, sub: str) -> str:
    """ED.2 and ED.3 -> MIME type, by tables/codes/MediaType.csv for what senders write instead of one."""
    if "/" in sub or "/" in kind:
        return (sub if "/" in sub else kind).lower()
    rows = run.tables.codes["mediatype"]
    row = rows.get(f"{kind}/{sub}".casefold()) or rows.get(sub.casefold()) or rows.get(kind.casefold())
    if row:
        return str(row["code"])
    if kind.lower() in ("application", "audio", "image", "text", "video", "multipart") and sub:
        return f"{kind}/{sub}".lower()
    return "application/octet-stream"


def _pointed(run: Run, raw: str) -> Element | None:
    """RP: pointer ^ application ^ type ^ subtype."""
    parts = codings.split(run, raw, 0)
    if not parts[0]:
        return None
    made: Element = {"contentType": _media_type(run, parts[2], parts[3])} if parts[2] or parts[3] else {}
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:\S+$", parts[0]):
        made["url"] = parts[0]
    else:
        made["title"] = parts[0]
    return made
