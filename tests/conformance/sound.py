"""Small sound resources of 25 types, to plant errors in."""

from decimal import Decimal
from typing import Any

UCUM = "http://unitsofmeasure.org"
THO = "http://terminology.hl7.org/CodeSystem/"
SUBJECT = {"reference": "Patient/1"}
CODE = {"coding": [{"system": "http://loinc.org", "code": "718-7"}], "text": "Haemoglobin"}
TEXT = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml"><p>seen</p></div>'}


def concept(system: str, code: str) -> dict[str, Any]:
    """A CodeableConcept of one coding of terminology.hl7.org."""
    return {"coding": [{"system": THO + system, "code": code}]}


SOUND: dict[str, dict[str, Any]] = {
    "Patient": {
        "id": "p1",
        "text": TEXT,
        "identifier": [{"system": "urn:oid:1.2.3", "value": "1", "use": "usual"}],
        "active": True,
        "name": [{"family": "Low", "given": ["Ann", "B"]}],
        "telecom": [{"system": "phone", "value": "1", "rank": 1}],
        "gender": "female",
        "birthDate": "1970-01-01",
        "address": [{"line": ["1 Road"], "city": "X", "period": {"start": "2000", "end": "2001"}}],
        "contact": [{"name": {"text": "N"}}],
        "communication": [{"language": {"text": "en"}}],
        "link": [{"other": {"reference": "Patient/2"}, "type": "refer"}],
        "managingOrganization": {"reference": "Organization/1"},
        "extension": [{"url": "http://example.org/x", "valueString": "v"}],
    },
    "Observation": {
        "id": "o1",
        "status": "final",
        "category": [concept("observation-category", "laboratory")],
        "code": CODE,
        "subject": SUBJECT,
        "effectiveDateTime": "2020-01-01T10:00:00Z",
        "issued": "2020-01-01T10:00:00.5+01:00",
        "performer": [{"reference": "Practitioner/1"}],
        "valueQuantity": {"value": Decimal("1.50"), "unit": "g/dL", "system": UCUM, "code": "g/dL"},
        "referenceRange": [{"low": {"value": 1, "unit": "g"}, "high": {"value": 2, "unit": "g"}}],
        "component": [{"code": {"text": "x"}, "valueString": "v"}],
        "note": [{"text": "n"}],
    },
    "Condition": {
        "clinicalStatus": concept("condition-clinical", "active"),
        "verificationStatus": concept("condition-ver-status", "confirmed"),
        "code": CODE,
        "subject": SUBJECT,
        "onsetAge": {"value": 5, "unit": "years", "system": UCUM, "code": "a"},
        "recordedDate": "2020",
        "stage": [{"summary": {"text": "I"}}],
        "evidence": [{"code": [{"text": "x"}]}],
    },
    "Encounter": {
        "status": "finished",
        "class": {"system": THO + "v3-ActCode", "code": "AMB"},
        "subject": SUBJECT,
        "period": {"start": "2020-01-01", "end": "2020-01-02"},
        "statusHistory": [{"status": "planned", "period": {"start": "2020"}}],
        "diagnosis": [{"condition": {"reference": "Condition/1"}, "rank": 1}],
        "location": [{"location": {"reference": "Location/1"}, "status": "active"}],
    },
    "MedicationRequest": {
        "status": "active",
        "intent": "order",
        "medicationCodeableConcept": {"text": "x"},
        "subject": SUBJECT,
        "authoredOn": "2020-01-01",
        "dosageInstruction": [
            {
                "timing": {"repeat": {"frequency": 1, "period": 1, "periodUnit": "d"}},
                "doseAndRate": [{"doseQuantity": {"value": 1, "unit": "tab"}}],
                "asNeededBoolean": False,
            }
        ],
        "dispenseRequest": {"numberOfRepeatsAllowed": 3, "quantity": {"value": 30}},
    },
    "DiagnosticReport": {
        "status": "final",
        "code": CODE,
        "subject": SUBJECT,
        "result": [{"reference": "Observation/1"}],
        "issued": "2020-01-01T00:00:00Z",
    },
    "AllergyIntolerance": {"clinicalStatus": concept("allergyintolerance-clinical", "active"), "patient": SUBJECT, "criticality": "low"},
    "Procedure": {
        "status": "completed",
        "subject": SUBJECT,
        "performedPeriod": {"start": "2020", "end": "2021"},
        "performer": [{"actor": {"display": "x"}}],
    },
    "Immunization": {
        "status": "completed",
        "vaccineCode": CODE,
        "patient": SUBJECT,
        "occurrenceDateTime": "2020",
        "education": [{"documentType": "x"}],
        "doseQuantity": {"value": 1},
    },
    "Organization": {"name": "Clinic", "telecom": [{"system": "phone", "value": "1", "use": "work"}], "address": [{"city": "X", "use": "work"}]},
    "Practitioner": {"name": [{"family": "F"}], "qualification": [{"code": {"text": "MD"}}]},
    "Location": {"name": "Ward", "mode": "instance", "position": {"longitude": Decimal("1.5"), "latitude": 2}},
    "Device": {"status": "active", "deviceName": [{"name": "x", "type": "user-friendly-name"}], "udiCarrier": [{"carrierAIDC": "YQ=="}]},
    "Medication": {
        "code": {"text": "x"},
        "ingredient": [{"itemCodeableConcept": {"text": "y"}, "strength": {"numerator": {"value": 1}, "denominator": {"value": 2}}}],
    },
    "ServiceRequest": {"status": "active", "intent": "order", "subject": SUBJECT, "code": CODE, "priority": "routine"},
    "CarePlan": {"status": "active", "intent": "plan", "subject": SUBJECT, "activity": [{"detail": {"status": "scheduled"}}]},
    "Goal": {
        "lifecycleStatus": "active",
        "description": {"text": "x"},
        "subject": SUBJECT,
        "target": [{"measure": {"text": "m"}, "detailString": "x"}],
    },
    "Task": {"status": "requested", "intent": "order", "authoredOn": "2020-01-01", "lastModified": "2020-01-02"},
    "Appointment": {
        "status": "booked",
        "start": "2020-01-01T10:00:00Z",
        "end": "2020-01-01T11:00:00Z",
        "participant": [{"actor": SUBJECT, "status": "accepted"}],
    },
    "Questionnaire": {"status": "active", "item": [{"linkId": "1", "type": "group", "item": [{"linkId": "2", "type": "string", "text": "q"}]}]},
    "QuestionnaireResponse": {"status": "completed", "item": [{"linkId": "1", "answer": [{"valueString": "x"}]}]},
    "Composition": {
        "status": "final",
        "type": CODE,
        "date": "2020",
        "author": [{"reference": "Practitioner/1"}],
        "title": "T",
        "section": [{"title": "S", "text": TEXT}],
    },
    "Bundle": {
        "type": "collection",
        "entry": [{"fullUrl": "http://example.org/fhir/Patient/1", "resource": {"resourceType": "Patient", "id": "1", "active": True}}],
    },
    "ValueSet": {"status": "active", "compose": {"include": [{"system": "urn:x:y", "concept": [{"code": "a"}]}]}},
    "StructureDefinition": {
        "url": "http://example.org/sd",
        "name": "Sd",
        "status": "draft",
        "kind": "resource",
        "abstract": False,
        "type": "Patient",
        "baseDefinition": "http://hl7.org/fhir/StructureDefinition/Patient",
        "derivation": "constraint",
        "differential": {"element": [{"id": "Patient", "path": "Patient", "min": 0, "max": "*"}]},
    },
    "Parameters": {"parameter": [{"name": "a", "valueString": "x"}]},
    "AuditEvent": {
        "type": {"system": THO + "audit-event-type", "code": "rest"},
        "recorded": "2020-01-01T00:00:00Z",
        "agent": [{"requestor": True}],
        "source": {"observer": {"display": "x"}},
        "entity": [{"name": "n"}],
    },
    "DocumentReference": {"status": "current", "content": [{"attachment": {"contentType": "text/plain", "data": "YQ=="}}]},
    "List": {"status": "current", "mode": "working", "entry": [{"item": {"reference": "Condition/1"}}]},
    "Coverage": {"status": "active", "beneficiary": SUBJECT, "payor": [{"reference": "Organization/1"}]},
}
