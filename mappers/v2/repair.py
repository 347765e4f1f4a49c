"""Rules of R4 that single rows cannot see: periods that end before they start, addresses and phones that an organisation cannot
have, times that must come in pairs. What is taken away is noted as a problem. https://hl7.org/fhir/R4/validation.html
"""

from collections.abc import Callable
from typing import Any

from mappers.v2.dosage import unite
from mappers.v2.problem import WARNING, Problem, erl
from mappers.v2.run import Draft, Element, Run

_PAIRED = frozenset({"denominator", "end", "high", "numerator"})  # one of these at least has each pair that rules compare
# types whose maps make no nested periods or ranges and nothing empty, of which a message may have hundreds
_SHALLOW = frozenset({"Observation", "DiagnosticReport", "Location", "MessageHeader", "Provenance"})


def repair(run: Run, draft: Draft) -> None:
    """Make a finished resource keep the invariants of its type."""
    res = draft.res
    if res["resourceType"] in _SHALLOW:
        for name in ("effectivePeriod", "valuePeriod", "valueRange"):
            if name in res:
                _walk(run, draft, {name: res[name]})
    elif _suspect(res):
        _walk(run, draft, res)
    for rule in _RULES.get(res["resourceType"], ()):
        rule(run, draft, res)


def _note(run: Run, draft: Draft, text: str) -> None:
    run.problems.append(Problem(WARNING, erl(draft.segment.name, draft.segment.occurrence), "199", text))


def _suspect(node: Element) -> bool:
    """True if an element has a part that `_walk` may have to mend: most have none, and looking is quicker than walking."""
    for value in node.values():
        kind = type(value)
        if kind is dict:
            if not value or not _PAIRED.isdisjoint(value) or _suspect(value):
                return True
        elif kind is list:
            if not value:
                return True
            for member in value:
                if not member or (type(member) is dict and _suspect(member)):
                    return True
    return "repeat" in node


def _walk(run: Run, draft: Draft, node: Element) -> None:
    """per-1 everywhere; empty elements never leave."""
    for name, value in list(node.items()):
        kind = type(value)
        if kind is dict:
            _walk(run, draft, value)
            _mend(run, draft, node, name, value)
        elif kind is list:
            for member in value:
                if type(member) is dict:
                    _walk(run, draft, member)
            if not all(value):
                node[name] = value = [member for member in value if member not in ({}, None)]
            if not value:
                del node[name]


def _mend(run: Run, draft: Draft, node: Element, name: str, value: Element) -> None:
    """One element whose parts are mended already."""
    if name == "repeat":
        _timing(value)
    elif ("numerator" in value) != ("denominator" in value):
        value.clear()  # rat-1: half a ratio says nothing; the field that gave no number is kept as it was sent
    if not value:
        del node[name]
    elif "low" in value and "high" in value and _above(value["low"], value["high"]):
        value["low"], value["high"] = value["high"], value["low"]
        _note(run, draft, f"{name} was sent from high to low; it was turned round")
    elif "start" in value and "end" in value and _after(value["start"], value["end"]):
        del value["end"]
        _note(run, draft, f"{name} ends before it starts; the end was left out")


def _timing(repeat: Element) -> None:
    """tim-9 and tim-10: a time of day and an event exclude each other; an offset needs the event."""
    if "timeOfDay" in repeat:
        repeat.pop("when", None)
    if "when" not in repeat:
        repeat.pop("offset", None)


def _above(low: Any, high: Any) -> bool:
    """rng-2: True if low is the higher of two quantities in one unit."""
    if "value" not in low or "value" not in high or low.get("code", low.get("unit")) != high.get("code", high.get("unit")):
        return False
    return bool(low["value"] > high["value"])


def _after(start: Any, end: Any) -> bool:
    """True if start is later than end; compared as far as both are precise."""
    if not (isinstance(start, str) and isinstance(end, str)):
        return False
    size = min(len(start), len(end), 10)
    return start[:size] > end[:size] or (len(start) > 19 and len(end) > 19 and start[19:] == end[19:] and start > end)


def _organization(run: Run, draft: Draft, res: Element) -> None:
    """org-1 to org-3: a name or identifier; no home address, no home phone."""
    for name in ("address", "telecom"):
        for member in res.get(name, []):
            if member.get("use") == "home":
                del member["use"]
    if "name" not in res and "identifier" not in res:
        res["name"] = "unknown"
        draft.assumed.add("name")


_MEDICATIONS = frozenset({"medicationCodeableConcept", "medicationReference"})
_CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
_OVER = frozenset({"inactive", "remission", "resolved"})
_UNKNOWN = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]}


def _appointment(run: Run, draft: Draft, res: Element) -> None:
    """app-1 to app-4: who takes part has a type or is named; start and end stand together and only some statuses need none; only what is cancelled has a reason for it."""
    if "cancelationReason" in res and res.get("status") not in ("cancelled", "noshow"):
        reason = res.pop("cancelationReason")
        res.setdefault("extension", []).append({"url": "urn:hl7-org:v2xml:SCH.6", "valueCodeableConcept": reason})
    for member in res.get("participant", ()):
        if "actor" not in member and "type" not in member:
            member["type"] = [{"text": "unknown"}]
    if res.get("status") in ("proposed", "cancelled", "waitlist") and "start" not in res and "end" not in res:
        return
    for name in ("start", "end"):
        if name not in res:
            res[f"_{name}"] = _UNKNOWN
            draft.assumed.add(f"_{name}")


def _occurrence(run: Run, draft: Draft, res: Element) -> None:
    """occurrence[x] is one: a time or period beside a Timing becomes part of it."""
    timing = res.get("occurrenceTiming")
    if timing is not None and "occurrenceDateTime" in res:
        timing.setdefault("event", []).append(res.pop("occurrenceDateTime"))
    if timing is not None and "occurrencePeriod" in res:
        timing.setdefault("repeat", {}).setdefault("boundsPeriod", res.pop("occurrencePeriod"))
    if "occurrencePeriod" in res:
        res.pop("occurrenceDateTime", None)


def _observation(run: Run, draft: Draft, res: Element) -> None:
    """obs-6: dataAbsentReason only where there is no value."""
    if "dataAbsentReason" in res and any(name.startswith("value") for name in res):
        del res["dataAbsentReason"]


def _allergy(run: Run, draft: Draft, res: Element) -> None:
    """ait-2: no clinical status for what was entered in error."""
    if any(coding.get("code") == "entered-in-error" for coding in res.get("verificationStatus", {}).get("coding", [])):
        res.pop("clinicalStatus", None)
        draft.nulls.add("clinicalStatus")


def _condition(run: Run, draft: Draft, res: Element) -> None:
    """con-4, con-5: only what is over has an end. A problem that is active again, or never was one, loses what was said of its end before."""
    _allergy(run, draft, res)
    if "clinicalStatus" not in res and "clinicalStatus" not in draft.nulls and "abatementDateTime" in draft.nulls:
        res["clinicalStatus"] = {"coding": [{"system": _CLINICAL, "code": "active"}]}  # its end was taken back by ""
    status = {coding.get("code") for coding in res.get("clinicalStatus", {}).get("coding", [])}
    if not status & _OVER and (status or "clinicalStatus" in draft.nulls):
        draft.nulls.add("abatementDateTime")
        ended = res.pop("abatementDateTime", None)
        if ended:
            res.setdefault("extension", []).append({"url": "urn:hl7-org:v2xml:PRB.9", "valueString": ended})


def _medication(run: Run, draft: Draft, res: Element) -> None:
    """medication[x] is one: an order (RXO) and what the pharmacy made of it (RXE) that name the same substance are one Medication; else the later one holds."""
    said = [name for name in res if name in _MEDICATIONS]
    if len(said) < 2:
        return
    concept, url = res["medicationCodeableConcept"], res["medicationReference"]["reference"]
    code = next(one.res for one in run.drafts if one.url == url).setdefault("code", {})
    known = [_code(coding) for coding in code.get("coding", ())]
    if not code or concept == code or any(_code(coding) in known for coding in concept.get("coding", ())):
        code["coding"] = [*code.get("coding", ()), *(coding for coding in concept.get("coding", ()) if _code(coding) not in known)]
        code.update({name: value for name, value in concept.items() if name not in code})
        if not code["coding"]:
            del code["coding"]
        del res["medicationCodeableConcept"]
    else:
        earlier = said[0]
        res.setdefault("extension", []).append({"url": "urn:hl7-org:v2xml:RXO.1", f"value{earlier.removeprefix('medication')}": res.pop(earlier)})


def _code(coding: Element) -> tuple[Any, Any]:
    return coding.get("system"), coding.get("code")


def _patient(run: Run, draft: Draft, res: Element) -> None:
    """pat-1: a contact has a name, telecom, address or organisation."""
    if "contact" in res:
        res["contact"] = [contact for contact in res["contact"] if any(name in contact for name in ("name", "telecom", "address", "organization"))]
        if not res["contact"]:
            del res["contact"]


def _document(run: Run, draft: Draft, res: Element) -> None:
    """What TXA says of a file (its name, its kind) is about the content that an OBX brings, not a second rendition without any."""
    content = res.get("content", [])
    bare = [row for row in content if row.keys() == {"attachment"} and not row["attachment"].keys() & {"data", "url"}]
    full = [row for row in content if row not in bare]
    if bare and full:
        for row in bare:
            full[0]["attachment"] = {**row["attachment"], **full[0]["attachment"]}
        res["content"] = full


_RULES: dict[str, tuple[Callable[[Run, Draft, Element], None], ...]] = {
    "Organization": (_organization,),
    "Appointment": (_appointment,),
    "ServiceRequest": (_occurrence,),
    "Observation": (_observation,),
    "AllergyIntolerance": (_allergy,),
    "Condition": (_condition,),
    "MedicationRequest": (_medication, unite),
    "MedicationDispense": (unite,),
    "Patient": (_patient,),
    "DocumentReference": (_document,),
}
