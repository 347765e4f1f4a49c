"""Seeded synthetic patients, about 40 resources each, all valid by the gate: the data of the search and load benchmarks.

`patients(count, seed)` gives the resources in load order. Whatever is measured has the same number of matches at every size: each tenth of a thousand patients is alike,
and what a query looks for is planted once (`planted`), whatever the number of patients around it.

    python -m tests.bench.synthetic 1000 OUT.ndjson
"""

import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from conformance.codec import encode

Resource = dict[str, Any]
LOINC, UCUM, SNOMED = "http://loinc.org", "http://unitsofmeasure.org", "http://snomed.info/sct"
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
LABS = (
    ("718-7", "Hemoglobin [Mass/volume] in Blood", "g/dL", 8, 18),
    ("2345-7", "Glucose [Mass/volume] in Serum or Plasma", "mg/dL", 60, 240),
    ("2160-0", "Creatinine [Mass/volume] in Serum or Plasma", "mg/dL", 0.4, 4),
    ("2823-3", "Potassium [Moles/volume] in Serum or Plasma", "mmol/L", 2.5, 6.5),
    ("6690-2", "Leukocytes [#/volume] in Blood", "10*3/uL", 2, 20),
    ("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood", "%", 4, 14),
)
FAMILIES = ("Garcia", "Kim", "Novak", "Okafor", "Rossi", "Silva", "Tanaka", "Weber", "Yilmaz", "Zhang", "Andersen", "Dubois")
GIVEN = ("Ada", "Ben", "Chloe", "Deniz", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kira", "Luis")
CITIES = ("Aarhus", "Bilbao", "Cork", "Delft", "Essen", "Faro")
START = datetime(2015, 1, 1, tzinfo=UTC)
DAYS = 3285  # nine years; what is planted lies behind
PLANTED = datetime(2025, 3, 1, 9, 0, tzinfo=UTC)
PLANTED_LAB = ("33914-3", "Glomerular filtration rate/1.73 sq M.predicted", "mL/min/{1.73_m2}", 10, 120)


def patients(count: int, seed: int = 7) -> Iterator[Resource]:
    """All resources of `count` patients, the planted ones among the first."""
    yield from practice()
    yield from planted()
    for number in range(count):
        yield from person(number, random.Random(seed * 1_000_003 + number))


def practice() -> Iterator[Resource]:
    """The organisation and practitioners that all refer to."""
    yield {"resourceType": "Organization", "id": "org", "name": "Synthetic General Hospital", "active": True}
    for number in range(20):
        yield {
            "resourceType": "Practitioner",
            "id": f"dr{number}",
            "name": [{"family": FAMILIES[number % 12], "given": [GIVEN[number % 12]]}],
            "active": True,
        }


def planted() -> Iterator[Resource]:
    """What the measured queries look for: 20 patients of one family with results of one code in one week."""
    for number in range(20):
        pid = f"planted{number}"
        yield _patient(pid, "Quillfeather", GIVEN[number % 12], random.Random(number), mrn=f"PLANTED-{number}")
        for step in range(30):
            when = PLANTED + timedelta(hours=step, minutes=number)
            yield _lab(f"{pid}-gfr{step}", pid, "", PLANTED_LAB, Decimal(20 + (step + number) % 60), when, "dr0")


def person(number: int, rng: random.Random) -> Iterator[Resource]:
    """One patient with encounters, conditions, results, vital signs, prescriptions, immunizations: about 40 resources."""
    pid = f"p{number}"
    yield _patient(pid, rng.choice(FAMILIES), rng.choice(GIVEN), rng)
    for visit in range(3):
        start = START + timedelta(days=rng.randrange(DAYS), hours=rng.randrange(24))
        doctor = f"dr{rng.randrange(20)}"
        eid = f"{pid}-e{visit}"
        yield _encounter(eid, pid, start, doctor)
        yield _condition(f"{pid}-c{visit}", pid, eid, start, rng)
        for step, lab in enumerate(rng.sample(LABS, 6)):
            value = Decimal(str(round(rng.uniform(lab[3], lab[4]), 1)))
            yield _lab(f"{pid}-l{visit}{step}", pid, eid, lab, value, start + timedelta(minutes=20 + step), doctor)
        yield _pressure(f"{pid}-b{visit}", pid, eid, start, rng)
        for step in range(2):
            yield _prescription(f"{pid}-m{visit}{step}", pid, eid, start, doctor, rng)
        yield _report(f"{pid}-r{visit}", pid, eid, start, [f"{pid}-l{visit}{step}" for step in range(6)])
    for step in range(2):
        yield _immunization(f"{pid}-i{step}", pid, START + timedelta(days=rng.randrange(DAYS)))


def _ref(kind: str, rid: str) -> Resource:
    return {"reference": f"{kind}/{rid}"}


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _concept(system: str, code: str, display: str) -> Resource:
    return {"coding": [{"system": system, "code": code, "display": display}], "text": display}


def _patient(pid: str, family: str, given: str, rng: random.Random, mrn: str = "") -> Resource:
    return {
        "resourceType": "Patient",
        "id": pid,
        "identifier": [{"use": "usual", "system": "urn:oid:1.2.3.4", "value": mrn or f"MRN-{pid}"}],
        "active": True,
        "name": [{"use": "official", "family": family, "given": [given, rng.choice(GIVEN)]}],
        "telecom": [{"system": "phone", "value": f"+45 {rng.randrange(10**7, 10**8)}", "use": "home"}],
        "gender": rng.choice(("male", "female")),
        "birthDate": (datetime(1930, 1, 1, tzinfo=UTC) + timedelta(days=rng.randrange(32000))).strftime("%Y-%m-%d"),
        "address": [
            {
                "line": [f"{rng.randrange(1, 200)} Main Street"],
                "city": rng.choice(CITIES),
                "postalCode": str(rng.randrange(10000, 99999)),
                "country": "DK",
            }
        ],
        "managingOrganization": _ref("Organization", "org"),
    }


def _encounter(eid: str, pid: str, start: datetime, doctor: str) -> Resource:
    return {
        "resourceType": "Encounter",
        "id": eid,
        "status": "finished",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB", "display": "ambulatory"},
        "type": [_concept(SNOMED, "185349003", "Encounter for check up")],
        "subject": _ref("Patient", pid),
        "participant": [{"individual": _ref("Practitioner", doctor)}],
        "period": {"start": _stamp(start), "end": _stamp(start + timedelta(minutes=45))},
        "serviceProvider": _ref("Organization", "org"),
    }


def _condition(rid: str, pid: str, eid: str, start: datetime, rng: random.Random) -> Resource:
    code, display = rng.choice((("38341003", "Hypertension"), ("44054006", "Diabetes type 2"), ("195967001", "Asthma"), ("13645005", "COPD")))
    return {
        "resourceType": "Condition",
        "id": rid,
        "clinicalStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]},
        "verificationStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-ver-status", "code": "confirmed"}]},
        "code": _concept(SNOMED, code, display),
        "subject": _ref("Patient", pid),
        "encounter": _ref("Encounter", eid),
        "onsetDateTime": start.strftime("%Y-%m-%d"),
        "recordedDate": _stamp(start),
    }


def _lab(rid: str, pid: str, eid: str, lab: tuple[Any, ...], value: Decimal, when: datetime, doctor: str) -> Resource:
    code, display, unit, low, high = lab
    made: Resource = {
        "resourceType": "Observation",
        "id": rid,
        "status": "final",
        "category": [{"coding": [{"system": CATEGORY, "code": "laboratory", "display": "Laboratory"}]}],
        "code": _concept(LOINC, code, display),
        "subject": _ref("Patient", pid),
        "effectiveDateTime": _stamp(when),
        "issued": _stamp(when + timedelta(hours=2)),
        "performer": [_ref("Practitioner", doctor)],
        "valueQuantity": {"value": value, "unit": unit, "system": UCUM, "code": unit},
        "referenceRange": [
            {"low": {"value": low, "unit": unit, "system": UCUM, "code": unit}, "high": {"value": high, "unit": unit, "system": UCUM, "code": unit}}
        ],
    }
    return made | ({"encounter": _ref("Encounter", eid)} if eid else {})


def _pressure(rid: str, pid: str, eid: str, when: datetime, rng: random.Random) -> Resource:
    parts = (("8480-6", "Systolic blood pressure", rng.randrange(95, 180)), ("8462-4", "Diastolic blood pressure", rng.randrange(55, 110)))
    return {
        "resourceType": "Observation",
        "id": rid,
        "status": "final",
        "category": [{"coding": [{"system": CATEGORY, "code": "vital-signs", "display": "Vital Signs"}]}],
        "code": _concept(LOINC, "85354-9", "Blood pressure panel"),
        "subject": _ref("Patient", pid),
        "encounter": _ref("Encounter", eid),
        "effectiveDateTime": _stamp(when),
        "component": [
            {"code": _concept(LOINC, code, text), "valueQuantity": {"value": value, "unit": "mmHg", "system": UCUM, "code": "mm[Hg]"}}
            for code, text, value in parts
        ],
    }


def _prescription(rid: str, pid: str, eid: str, when: datetime, doctor: str, rng: random.Random) -> Resource:
    code, display = rng.choice(
        (("314076", "lisinopril 10 MG Oral Tablet"), ("860975", "metformin 500 MG Oral Tablet"), ("617314", "atorvastatin 10 MG Oral Tablet"))
    )
    return {
        "resourceType": "MedicationRequest",
        "id": rid,
        "status": "active",
        "intent": "order",
        "medicationCodeableConcept": _concept("http://www.nlm.nih.gov/research/umls/rxnorm", code, display),
        "subject": _ref("Patient", pid),
        "encounter": _ref("Encounter", eid),
        "authoredOn": _stamp(when),
        "requester": _ref("Practitioner", doctor),
        "dosageInstruction": [{"text": "1 tablet daily"}],
    }


def _report(rid: str, pid: str, eid: str, when: datetime, results: list[str]) -> Resource:
    return {
        "resourceType": "DiagnosticReport",
        "id": rid,
        "status": "final",
        "category": [_concept("http://terminology.hl7.org/CodeSystem/v2-0074", "LAB", "Laboratory")],
        "code": _concept(LOINC, "11502-2", "Laboratory report"),
        "subject": _ref("Patient", pid),
        "encounter": _ref("Encounter", eid),
        "effectiveDateTime": _stamp(when),
        "issued": _stamp(when + timedelta(hours=3)),
        "result": [_ref("Observation", one) for one in results],
    }


def _immunization(rid: str, pid: str, when: datetime) -> Resource:
    return {
        "resourceType": "Immunization",
        "id": rid,
        "status": "completed",
        "vaccineCode": _concept("http://hl7.org/fhir/sid/cvx", "140", "Influenza, seasonal, injectable"),
        "patient": _ref("Patient", pid),
        "occurrenceDateTime": _stamp(when),
        "primarySource": True,
    }


def write(count: int, path: Path, seed: int = 7) -> int:
    """NDJSON of all resources; the number of lines."""
    lines = 0
    with path.open("wb") as out:
        for res in patients(count, seed):
            out.write(encode(res) + b"\n")
            lines += 1
    return lines


if __name__ == "__main__":
    print(write(int(sys.argv[1]), Path(sys.argv[2])))
