"""100 and more planted errors, one each, over 30 types: each is found, at the element that is wrong."""

import copy
from decimal import Decimal

import pytest

from conformance.spec import load_spec
from conformance.validate import checker
from tests.conformance.sound import SOUND, SUBJECT, TEXT, UCUM, concept

SPEC = load_spec()
GONE = object()
DIV = '<div xmlns="http://www.w3.org/1999/xhtml">{}</div>'


def div(inner):
    return DIV.format(inner)


# (type, path of keys and indexes to the place, the value put there (GONE: removed), where the error must stand)
PLANTED = [
    # Patient
    ("Patient", "gender", "Female", "Patient.gender"),
    ("Patient", "birthDate", "1970-02-29", "Patient.birthDate"),
    ("Patient", "birthDate", "1970-1-1", "Patient.birthDate"),
    ("Patient", "birthDate", "01/02/1970", "Patient.birthDate"),
    ("Patient", "active", "true", "Patient.active"),
    ("Patient", "name", {"family": "Low"}, "Patient.name"),
    ("Patient", "name.0.given", "Ann", "Patient.name[0].given"),
    ("Patient", "name.0.given.1", "", "Patient.name[0].given[1]"),
    ("Patient", "name.0.given.1", None, "Patient.name[0].given[1]"),
    ("Patient", "name.0._given", [None], "Patient.name[0].given"),
    ("Patient", "name.0.use", "nick", "Patient.name[0].use"),
    ("Patient", "name.0", {}, "Patient.name[0]"),
    ("Patient", "name", [], "Patient.name"),
    ("Patient", "telecom.0.system", GONE, "Patient.telecom[0]"),
    ("Patient", "telecom.0.rank", 0, "Patient.telecom[0].rank"),
    ("Patient", "telecom.0.rank", "1", "Patient.telecom[0].rank"),
    ("Patient", "contact.0.name", GONE, "Patient.contact[0]"),
    ("Patient", "contact.0", {"relationship": [{"text": "x"}]}, "Patient.contact[0]"),
    ("Patient", "communication.0.language", GONE, "Patient.communication[0].language"),
    ("Patient", "link.0.type", "same", "Patient.link[0].type"),
    ("Patient", "link.0.other", {"reference": "Organization/1"}, "Patient.link[0].other"),
    ("Patient", "managingOrganization", {"reference": "Practitioner/1"}, "Patient.managingOrganization"),
    ("Patient", "managingOrganization.reference", "#missing", "Patient.managingOrganization"),
    ("Patient", "address.0.period.end", "1999", "Patient.address[0].period"),
    ("Patient", "id", "a b", "Patient.id"),
    ("Patient", "id", "x" * 65, "Patient.id"),
    ("Patient", "nickname", "A", "Patient.nickname"),
    ("Patient", "deceasedBoolean+deceasedDateTime", (False, "2020"), "Patient.deceased"),
    ("Patient", "identifier.0.system", "urn:oid:1.2.03", "Patient.identifier[0].system"),
    ("Patient", "identifier.0.system", "my system", "Patient.identifier[0].system"),
    ("Patient", "extension.0.url", "x", "Patient.extension[0].url"),
    ("Patient", "extension.0.url", GONE, "Patient.extension[0].url"),
    ("Patient", "extension.0.valueInteger", 1, "Patient.extension[0].value"),
    ("Patient", "extension.0.valueString", GONE, "Patient.extension[0]"),
    (
        "Patient",
        "extension.0",
        {"url": "http://hl7.org/fhir/StructureDefinition/patient-birthPlace", "valueString": "x"},
        "Patient.extension[0].value",
    ),
    (
        "Patient",
        "extension.0",
        {"url": "http://hl7.org/fhir/StructureDefinition/observation-bodyPosition", "valueReference": SUBJECT},
        "Patient.extension[0]",
    ),
    ("Patient", "text.div", div("<script>x</script>"), "Patient.text.div"),
    ("Patient", "text.div", div('<p onclick="x()">a</p>'), "Patient.text.div"),
    ("Patient", "text.div", div('<a href="javascript:x()">a</a>'), "Patient.text.div"),
    ("Patient", "text.div", div("<p>a"), "Patient.text.div"),
    ("Patient", "text.div", div(" "), "Patient.text.div"),
    ("Patient", "text.div", "<p>a</p>", "Patient.text.div"),
    ("Patient", "text.status", "made", "Patient.text.status"),
    ("Patient", "contained", [{"resourceType": "Organization", "id": "o", "name": "x"}], "Patient.contained[0]"),
    ("Patient", "meta", {"lastUpdated": "2020-01-01"}, "Patient.meta.lastUpdated"),
    # Observation
    ("Observation", "status", GONE, "Observation.status"),
    ("Observation", "status", "done", "Observation.status"),
    ("Observation", "code", GONE, "Observation.code"),
    ("Observation", "effectiveDateTime", "2020-01-01T10:00", "Observation.effective"),
    ("Observation", "effectiveDateTime", "2020-01-01T10:00:00", "Observation.effective"),
    ("Observation", "effectiveDateTime", "2020-13", "Observation.effective"),
    ("Observation", "issued", "2020-01-01", "Observation.issued"),
    ("Observation", "valueString", "x", "Observation.value"),
    ("Observation", "valueQuantity.value", "1.5", "Observation.value.value"),
    ("Observation", "valueQuantity.system", GONE, "Observation.value"),
    ("Observation", "valueQuantity.comparator", "=", "Observation.value.comparator"),
    ("Observation", "valueAddress", {"city": "x"}, "Observation.valueAddress"),
    ("Observation", "dataAbsentReason", {"text": "x"}, "Observation"),
    ("Observation", "referenceRange.0", {"appliesTo": [{"text": "x"}]}, "Observation.referenceRange[0]"),
    ("Observation", "referenceRange.0.low.comparator", "<", "Observation.referenceRange[0].low"),
    ("Observation", "component.0.code", {"coding": [{"system": "http://loinc.org", "code": "718-7"}]}, "Observation"),
    ("Observation", "component.0.code", GONE, "Observation.component[0].code"),
    ("Observation", "subject", {"reference": "Medication/1"}, "Observation.subject"),
    ("Observation", "subject", {"reference": "Patient/1", "type": "Group"}, "Observation.subject.type"),
    ("Observation", "subject", {"reference": "nowhere"}, "Observation.subject.reference"),
    ("Observation", "performer.0", "Practitioner/1", "Observation.performer[0]"),
    ("Observation", "note.0.text", GONE, "Observation.note[0].text"),
    ("Observation", "category.0.coding.0.code", "lab oratory ", "Observation.category[0].coding[0].code"),
    # Condition
    ("Condition", "clinicalStatus", concept("condition-clinical", "open"), "Condition.clinicalStatus"),
    ("Condition", "subject", GONE, "Condition.subject"),
    ("Condition", "abatementDateTime", "2020", "Condition"),
    ("Condition", "verificationStatus", concept("condition-ver-status", "entered-in-error"), "Condition"),
    ("Condition", "onsetAge.system", "urn:x:y", "Condition.onset"),
    ("Condition", "onsetAge.value", Decimal("-1"), "Condition.onset"),
    ("Condition", "stage.0", {"type": {"text": "x"}}, "Condition.stage[0]"),
    ("Condition", "evidence.0", {"id": "e"}, "Condition.evidence[0]"),
    ("Condition", "recordedDate", "2020-00", "Condition.recordedDate"),
    # Encounter
    ("Encounter", "class", GONE, "Encounter.class"),
    ("Encounter", "class", [{"code": "AMB"}], "Encounter.class"),
    ("Encounter", "period.start", "2020-01-03", "Encounter.period"),
    ("Encounter", "statusHistory.0.period", GONE, "Encounter.statusHistory[0].period"),
    ("Encounter", "diagnosis.0.rank", -1, "Encounter.diagnosis[0].rank"),
    ("Encounter", "diagnosis.0.condition", {"reference": "Observation/1"}, "Encounter.diagnosis[0].condition"),
    ("Encounter", "location.0.status", "there", "Encounter.location[0].status"),
    # MedicationRequest
    ("MedicationRequest", "medicationCodeableConcept", GONE, "MedicationRequest.medication"),
    ("MedicationRequest", "medicationReference", {"reference": "Medication/1"}, "MedicationRequest.medication"),
    ("MedicationRequest", "intent", "ordered", "MedicationRequest.intent"),
    ("MedicationRequest", "dosageInstruction.0.timing.repeat.periodUnit", GONE, "MedicationRequest.dosageInstruction[0].timing.repeat"),
    ("MedicationRequest", "dosageInstruction.0.timing.repeat.period", Decimal("-1"), "MedicationRequest.dosageInstruction[0].timing.repeat"),
    ("MedicationRequest", "dosageInstruction.0.asNeededCodeableConcept", {"text": "x"}, "MedicationRequest.dosageInstruction[0].asNeeded"),
    (
        "MedicationRequest",
        "dosageInstruction.0.doseAndRate.0.doseQuantity.comparator",
        ">",
        "MedicationRequest.dosageInstruction[0].doseAndRate[0].dose",
    ),
    ("MedicationRequest", "dispenseRequest.numberOfRepeatsAllowed", Decimal("1.0"), "MedicationRequest.dispenseRequest.numberOfRepeatsAllowed"),
    ("MedicationRequest", "dispenseRequest.numberOfRepeatsAllowed", 2**31, "MedicationRequest.dispenseRequest.numberOfRepeatsAllowed"),
    # others
    ("DiagnosticReport", "result.0", {"reference": "Condition/1"}, "DiagnosticReport.result[0]"),
    ("DiagnosticReport", "status", None, "DiagnosticReport.status"),
    ("AllergyIntolerance", "clinicalStatus", GONE, "AllergyIntolerance"),
    ("AllergyIntolerance", "category", ["food", "pets"], "AllergyIntolerance.category[1]"),
    ("Procedure", "performer.0.actor", GONE, "Procedure.performer[0].actor"),
    ("Procedure", "performedPeriod.end", "2019-12-31", "Procedure.performed"),
    ("Immunization", "education.0", {"publicationDate": "2020"}, "Immunization.education[0]"),
    ("Immunization", "occurrenceDateTime", GONE, "Immunization.occurrence"),
    ("Immunization", "doseQuantity.comparator", "<", "Immunization.doseQuantity"),
    ("Organization", "name", GONE, "Organization"),
    ("Organization", "telecom.0.use", "home", "Organization.telecom[0]"),
    ("Practitioner", "qualification.0.code", GONE, "Practitioner.qualification[0].code"),
    ("Location", "position.latitude", GONE, "Location.position.latitude"),
    ("Location", "mode", "real", "Location.mode"),
    ("Device", "udiCarrier.0.carrierAIDC", "Y", "Device.udiCarrier[0].carrierAIDC"),
    ("Medication", "ingredient.0.strength.denominator", GONE, "Medication.ingredient[0].strength"),
    ("ServiceRequest", "orderDetail+code", ([{"text": "x"}], GONE), "ServiceRequest"),
    ("ServiceRequest", "priority", "soon", "ServiceRequest.priority"),
    ("CarePlan", "activity.0.reference", {"reference": "Task/1"}, "CarePlan.activity[0]"),
    ("Goal", "target.0.measure", GONE, "Goal.target[0]"),
    ("Task", "lastModified", "2019", "Task"),
    ("Appointment", "end", GONE, "Appointment"),
    ("Appointment", "participant.0.actor", GONE, "Appointment.participant[0]"),
    ("Questionnaire", "item.0.item.0.linkId", "1", "Questionnaire"),
    ("Questionnaire", "item.0.item", GONE, "Questionnaire.item[0]"),
    ("QuestionnaireResponse", "item.0.item", [{"linkId": "2"}], "QuestionnaireResponse.item[0]"),
    ("Composition", "section.0", {"title": "empty"}, "Composition.section[0]"),
    ("Composition", "author", GONE, "Composition.author"),
    ("Bundle", "entry.0.fullUrl", "Patient/1", "Bundle.entry[0].fullUrl"),
    ("Bundle", "entry.0.fullUrl", "http://example.org/fhir/Patient/2", "Bundle.entry[0].fullUrl"),
    ("Bundle", "entry.0.request", {"method": "GET", "url": "x"}, "Bundle.entry[0].request"),
    ("Bundle", "total", 3, "Bundle.total"),
    ("Bundle", "type", "document", "Bundle.entry[0]"),
    ("Bundle", "entry.0.resource.resourceType", "Person2", "Bundle.entry[0].resource"),
    ("Bundle", "entry.0.resource.gender", "x", "Bundle.entry[0].resource.gender"),
    ("ValueSet", "compose.include.0", {"version": "1"}, "ValueSet.compose.include[0]"),
    ("ValueSet", "compose.include.0.filter", [{"property": "a", "op": "=", "value": "x"}], "ValueSet.compose.include[0]"),
    ("StructureDefinition", "differential.element.0.id", GONE, "StructureDefinition"),
    ("StructureDefinition", "baseDefinition", GONE, "StructureDefinition"),
    ("Parameters", "parameter.0.part", [{"name": "b", "valueString": "x"}], "Parameters.parameter[0]"),
    ("AuditEvent", "entity.0.query", "YQ==", "AuditEvent.entity[0]"),
    ("DocumentReference", "content.0.attachment.contentType", GONE, "DocumentReference.content[0].attachment"),
    ("DocumentReference", "content.0.attachment.contentType", "plain text", "DocumentReference.content[0].attachment.contentType"),
    ("List", "emptyReason", {"text": "x"}, "List"),
    ("List", "entry.0.deleted", True, "List"),
    ("Coverage", "payor", GONE, "Coverage.payor"),
]


def put(res, path, value):
    *steps, last = path.split(".")
    for step in steps:
        res = res[int(step)] if step.isdigit() else res[step]
    if value is GONE:
        del res[last]
    else:
        res[int(last) if last.isdigit() else last] = value


def planted(rtype, path, value):
    res = {"resourceType": rtype, **copy.deepcopy(SOUND[rtype])}
    names = path.split("+")
    for name, each in zip(names, value if len(names) > 1 else [value], strict=True):
        put(res, name, each)
    return res


def errors(res):
    return [issue for issue in checker(SPEC, res["resourceType"])(res) if issue.severity == "error"]


@pytest.mark.parametrize("rtype", sorted(SOUND))
def test_the_sound_resources_are_sound(rtype):
    assert errors({"resourceType": rtype, **SOUND[rtype]}) == []


@pytest.mark.parametrize(("rtype", "path", "value", "place"), PLANTED)
def test_a_planted_error_is_found_where_it_is(rtype, path, value, place):
    found = [issue.expression for issue in errors(planted(rtype, path, value))]
    assert place in found


def test_there_are_enough_of_them():
    assert len(PLANTED) >= 130
    assert len({row[0] for row in PLANTED}) >= 25


def test_no_text_repeats_a_value():
    for rtype, path, value, _ in PLANTED:
        texts = " ".join(issue.text for issue in errors(planted(rtype, path, value)))
        assert not (isinstance(value, str) and len(value) > 8 and value in texts), (rtype, path)


def test_all_errors_are_told_at_once():
    res = planted("Patient", "gender", "x")
    res["birthDate"] = "1970-02-30"
    res["name"][0]["use"] = "y"
    res["telecom"][0].pop("system")
    assert {issue.expression for issue in errors(res)} == {"Patient.gender", "Patient.birthDate", "Patient.name[0].use", "Patient.telecom[0]"}


def test_ucum_is_asked_of_a_duration():
    res = {"resourceType": "Encounter", **copy.deepcopy(SOUND["Encounter"]), "length": {"value": 1, "code": "h", "system": UCUM}}
    assert errors(res) == []
    res["length"]["system"] = "urn:x:y"
    assert [issue.details for issue in errors(res)] == ["drt-1"]


def test_the_narrative_of_a_section_is_judged_too():
    res = planted("Composition", "section.0.text", {**TEXT, "div": div("<iframe/>a")})
    assert [issue.expression for issue in errors(res)] == ["Composition.section[0].text.div"]
