"""How fast the gate is: `python -m tests.bench.gate` (CPU time, medians; nothing is asserted).

Observations and Patients of about 1 to 3 kB, dict in, issues out, all error-level invariants included; then start-up and memory.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any

ROUNDS, REPEATS = 15, 400
DIV = '<div xmlns="http://www.w3.org/1999/xhtml"><p><b>Result</b></p><table><tr><td>Glucose</td><td>6.3 mmol/l</td></tr></table></div>'


def observation() -> dict[str, Any]:
    """A laboratory result of about 2 kB."""
    return {
        "resourceType": "Observation",
        "id": "f001",
        "meta": {"versionId": "1", "lastUpdated": "2024-05-01T10:00:00Z", "profile": ["http://hl7.org/fhir/StructureDefinition/Observation"]},
        "text": {"status": "generated", "div": DIV},
        "identifier": [{"use": "official", "system": "http://www.bmc.nl/zorgportal/identifiers/observations", "value": "6323"}],
        "basedOn": [{"reference": "ServiceRequest/12"}],
        "status": "final",
        "category": [
            {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory", "display": "Laboratory"}]}
        ],
        "code": {"coding": [{"system": "http://loinc.org", "code": "15074-8", "display": "Glucose [Moles/volume] in Blood"}], "text": "Glucose"},
        "subject": {"reference": "Patient/f001", "display": "P. van de Heuvel"},
        "encounter": {"reference": "Encounter/77"},
        "effectivePeriod": {"start": "2013-04-02T09:30:10+01:00", "end": "2013-04-02T09:40:10+01:00"},
        "issued": "2013-04-03T15:30:10.120+01:00",
        "performer": [{"reference": "Practitioner/f005", "display": "A. Langeveld"}],
        "valueQuantity": {"value": Decimal("6.3"), "unit": "mmol/l", "system": "http://unitsofmeasure.org", "code": "mmol/L"},
        "interpretation": [
            {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation", "code": "H", "display": "High"}]}
        ],
        "note": [{"authorReference": {"reference": "Practitioner/f005"}, "time": "2013-04-03", "text": "Taken after breakfast"}],
        "referenceRange": [
            {
                "low": {"value": Decimal("3.1"), "unit": "mmol/l", "system": "http://unitsofmeasure.org", "code": "mmol/L"},
                "high": {"value": Decimal("6.2"), "unit": "mmol/l", "system": "http://unitsofmeasure.org", "code": "mmol/L"},
                "text": "3.1 to 6.2",
            }
        ],
    }


def patient() -> dict[str, Any]:
    """A patient of about 2 kB."""
    return {
        "resourceType": "Patient",
        "id": "example",
        "meta": {"versionId": "1", "lastUpdated": "2024-05-01T10:00:00Z"},
        "text": {"status": "generated", "div": DIV},
        "identifier": [
            {
                "use": "usual",
                "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}]},
                "system": "urn:oid:1.2.36.146.595.217.0.1",
                "value": "12345",
                "period": {"start": "2001-05-06"},
                "assigner": {"display": "Acme Healthcare"},
            }
        ],
        "active": True,
        "name": [
            {"use": "official", "family": "Chalmers", "given": ["Peter", "James"]},
            {"use": "usual", "given": ["Jim"]},
            {"use": "maiden", "family": "Windsor", "given": ["Peter", "James"], "period": {"end": "2002"}},
        ],
        "telecom": [
            {"use": "home"},
            {"system": "phone", "value": "(03) 5555 6473", "use": "work", "rank": 1},
            {"system": "phone", "value": "(03) 3410 5613", "use": "mobile", "rank": 2},
        ],
        "gender": "male",
        "birthDate": "1974-12-25",
        "_birthDate": {
            "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/patient-birthTime", "valueDateTime": "1974-12-25T14:35:45-05:00"}]
        },
        "deceasedBoolean": False,
        "address": [
            {
                "use": "home",
                "type": "both",
                "text": "534 Erewhon St PeasantVille, Rainbow, Vic  3999",
                "line": ["534 Erewhon St"],
                "city": "PleasantVille",
                "district": "Rainbow",
                "state": "Vic",
                "postalCode": "3999",
                "period": {"start": "1974-12-25"},
            }
        ],
        "contact": [
            {
                "relationship": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0131", "code": "N"}]}],
                "name": {"family": "du Marché", "given": ["Bénédicte"]},
                "telecom": [{"system": "phone", "value": "+33 (237) 998327"}],
                "gender": "female",
                "period": {"start": "2012"},
            }
        ],
        "managingOrganization": {"reference": "Organization/1"},
    }


def rate(judge: Callable[[dict[str, Any]], Any], res: dict[str, Any]) -> float:
    """Resources judged per second of CPU, the median of the rounds."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(REPEATS):
            judge(res)
        times.append((time.process_time() - start) / REPEATS)
    return 1 / median(times)


def start_up() -> None:
    """One line: seconds to import, load and judge a first Patient, and the memory of a process that did; run in a process of its own."""
    start = time.process_time()
    from conformance.spec import load_spec
    from conformance.validate import checker

    spec = load_spec()
    checker(spec, "Patient")(patient())
    first = time.process_time() - start
    for rtype in sorted(spec.types):
        checker(spec, rtype)
    every = time.process_time() - start
    status = Path("/proc/self/status").read_text(encoding="ascii")  # not getrusage: its peak is inherited from the parent process
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    print(f"start-up, import to a first Patient judged: {first:.3f} s; every type compiled: {every:.3f} s; peak memory then {peak:.0f} MB")


def guide() -> None:
    """Profiles of US Core, if the folder of FHIR_SUITES has it as a neighbour."""
    from conformance.spec import load_spec
    from conformance.validate import validate
    from tests.conformance import test_us_core as core

    if not core.PACKAGE.is_file():
        print("US Core 6.1.0 is not there (FHIR_SUITES)")
        return
    spec = load_spec([core.PACKAGE])
    for name, res in core.BASES.items():
        profiles = [core.US + name]
        print(f"us-core-{name}, R4 included: {rate(lambda each, p=profiles: validate(spec, each, profiles=p), res):,.0f}/s")


def main() -> None:
    """Print the figures."""
    from conformance.spec import load_spec
    from conformance.validate import checker

    spec = load_spec()
    for res in (observation(), patient()):
        judge = checker(spec, res["resourceType"])
        assert not [issue for issue in judge(res) if issue.severity == "error"], judge(res)
        size = len(json.dumps(res, default=str))
        bare = {key: value for key, value in res.items() if key != "text"}
        print(f"{res['resourceType']} of {size} bytes: {rate(judge, res):,.0f}/s; without narrative {rate(judge, bare):,.0f}/s")
    guide()
    subprocess.run([sys.executable, "-c", "from tests.bench.gate import start_up; start_up()"], check=True)


if __name__ == "__main__":
    main()
