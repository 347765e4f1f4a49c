"""The main job: an EHR posts a transaction, a laboratory pushes HL7 v2 results, an app reads both back."""

import uuid

from tests.scenarios.running import Server, mllp

LAB = """MSH|^~\\&|LAB1|CITYLAB|EXCHANGE|HIE|20261103101500+0100||ORU^R01^ORU_R01|{control}|P|2.5.1
PID|1||{mrn}^^^NORTHGATE^MR||Baptiste^Camille||19690521|F
OBR|1|ORD-{control}^NORTHGATE|FIL-{mrn}^CITYLAB|24323-8^Comprehensive metabolic panel^LN|||20261103083000+0100||||||||||||||20261103101000+0100||CH|{status}
OBX|1|NM|2823-3^Potassium^LN||{value}|mmol/L^^UCUM|3.5-5.1|H|||{status}|||20261103083000+0100"""


def transaction(mrn: str) -> dict:
    patient, encounter = f"urn:uuid:{uuid.uuid4()}", f"urn:uuid:{uuid.uuid4()}"
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {
                "fullUrl": encounter,
                "request": {"method": "POST", "url": "Encounter"},
                "resource": {
                    "resourceType": "Encounter",
                    "status": "in-progress",
                    "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
                    "subject": {"reference": patient},
                },
            },
            {
                "fullUrl": patient,
                "request": {"method": "POST", "url": "Patient", "ifNoneExist": f"identifier=https://ehr.example|{mrn}"},
                "resource": {
                    "resourceType": "Patient",
                    "identifier": [{"system": "https://ehr.example", "value": mrn}],
                    "name": [{"family": "Lindqvist"}],
                },
            },
        ],
    }


def test_an_ehr_posts_a_transaction_and_an_app_reads_it_back(server: Server) -> None:
    mrn = uuid.uuid4().hex
    with server.client() as http:
        first = http.post("", json=transaction(mrn), headers={"Content-Type": "application/fhir+json"})
        assert first.status_code == 200, first.text
        assert [entry["response"]["status"][:3] for entry in first.json()["entry"]] == ["201", "201"]
        again = http.post("", json=transaction(mrn), headers={"Content-Type": "application/fhir+json"})
        assert [entry["response"]["status"][:3] for entry in again.json()["entry"]] == ["201", "200"]
        found = http.get("/Encounter", params={"subject:Patient.identifier": f"https://ehr.example|{mrn}", "_include": "Encounter:subject"}).json()
    assert found["total"] == 2
    assert sorted(entry["search"]["mode"] for entry in found["entry"]) == ["include", "match", "match"]


def test_a_laboratory_pushes_a_result_and_its_correction_onto_the_same_resource(server: Server) -> None:
    mrn = uuid.uuid4().hex[:12]
    for control, value, status in (("A" + mrn, "5.6", "P"), ("B" + mrn, "5.40", "F")):
        ack = mllp(server.mllp_port, LAB.format(control=control, mrn=mrn, value=value, status=status))
        assert f"MSA|AA|{control}" in ack, ack
    with server.client() as http:
        found = http.get("/Observation", params={"subject.identifier": mrn, "code": "http://loinc.org|2823-3"})
        assert '"value":5.40' in found.text.replace(" ", "")
        (entry,) = found.json()["entry"]
        assert entry["resource"]["status"] == "final"
        history = http.get(f"/Observation/{entry['resource']['id']}/_history").json()
    assert [row["resource"]["status"] for row in history["entry"]] == ["final", "preliminary"]


def test_a_resend_gets_the_stored_answer_and_makes_no_new_version(server: Server) -> None:
    mrn = uuid.uuid4().hex[:12]
    message = LAB.format(control="C" + mrn, mrn=mrn, value="4.1", status="F")
    with server.client() as http:
        first = mllp(server.mllp_port, message)
        before = http.get("/Observation", params={"subject.identifier": mrn}).json()["entry"][0]["resource"]["meta"]["versionId"]
        second = mllp(server.mllp_port, message)
        after = http.get("/Observation", params={"subject.identifier": mrn}).json()["entry"][0]["resource"]["meta"]["versionId"]
    assert "MSA|AA" in first
    assert second == first
    assert before == after == "1"


def test_the_same_message_over_http(server: Server) -> None:
    mrn = uuid.uuid4().hex[:12]
    with server.client() as http:
        message = LAB.format(control="D" + mrn, mrn=mrn, value="4.1", status="F").replace("\n", "\r")
        answer = http.post(f"http://127.0.0.1:{server.port}/hl7v2", content=message.encode())
        assert answer.status_code == 200
        assert f"MSA|AA|D{mrn}" in answer.text
        assert http.get("/DiagnosticReport", params={"subject.identifier": mrn, "_summary": "count"}).json()["total"] == 1


def test_both_workers_of_a_new_store_start_at_the_first_try(server: Server) -> None:
    assert "worker ended" not in server.log.read_text()
