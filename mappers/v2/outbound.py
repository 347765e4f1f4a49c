"""FHIR -> HL7 v2.5.1: ORU^R01 for DiagnosticReports with their Observations, ADT^A01 and ADT^A08 for a Patient and Encounter.

The input is a Bundle that holds the resources and what they refer to; the output one ER7 message, UTF-8, segments ended by CR.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from mappers.v2.encode import Raw, Writer, clock, day, first, join, moment, repeat, text, xad, xpn, xtn
from mappers.v2.run import Element
from mappers.v2.tables import Tables

EVENTS = ("ORU^R01", "ADT^A01", "ADT^A08")
_BIRTH_TIME = "http://hl7.org/fhir/StructureDefinition/patient-birthTime"
_RELIGION = "http://hl7.org/fhir/StructureDefinition/patient-religion"
_KEPT = "urn:hl7-org:v2xml:PID."
_MAIDEN = "http://hl7.org/fhir/StructureDefinition/patient-mothersMaidenName"
# where FHIR has several statuses for one v2 code, or the code map reads several codes as one status
_RESULT = {"final": "F", "preliminary": "P", "corrected": "C", "amended": "A", "cancelled": "X", "entered-in-error": "W", "registered": "I"}
_REPORT = {
    "final": "F",
    "preliminary": "P",
    "corrected": "C",
    "amended": "M",
    "appended": "C",
    "cancelled": "X",
    "registered": "O",
    "partial": "R",
    "entered-in-error": "X",
}
_LEVELS = {"wa": 0, "ro": 1, "bd": 2, "si": 3, "bu": 6, "lvl": 7}


@dataclass(frozen=True, slots=True)
class Envelope:
    """MSH of the message: applications and facilities as (application, facility), control id, time (with zone), processing id."""

    sending: tuple[str, str]
    receiving: tuple[str, str]
    control_id: str
    now: datetime
    processing_id: str = "P"


def build(bundle: Element, event: str, envelope: Envelope, tables: Tables) -> bytes:
    """The message. Raises ValueError for an event that is none of EVENTS, or a Bundle without Patient (ORU: without report)."""
    if event not in EVENTS:
        raise ValueError(f"no mapping to {event}; there are {', '.join(EVENTS)}")
    source = _Bundle(bundle, Writer(tables))
    patient = source.first("Patient")
    if patient is None:
        raise ValueError("the bundle has no Patient")
    lines = [_msh(event, envelope)]
    if event.startswith("ADT"):
        lines += [join("|", "EVN", Raw(event[4:]), moment(envelope.now.isoformat(timespec="seconds"))), *_adt(source, patient)]
    else:
        lines += list(_oru(source, patient))
    return "".join(f"{line}\r" for line in lines).encode()


class _Bundle:
    """Resources of a Bundle by reference and by type."""

    def __init__(self, bundle: Element, writer: Writer) -> None:
        self.writer = writer
        self.by_reference: dict[str, Element] = {}
        self.resources: list[Element] = []
        for entry in bundle.get("entry", []):
            res = entry.get("resource")
            if res:
                self.resources.append(res)
                self.by_reference[entry.get("fullUrl", "")] = res
                if "id" in res:
                    self.by_reference[f"{res['resourceType']}/{res['id']}"] = res

    def all(self, rtype: str) -> Iterator[Element]:
        """Every resource of a type."""
        return (res for res in self.resources if res["resourceType"] == rtype)

    def first(self, rtype: str) -> Element | None:
        """The first resource of a type."""
        return next(self.all(rtype), None)

    def get(self, reference: Element | None) -> Element | None:
        """What a Reference points to, in the bundle."""
        target = (reference or {}).get("reference", "")
        return self.by_reference.get(target) or self.by_reference.get("/".join(target.split("/")[-2:]))

    def staff(self, reference: Element | None) -> str:
        """XCN of a Practitioner, or of the practitioner of a PractitionerRole."""
        found = self.get(reference)
        if found and found["resourceType"] == "PractitionerRole":
            found = self.get(found.get("practitioner"))
        return self.writer.xcn(found) if found and found["resourceType"] == "Practitioner" else ""


@dataclass(slots=True)
class _Fields:
    """Fields of a segment by number."""

    name: str
    values: dict[int, str] = field(default_factory=dict)

    def put(self, number: int, value: str) -> None:
        if value:
            self.values[number] = value

    def line(self) -> Raw:
        last = max(self.values, default=0)
        return Raw("|".join([self.name, *(self.values.get(number, "") for number in range(1, last + 1))]))


def _msh(event: str, envelope: Envelope) -> str:
    kind = f"{event}^{'ORU_R01' if event.startswith('ORU') else 'ADT_A01'}"
    sent = [text(part) for part in (*envelope.sending, *envelope.receiving)]
    now = moment(envelope.now.isoformat(timespec="seconds"))
    return "|".join(
        ["MSH", "^~\\&", *sent, now, "", kind, text(envelope.control_id), envelope.processing_id, "2.5.1", "", "", "", "", "", "UNICODE UTF-8"]
    )


def _pid(source: _Bundle, patient: Element) -> Raw:
    writer, pid = source.writer, _Fields("PID", {1: "1"})
    extensions = {item.get("url"): item for item in patient.get("extension", [])}
    birth = next((item.get("valueDateTime") for item in patient.get("_birthDate", {}).get("extension", []) if item.get("url") == _BIRTH_TIME), None)
    telecom = patient.get("telecom", [])
    pid.put(3, repeat(writer.cx(identifier) for identifier in patient.get("identifier", [])))
    pid.put(5, repeat(xpn(name) for name in patient.get("name", [])))
    pid.put(6, text(extensions.get(_MAIDEN, {}).get("valueString", "")))
    pid.put(7, moment(birth) if birth else day(patient.get("birthDate")))
    pid.put(8, writer.code("AdministrativeSex", patient.get("gender")))
    pid.put(11, repeat(xad(address) for address in patient.get("address", [])))
    pid.put(13, repeat(xtn(point) for point in telecom if point.get("use") != "work"))
    pid.put(14, repeat(xtn(point) for point in telecom if point.get("use") == "work"))
    pid.put(15, writer.cwe(next((item.get("language") for item in patient.get("communication", [])), None)))
    pid.put(16, writer.cwe(patient.get("maritalStatus")))
    pid.put(17, writer.cwe(extensions.get(_RELIGION, {}).get("valueCodeableConcept")))
    pid.put(24, _yes(patient.get("multipleBirthBoolean", True if "multipleBirthInteger" in patient else None)))
    pid.put(25, str(patient.get("multipleBirthInteger", "")))
    pid.put(29, moment(patient.get("deceasedDateTime")))
    pid.put(30, _yes(patient.get("deceasedBoolean", True if "deceasedDateTime" in patient else None)))
    for extension in patient.get("extension", []):
        number = str(extension.get("url", "")).removeprefix(_KEPT)
        if number.isdecimal() and int(number) not in pid.values:
            pid.put(int(number), _kept(writer, extension))
    return pid.line()


def _kept(writer: Writer, extension: Element) -> str:
    """What the mapper kept of a field that FHIR has no element for (but texts, which may be parts of a field only)."""
    kinds: dict[str, Callable[[Any], str]] = {
        "valueCodeableConcept": writer.cwe,
        "valueIdentifier": writer.cx,
        "valueBoolean": _yes,
        "valueDateTime": moment,
    }
    return next((convert(extension[name]) for name, convert in kinds.items() if name in extension), "")


def _yes(value: Any) -> str:
    return "" if value is None else "Y" if value else "N"


def _pv1(source: _Bundle, encounter: Element) -> Raw:
    writer, pv1 = source.writer, _Fields("PV1", {1: "1"})
    stay = encounter.get("hospitalization", {})
    kind = encounter.get("class", {})
    pv1.put(2, writer.code("PatientClass_EncounterClass", kind.get("code")) or text(kind.get("code", "")))
    for place in encounter.get("location", []):
        pv1.values.setdefault(
            {"active": 3, "planned": 3, "completed": 6, "reserved": 42}.get(place.get("status", "active"), 3), _pl(source, place.get("location"))
        )
    pv1.put(4, writer.cwe(first_of(encounter.get("type"))))
    for number, role in ((7, "ATND"), (8, "REF"), (9, "CON"), (17, "ADM")):
        pv1.put(number, repeat(source.staff(member.get("individual")) for member in encounter.get("participant", []) if role in _roles(member)))
    pv1.put(10, writer.cwe(encounter.get("serviceType")))
    pv1.put(14, writer.cwe(stay.get("admitSource")))
    pv1.put(19, repeat(writer.cx(identifier) for identifier in encounter.get("identifier", [])[:1]))
    pv1.put(36, writer.cwe(stay.get("dischargeDisposition")))
    pv1.put(44, moment(encounter.get("period", {}).get("start")))
    pv1.put(45, moment(encounter.get("period", {}).get("end")))
    pv1.put(50, repeat(writer.cx(identifier) for identifier in encounter.get("identifier", [])[1:2]))
    return pv1.line()


def first_of(values: list[Element] | None) -> Element | None:
    """The first element of a list, None of none."""
    return values[0] if values else None


def _roles(member: Element) -> set[str]:
    return {coding.get("code", "") for kind in member.get("type", []) for coding in kind.get("coding", [])}


def _pl(source: _Bundle, reference: Element | None) -> str:
    """A Location and what it is part of -> PL."""
    parts: list[Any] = [""] * 9
    place, steps = source.get(reference), 0
    while place is not None and steps < 10:
        kind = next((coding.get("code", "") for coding in place.get("physicalType", {}).get("coding", [])), "wa")
        parts[_LEVELS.get(kind, 0)] = place.get("name", "")
        parts[8] = parts[8] or place.get("description", "")
        place, steps = source.get(place.get("partOf")), steps + 1
    return join("^", *parts)


def _adt(source: _Bundle, patient: Element) -> Iterator[Raw]:
    writer = source.writer
    yield _pid(source, patient)
    for number, contact in enumerate(patient.get("contact", []), 1):
        nk1 = _Fields("NK1", {1: str(number)})
        nk1.put(2, xpn(contact.get("name", {})))
        nk1.put(3, writer.cwe(first_of(contact.get("relationship"))))
        nk1.put(4, xad(contact.get("address", {})))
        nk1.put(5, repeat(xtn(point) for point in contact.get("telecom", [])))
        nk1.put(15, writer.code("AdministrativeSex", contact.get("gender")))
        yield nk1.line()
    encounter = source.first("Encounter")
    yield _pv1(source, encounter) if encounter else Raw("PV1|1|N")
    for number, allergy in enumerate(source.all("AllergyIntolerance"), 1):
        reaction = first_of(allergy.get("reaction")) or {}
        kind = writer.code("AllergenType_AllergyIntoleranceCategory", first(allergy.get("category")))
        severity = writer.code("AllergySeverity_AllergyIntolerance-reaction-severity", reaction.get("severity"))
        symptom = (first_of(reaction.get("manifestation")) or {}).get("text", "")
        yield join("|", "AL1", number, kind, Raw(writer.cwe(allergy.get("code"))), severity, symptom)
    for number, condition in enumerate(source.all("Condition"), 1):
        dg1 = _Fields("DG1", {1: str(number), 6: "W"})
        dg1.put(3, writer.cwe(condition.get("code")))
        dg1.put(5, moment(condition.get("onsetDateTime")))
        yield dg1.line()


def _oru(source: _Bundle, patient: Element) -> Iterator[Raw]:
    reports = list(source.all("DiagnosticReport"))
    if not reports:
        raise ValueError("the bundle has no DiagnosticReport")
    yield _pid(source, patient)
    encounter = source.first("Encounter")
    if encounter:
        yield _pv1(source, encounter)
    for number, report in enumerate(reports, 1):
        order = source.get(first_of(report.get("basedOn")))
        yield _orc(source, report, order)
        yield _obr(source, report, order, number)
        yield from _notes(order or {})
        for count, reference in enumerate(report.get("result", []), 1):
            observation = source.get(reference)
            if observation:
                yield from _obx(source, observation, count)
        specimen = source.get(first_of(report.get("specimen")))
        if specimen:
            yield _spm(source, specimen)


def _numbers(report: Element, order: Element | None) -> tuple[Element | None, Element | None]:
    """Placer and filler order number of a report, by their type."""
    found: dict[str, Element] = {}
    for identifier in [*(order or {}).get("identifier", []), *report.get("identifier", [])]:
        kind = next((coding.get("code") for coding in identifier.get("type", {}).get("coding", [])), "FILL")
        found.setdefault(kind, identifier)
    return found.get("PLAC"), found.get("FILL") or first_of(report.get("identifier"))


def _orc(source: _Bundle, report: Element, order: Element | None) -> Raw:
    writer, orc = source.writer, _Fields("ORC", {1: "RE"})
    placer, filler = _numbers(report, order)
    orc.put(2, writer.ei(placer) if placer else "")
    orc.put(3, writer.ei(filler) if filler else "")
    orc.put(5, writer.code("OrderStatus", (order or {}).get("status")))
    orc.put(12, source.staff((order or {}).get("requester")))
    return orc.line()


def _obr(source: _Bundle, report: Element, order: Element | None, number: int) -> Raw:
    writer, obr = source.writer, _Fields("OBR", {1: str(number)})
    placer, filler = _numbers(report, order)
    period = report.get("effectivePeriod", {})
    obr.put(2, writer.ei(placer) if placer else "")
    obr.put(3, writer.ei(filler) if filler else "")
    obr.put(4, writer.cwe(report.get("code")))
    obr.put(7, moment(report.get("effectiveDateTime") or period.get("start")))
    obr.put(8, moment(period.get("end")))
    obr.put(16, source.staff((order or {}).get("requester")))
    obr.put(22, moment(report.get("issued")))
    obr.put(
        24,
        next(
            (
                coding.get("code", "")
                for kind in report.get("category", [])
                for coding in kind.get("coding", [])
                if "v2-0074" in coding.get("system", "")
            ),
            "",
        ),
    )
    obr.put(25, _REPORT.get(report.get("status", ""), ""))
    return obr.line()


def _obx(source: _Bundle, observation: Element, number: int) -> Iterator[Raw]:
    writer, obx = source.writer, _Fields("OBX", {1: str(number)})
    kind, value, unit = _value(writer, observation)
    if not kind:
        value = _embedded(source, observation)
        kind = "ED" if value else ""
    subid = next(
        (
            part.get("valueString", "")
            for item in observation.get("extension", [])
            if item.get("url", "").endswith("observation-v2-subid")
            for part in item.get("extension", [])
        ),
        "",
    )
    obx.put(2, kind)
    obx.put(3, writer.cwe(observation.get("code")))
    obx.put(4, text(subid))
    obx.put(5, value)
    obx.put(6, unit)
    obx.put(7, text((first_of(observation.get("referenceRange")) or {}).get("text", "") or _range(first_of(observation.get("referenceRange")) or {})))
    obx.put(8, repeat(writer.cwe(item) for item in observation.get("interpretation", [])))
    obx.put(11, _RESULT.get(observation.get("status", ""), ""))
    obx.put(14, moment(observation.get("effectiveDateTime")))
    obx.put(17, writer.cwe(observation.get("method")))
    for reference in observation.get("performer", []):
        found = source.get(reference)
        if found and found["resourceType"] == "Organization":
            obx.values.setdefault(23, writer.xon(found))
        else:
            obx.values.setdefault(16, source.staff(reference))
    yield obx.line()
    yield from _notes(observation)


def _notes(res: Element) -> Iterator[Raw]:
    for count, note in enumerate(res.get("note", []), 1):
        yield join("|", "NTE", count, "", note.get("text", ""))


def _range(reference: Element) -> str:
    low, high = reference.get("low", {}).get("value"), reference.get("high", {}).get("value")
    if low is not None and high is not None:
        return f"{low}-{high}"
    return f">={low}" if low is not None else f"<={high}" if high is not None else ""


def _value(writer: Writer, observation: Element) -> tuple[str, str, str]:
    """(OBX-2, OBX-5, OBX-6) of value[x], or of the components' values as repetitions."""
    name = next((key for key in observation if key.startswith("value")), "")
    value: Any = observation.get(name)
    if not name:
        parts = [_value(writer, component) for component in observation.get("component", [])]
        return (parts[0][0], repeat(part[1] for part in parts), parts[0][2]) if parts else ("", "", "")
    if name == "valueQuantity":
        return _quantity(writer, value)
    if name == "valueSampledData":
        return "NA", _series(value), _unit(writer, value.get("origin", {}))
    if name == "valueRange":
        low, high = value.get("low", {}), value.get("high", {})
        return "SN", join("^", "", low.get("value", ""), "-", high.get("value", "")), _unit(writer, low or high)
    if name == "valueRatio":
        top, bottom = value.get("numerator", {}), value.get("denominator", {})
        return "SN", join("^", top.get("comparator", ""), top.get("value", ""), ":", bottom.get("value", "")), _unit(writer, top)
    simple: dict[str, tuple[str, Callable[[Any], str]]] = {
        "valueCodeableConcept": ("CWE", writer.cwe),
        "valueString": ("TX", text),
        "valueBoolean": ("ID", _yes),
        "valueInteger": ("NM", text),
        "valueTime": ("TM", clock),
        "valueDateTime": ("DTM", moment),
        "valuePeriod": ("DR", lambda period: join("^", moment(period.get("start")), moment(period.get("end")))),
    }
    kind, convert = simple[name]
    return kind, convert(value), ""


def _series(data: Element) -> str:
    """SampledData -> NA: a repetition per dimension."""
    cells, width = str(data.get("data", "")).split(), int(data.get("dimensions", 1))
    return repeat(join("^", *cells[at::width]) for at in range(width))


def _embedded(source: _Bundle, observation: Element) -> str:
    """ED of an attachment whose Binary is in the bundle."""
    for item in observation.get("extension", []):
        attachment = item.get("valueAttachment", {})
        binary = source.get({"reference": attachment.get("url", "")})
        if binary and binary.get("data"):
            kind, _, sub = str(binary.get("contentType", "application/octet-stream")).partition("/")
            return join("^", "", kind, sub, "Base64", binary["data"])
    return ""


def _quantity(writer: Writer, value: Element) -> tuple[str, str, str]:
    if value.get("comparator"):
        return "SN", join("^", value["comparator"], _digits(value.get("value"))), _unit(writer, value)
    return "NM", text(_digits(value.get("value"))), _unit(writer, value)


def _digits(value: Any) -> str:
    """A number as NM writes it: no exponent."""
    return "" if value is None else f"{Decimal(str(value)):f}"


def _unit(writer: Writer, quantity: Element) -> str:
    code, unit = quantity.get("code", ""), quantity.get("unit", "")
    if not code:
        return text(unit)
    return join("^", code, unit if unit != code else "", writer.system_name(quantity.get("system", "")))


def _spm(source: _Bundle, specimen: Element) -> Raw:
    writer, spm = source.writer, _Fields("SPM", {1: "1"})
    numbers = {next((coding.get("code") for coding in item.get("type", {}).get("coding", [])), ""): item for item in specimen.get("identifier", [])}
    ids = [numbers.get("PGN"), numbers.get("FGN")]
    spm.put(2, join("^", *(Raw(writer.ei(item).replace("^", "&")) if item else "" for item in ids)))
    spm.put(4, writer.cwe(specimen.get("type")))
    collected = specimen.get("collection", {})
    spm.put(8, writer.cwe(collected.get("bodySite")))
    spm.put(17, moment(collected.get("collectedDateTime")))
    spm.put(18, moment(specimen.get("receivedTime")))
    return spm.line()
