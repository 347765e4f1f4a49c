"""R4's RESTful API as a client sees it, paragraph by paragraph. https://hl7.org/fhir/R4/http.html"""

import re
import time
import uuid
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from tests.scenarios.running import Server

JSON = {"Content-Type": "application/fhir+json"}
SYSTEM = "https://rest.example/ids"


@pytest.fixture
def http(server: Server) -> Any:
    with server.client() as client:
        yield client


def patient(value: str = "", **more: Any) -> dict:
    return {"resourceType": "Patient", "identifier": [{"system": SYSTEM, "value": value or uuid.uuid4().hex}], **more}


def make(http: httpx.Client, res: dict | None = None) -> dict:
    """A created resource as stored."""
    res = res or patient()
    answer = http.post(f"/{res['resourceType']}", json=res, headers=JSON)
    assert answer.status_code == 201, answer.text
    return answer.json()


# https://hl7.org/fhir/R4/http.html#create


def test_create_ignores_the_clients_id_and_answers_location_etag_and_last_modified(http: httpx.Client) -> None:
    answer = http.post("/Patient", json=patient(id="mine"), headers=JSON)
    assert answer.status_code == 201
    res = answer.json()
    assert res["id"] != "mine"
    assert re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", res["id"])
    assert answer.headers["location"].endswith(f"/Patient/{res['id']}/_history/1")
    assert answer.headers["etag"] == 'W/"1"'
    assert parsedate_to_datetime(answer.headers["last-modified"])
    assert res["meta"]["versionId"] == "1"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|\+00:00)", res["meta"]["lastUpdated"])


@pytest.mark.parametrize(("preference", "kind"), [("minimal", None), ("representation", "Patient"), ("OperationOutcome", "OperationOutcome")])
def test_prefer_return_decides_what_comes_back(http: httpx.Client, preference: str, kind: str | None) -> None:
    answer = http.post("/Patient", json=patient(), headers={**JSON, "Prefer": f"return={preference}"})
    assert answer.status_code == 201
    assert answer.headers["location"]
    assert (answer.json()["resourceType"] if answer.content else None) == kind


def test_meta_tags_profiles_and_security_labels_of_the_client_are_kept(http: httpx.Client) -> None:
    meta = {
        "tag": [{"system": "https://t", "code": "a"}],
        "profile": ["https://p"],
        "security": [{"system": "https://s", "code": "b"}],
        "versionId": "77",
    }
    res = make(http, patient(meta=meta))
    assert {key: res["meta"][key] for key in ("tag", "profile", "security")} == {key: meta[key] for key in ("tag", "profile", "security")}
    assert res["meta"]["versionId"] == "1"


# https://hl7.org/fhir/R4/http.html#ccreate


def test_conditional_create(http: httpx.Client) -> None:
    value = uuid.uuid4().hex
    headers = {**JSON, "If-None-Exist": f"identifier={SYSTEM}|{value}"}
    first = http.post("/Patient", json=patient(value), headers=headers)
    second = http.post("/Patient", json=patient(value), headers=headers)
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.headers["etag"] == 'W/"1"'
    assert first.json()["id"] in second.headers["location"]
    make(http, patient(value))
    assert http.post("/Patient", json=patient(value), headers=headers).status_code == 412


def test_conditional_create_without_usable_criteria_is_refused(http: httpx.Client) -> None:
    for criteria in ("", "nonsense=1", "identifier"):
        answer = http.post("/Patient", json=patient(), headers={**JSON, "If-None-Exist": criteria})
        assert answer.status_code in ((201, 400, 412) if criteria == "" else (400, 412)), criteria


# https://hl7.org/fhir/R4/http.html#read and #vread


def test_read_and_vread(http: httpx.Client) -> None:
    res = make(http)
    http.put(f"/Patient/{res['id']}", json={**res, "active": True}, headers=JSON)
    current, first = http.get(f"/Patient/{res['id']}"), http.get(f"/Patient/{res['id']}/_history/1")
    assert current.headers["etag"] == 'W/"2"'
    assert first.headers["etag"] == 'W/"1"'
    assert "active" not in first.json()
    assert http.get(f"/Patient/{res['id']}/_history/3").status_code == 404
    assert http.get(f"/Patient/{res['id']}/_history/abc").status_code in (400, 404)


def test_conditional_read(http: httpx.Client) -> None:
    res = make(http)
    path = f"/Patient/{res['id']}"
    read = http.get(path)
    unchanged = http.get(path, headers={"If-None-Match": read.headers["etag"]})
    assert unchanged.status_code == 304
    assert unchanged.content == b""
    assert http.get(path, headers={"If-None-Match": 'W/"9"'}).status_code == 200
    assert http.get(path, headers={"If-Modified-Since": read.headers["last-modified"]}).status_code == 304
    assert http.get(path, headers={"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}).status_code == 200


def test_read_takes_summary_and_elements(http: httpx.Client) -> None:
    res = make(
        http,
        patient(
            gender="male", contact=[{"name": {"text": "x"}}], text={"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">x</div>'}
        ),
    )
    summary = http.get(f"/Patient/{res['id']}?_summary=true").json()
    assert "contact" not in summary
    assert summary["gender"] == "male"
    assert any(tag["code"] == "SUBSETTED" for tag in summary["meta"]["tag"])
    elements = http.get(f"/Patient/{res['id']}?_elements=gender").json()
    assert set(elements) == {"resourceType", "id", "meta", "gender"}


# https://hl7.org/fhir/R4/http.html#update


def test_update_as_create_with_the_clients_id(http: httpx.Client) -> None:
    rid = f"mine-{uuid.uuid4().hex}"
    answer = http.put(f"/Patient/{rid}", json=patient(id=rid), headers=JSON)
    assert answer.status_code == 201
    assert answer.headers["location"].endswith(f"/Patient/{rid}/_history/1")
    assert http.put(f"/Patient/{rid}", json=patient(id=rid, active=True), headers=JSON).status_code == 200


def test_update_wants_the_same_id_in_body_and_address(http: httpx.Client) -> None:
    res = make(http)
    assert http.put(f"/Patient/{res['id']}", json={**res, "id": "other"}, headers=JSON).status_code == 400
    without = {key: value for key, value in res.items() if key != "id"}
    assert http.put(f"/Patient/{res['id']}", json=without, headers=JSON).status_code == 400
    assert http.put("/Patient/not_a_valid_id!", json=patient(id="not_a_valid_id!"), headers=JSON).status_code == 400
    assert http.put("/Patient/" + "x" * 65, json=patient(id="x" * 65), headers=JSON).status_code == 400


def test_if_match(http: httpx.Client) -> None:
    res = make(http)
    path = f"/Patient/{res['id']}"
    assert http.put(path, json={**res, "active": True}, headers={**JSON, "If-Match": 'W/"1"'}).status_code == 200
    assert http.put(path, json={**res, "active": False}, headers={**JSON, "If-Match": 'W/"1"'}).status_code == 412
    assert http.put(path, json=res, headers={**JSON, "If-Match": "1"}).status_code in (400, 412)
    missing = f"missing-{uuid.uuid4().hex}"
    assert http.put(f"/Patient/{missing}", json=patient(id=missing), headers={**JSON, "If-Match": 'W/"1"'}).status_code == 412
    assert http.delete(path, headers={"If-Match": 'W/"1"'}).status_code == 412
    assert http.delete(path, headers={"If-Match": 'W/"2"'}).status_code in (200, 204)


def test_if_none_match_star_on_put_creates_only(http: httpx.Client) -> None:
    rid = f"once-{uuid.uuid4().hex}"
    headers = {**JSON, "If-None-Match": "*"}
    assert http.put(f"/Patient/{rid}", json=patient(id=rid), headers=headers).status_code == 201
    assert http.put(f"/Patient/{rid}", json=patient(id=rid), headers=headers).status_code == 412


# https://hl7.org/fhir/R4/http.html#cond-update


def test_conditional_update(http: httpx.Client) -> None:
    value = uuid.uuid4().hex
    query = {"identifier": f"{SYSTEM}|{value}"}
    created = http.put("/Patient", params=query, json=patient(value), headers=JSON)
    assert created.status_code == 201
    rid = created.json()["id"]
    updated = http.put("/Patient", params=query, json=patient(value, active=True), headers=JSON)
    assert (updated.status_code, updated.json()["id"], updated.json()["meta"]["versionId"]) == (200, rid, "2")
    assert http.put("/Patient", params=query, json=patient(value, id="other"), headers=JSON).status_code == 400
    make(http, patient(value))
    assert http.put("/Patient", params=query, json=patient(value), headers=JSON).status_code == 412


def test_conditional_update_without_match_takes_a_free_id(http: httpx.Client) -> None:
    value = rid = uuid.uuid4().hex
    answer = http.put("/Patient", params={"identifier": f"{SYSTEM}|{value}"}, json=patient(value, id=rid), headers=JSON)
    assert answer.status_code == 201
    assert answer.json()["id"] == rid


# https://hl7.org/fhir/R4/http.html#patch


def test_patches(http: httpx.Client) -> None:
    res = make(http, patient(gender="male"))
    path = f"/Patient/{res['id']}"
    patch = [{"op": "test", "path": "/gender", "value": "male"}, {"op": "replace", "path": "/gender", "value": "other"}]
    answer = http.patch(path, json=patch, headers={"Content-Type": "application/json-patch+json"})
    assert (answer.status_code, answer.json()["gender"], answer.headers["etag"]) == (200, "other", 'W/"2"')
    stale = http.patch(path, json=patch, headers={"Content-Type": "application/json-patch+json"})
    assert stale.status_code in (400, 409, 422)
    parts = [{"name": "type", "valueCode": "replace"}, {"name": "path", "valueString": "Patient.gender"}, {"name": "value", "valueCode": "female"}]
    fhirpath = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}
    assert http.patch(path, json=fhirpath, headers=JSON).json()["gender"] == "female"
    bad = [{"op": "replace", "path": "/gender", "value": "nonsense"}]
    assert http.patch(path, json=bad, headers={"Content-Type": "application/json-patch+json"}).status_code == 422
    moved = [{"op": "replace", "path": "/id", "value": "other"}]
    assert http.patch(path, json=moved, headers={"Content-Type": "application/json-patch+json"}).status_code in (400, 422)
    assert http.get(path).json()["gender"] == "female"
    assert http.patch(path, json=patch, headers={"Content-Type": "application/json-patch+json", "If-Match": 'W/"1"'}).status_code == 412


def test_conditional_patch(http: httpx.Client) -> None:
    value = uuid.uuid4().hex
    make(http, patient(value))
    patch = [{"op": "add", "path": "/active", "value": True}]
    headers = {"Content-Type": "application/json-patch+json"}
    query = {"identifier": f"{SYSTEM}|{value}"}
    assert http.patch("/Patient", params=query, json=patch, headers=headers).json()["active"] is True
    assert http.patch("/Patient", params={"identifier": f"{SYSTEM}|none"}, json=patch, headers=headers).status_code == 404
    make(http, patient(value))
    assert http.patch("/Patient", params=query, json=patch, headers=headers).status_code == 412


# https://hl7.org/fhir/R4/http.html#delete


def test_delete_is_idempotent_and_versions_go_on(http: httpx.Client) -> None:
    res = make(http)
    path = f"/Patient/{res['id']}"
    assert http.delete(path).status_code in (200, 204)
    assert http.delete(path).status_code in (200, 204)
    gone = http.get(path)
    assert gone.status_code == 410
    assert http.get(f"{path}/_history/1").status_code == 200
    assert http.get(f"{path}/_history/2").status_code == 410
    assert http.get("/Patient", params={"identifier": f"{SYSTEM}|{res['identifier'][0]['value']}"}).json()["total"] == 0
    back = http.put(path, json=res, headers=JSON)
    assert (back.status_code, back.headers["etag"]) == (201, 'W/"3"')
    assert http.delete("/Patient/never-was-there").status_code in (200, 204, 404)


def test_conditional_delete(http: httpx.Client) -> None:
    value = uuid.uuid4().hex
    query = {"identifier": f"{SYSTEM}|{value}"}
    make(http, patient(value))
    assert http.delete("/Patient", params=query).status_code in (200, 204)
    assert http.get("/Patient", params=query).json()["total"] == 0
    assert http.delete("/Patient").status_code in (400, 412)


# https://hl7.org/fhir/R4/http.html#history


def test_history_of_an_instance_newest_first_with_methods(http: httpx.Client) -> None:
    res = make(http)
    path = f"/Patient/{res['id']}"
    http.put(path, json={**res, "active": True}, headers=JSON)
    http.delete(path)
    bundle = http.get(f"{path}/_history").json()
    assert (bundle["type"], bundle["total"]) == ("history", 3)
    assert [entry["request"]["method"] for entry in bundle["entry"]] == ["DELETE", "PUT", "POST"]
    assert "resource" not in bundle["entry"][0]
    assert [entry["response"]["etag"] for entry in bundle["entry"]] == ['W/"3"', 'W/"2"', 'W/"1"']
    assert all(entry["fullUrl"].endswith(path) for entry in bundle["entry"])
    assert http.get("/Patient/never-was-there/_history").status_code == 404


def test_history_pages_and_since(http: httpx.Client) -> None:
    res = make(http)
    path = f"/Patient/{res['id']}"
    for number in range(5):
        res = http.put(path, json={**res, "multipleBirthInteger": number}, headers=JSON).json()
    versions, url = [], f"{path}/_history?_count=2"
    while url:
        page = http.get(url).json()
        assert len(page["entry"]) <= 2
        versions += [entry["resource"]["meta"]["versionId"] for entry in page["entry"]]
        url = next((link["url"] for link in page["link"] if link["relation"] == "next"), "")
    assert versions == ["6", "5", "4", "3", "2", "1"]
    since = http.get(f"{path}/_history", params={"_since": res["meta"]["lastUpdated"]}).json()
    assert [entry["resource"]["meta"]["versionId"] for entry in since["entry"]] == ["6"]


@pytest.mark.parametrize("prefix", ["/Patient", ""])
def test_history_of_a_type_and_of_the_system_shows_the_newest_at_once(http: httpx.Client, prefix: str) -> None:
    res = make(http)
    bundle = http.get(f"{prefix}/_history", params={"_count": "5"}).json()
    assert bundle["type"] == "history"
    assert res["id"] in [entry["resource"]["id"] for entry in bundle["entry"] if "resource" in entry]
    stamps = [entry["response"]["lastModified"] for entry in bundle["entry"]]
    assert stamps == sorted(stamps, reverse=True)


def test_a_poller_that_resumes_with_since_misses_nothing(http: httpx.Client) -> None:
    start = make(http)["meta"]["lastUpdated"]
    made = [make(http)["id"] for _ in range(5)]
    seen = http.get("/Patient/_history", params={"_since": start, "_count": "100"}).json()
    assert set(made) <= {entry["resource"]["id"] for entry in seen["entry"]}


# https://hl7.org/fhir/R4/http.html#transaction


def run(http: httpx.Client, kind: str, *entries: dict) -> httpx.Response:
    return http.post("", json={"resourceType": "Bundle", "type": kind, "entry": list(entries)}, headers=JSON)


def test_a_transaction_rewrites_references_everywhere(http: httpx.Client) -> None:
    subject, value = f"urn:uuid:{uuid.uuid4()}", uuid.uuid4().hex
    known = make(http, patient(value))
    div = f'<div xmlns="http://www.w3.org/1999/xhtml"><a href="{subject}">patient</a></div>'
    observation = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": subject},
        "focus": [{"reference": f"Patient?identifier={SYSTEM}|{value}"}],
        "text": {"status": "generated", "div": div},
        "extension": [{"url": "https://x.example/e", "valueReference": {"reference": subject}}],
    }
    answer = run(
        http,
        "transaction",
        {"fullUrl": f"urn:uuid:{uuid.uuid4()}", "resource": observation, "request": {"method": "POST", "url": "Observation"}},
        {"fullUrl": subject, "resource": patient(), "request": {"method": "POST", "url": "Patient"}},
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["type"] == "transaction-response"
    made = [entry["response"]["location"] for entry in body["entry"]]
    assert "Observation/" in made[0]
    assert "Patient/" in made[1]
    reference = "Patient/" + made[1].split("Patient/")[1].split("/")[0]
    stored = http.get("/Observation/" + made[0].split("Observation/")[1].split("/")[0]).json()
    assert stored["subject"]["reference"] == reference
    assert stored["extension"][0]["valueReference"]["reference"] == reference
    assert stored["focus"][0]["reference"] == f"Patient/{known['id']}"
    assert subject not in stored["text"]["div"]
    assert reference in stored["text"]["div"]


def test_a_transaction_is_all_or_nothing_and_names_the_entry(http: httpx.Client) -> None:
    value = uuid.uuid4().hex
    answer = run(
        http,
        "transaction",
        {"resource": patient(value), "request": {"method": "POST", "url": "Patient"}},
        {"resource": patient(gender="nonsense"), "request": {"method": "POST", "url": "Patient"}},
    )
    assert answer.status_code in (400, 422)
    assert answer.json()["resourceType"] == "OperationOutcome"
    assert "entry[1]" in answer.text
    assert http.get("/Patient", params={"identifier": f"{SYSTEM}|{value}"}).json()["total"] == 0


def test_a_transaction_processes_delete_post_put_patch_get_in_that_order(http: httpx.Client) -> None:
    value = uuid.uuid4().hex
    old = make(http, patient(value))
    kept = make(http)
    answer = run(
        http,
        "transaction",
        {"request": {"method": "GET", "url": f"Patient?identifier={SYSTEM}|{value}"}},
        {"resource": {**kept, "active": True}, "request": {"method": "PUT", "url": f"Patient/{kept['id']}", "ifMatch": 'W/"1"'}},
        {"resource": patient(value), "request": {"method": "POST", "url": "Patient", "ifNoneExist": f"identifier={SYSTEM}|{value}"}},
        {"request": {"method": "DELETE", "url": f"Patient/{old['id']}"}},
    )
    assert answer.status_code == 200, answer.text
    entries = answer.json()["entry"]
    assert [entry["response"]["status"][:3] for entry in entries] == ["200", "200", "201", "204"] or entries[3]["response"]["status"][:3] == "200"
    assert entries[0]["resource"]["total"] == 1
    assert entries[0]["resource"]["entry"][0]["resource"]["id"] != old["id"]


@pytest.mark.parametrize("second", [{"method": "PUT"}, {"method": "DELETE"}])
def test_one_resource_twice_in_a_transaction_is_refused(http: httpx.Client, second: dict) -> None:
    res = make(http)
    url = f"Patient/{res['id']}"
    entry = {"request": {**second, "url": url}, **({"resource": res} if second["method"] == "PUT" else {})}
    answer = run(http, "transaction", {"resource": res, "request": {"method": "PUT", "url": url}}, entry)
    assert answer.status_code in (400, 412, 422)
    assert http.get(f"/{url}").json()["meta"]["versionId"] == "1"


def test_conditional_references_that_match_none_or_many_fail_the_transaction(http: httpx.Client) -> None:
    value = uuid.uuid4().hex
    for _ in range(3):
        observation = {
            "resourceType": "Observation",
            "status": "final",
            "code": {"text": "x"},
            "subject": {"reference": f"Patient?identifier={SYSTEM}|{value}"},
        }
        answer = run(http, "transaction", {"resource": observation, "request": {"method": "POST", "url": "Observation"}})
        count = http.get("/Patient", params={"identifier": f"{SYSTEM}|{value}"}).json()["total"]
        assert (answer.status_code == 200) == (count == 1), count
        make(http, patient(value))


def test_a_batch_does_each_entry_for_itself(http: httpx.Client) -> None:
    answer = run(
        http,
        "batch",
        {"resource": patient(), "request": {"method": "POST", "url": "Patient"}},
        {"resource": patient(gender="nonsense"), "request": {"method": "POST", "url": "Patient"}},
        {"request": {"method": "GET", "url": "Patient/never-was-there"}},
        {"request": {"method": "GET", "url": "metadata"}},
    )
    assert answer.status_code == 200
    body = answer.json()
    assert body["type"] == "batch-response"
    assert [entry["response"]["status"][:3] for entry in body["entry"]] == ["201", "422", "404", "200"]
    assert body["entry"][1]["response"]["outcome"]["resourceType"] == "OperationOutcome"


def test_bundles_that_are_no_batch_and_broken_entries_are_refused(http: httpx.Client) -> None:
    assert http.post("", json={"resourceType": "Bundle", "type": "collection"}, headers=JSON).status_code in (400, 422)
    assert http.post("", json=patient(), headers=JSON).status_code in (400, 422)
    assert run(http, "transaction", {"resource": patient()}).status_code in (400, 422)
    assert run(http, "transaction", {"resource": patient(), "request": {"method": "POST", "url": "Observation"}}).status_code in (400, 422)
    assert run(http, "transaction", {"request": {"method": "SPLIT", "url": "Patient"}}).status_code in (400, 422)
    assert run(http, "transaction", *[{"request": {"method": "GET", "url": "metadata"}}] * 5001).status_code in (400, 413)
    assert run(http, "transaction").status_code == 200


def test_version_references_and_absolute_references_survive(http: httpx.Client, server: Server) -> None:
    outside = "https://elsewhere.example/fhir/Patient/1"
    observation = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": outside}}
    answer = run(http, "transaction", {"resource": observation, "request": {"method": "POST", "url": "Observation"}})
    rid = answer.json()["entry"][0]["response"]["location"].split("Observation/")[1].split("/")[0]
    assert http.get(f"/Observation/{rid}").json()["subject"]["reference"] == outside


# https://hl7.org/fhir/R4/http.html#delete and references


def test_deleting_what_others_refer_to_is_409_and_cascade_takes_all(http: httpx.Client) -> None:
    target = make(http)
    observation = make(
        http, {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": f"Patient/{target['id']}"}}
    )
    refused = http.delete(f"/Patient/{target['id']}")
    assert refused.status_code == 409
    assert f"Observation/{observation['id']}" in refused.text
    assert http.get(f"/Patient/{target['id']}").status_code == 200
    assert http.delete(f"/Patient/{target['id']}?_cascade=delete").status_code in (200, 204)
    assert http.get(f"/Patient/{target['id']}").status_code == 410
    assert http.get(f"/Observation/{observation['id']}").status_code == 410


# https://hl7.org/fhir/R4/http.html#capabilities


def test_the_capability_statement_is_valid_and_tells_the_truth(http: httpx.Client) -> None:
    statement = http.get("/metadata").json()
    assert statement["resourceType"] == "CapabilityStatement"
    assert statement["fhirVersion"] == "4.0.1"
    rest = statement["rest"][0]
    types = {row["type"]: row for row in rest["resource"]}
    assert len(types) >= 145
    assert {one["code"] for one in types["Patient"]["interaction"]} >= {
        "read",
        "vread",
        "update",
        "patch",
        "delete",
        "create",
        "search-type",
        "history-instance",
        "history-type",
    }
    assert {one["code"] for one in rest["interaction"]} >= {"transaction", "batch", "history-system", "search-system"}
    assert "application/fhir+xml" in statement["format"] or "xml" in statement["format"]
    assert {param["name"] for param in types["Patient"]["searchParam"]} >= {"identifier", "family", "birthdate", "general-practitioner"}
    for name in ("Patient", "Observation", "Encounter"):
        for param in types[name]["searchParam"]:
            sample = {
                "token": "x",
                "string": "x",
                "date": "2020",
                "reference": "Patient/1",
                "number": "1",
                "quantity": "1",
                "uri": "http://x",
                "special": "",
                "composite": "",
            }
            if value := sample[param["type"]]:
                answer = http.get(f"/{name}", params={param["name"]: value, "_count": "1"})
                assert answer.status_code == 200, (name, param, answer.text)


def test_head_answers_like_get_without_a_body(http: httpx.Client) -> None:
    res = make(http)
    for path in (f"/Patient/{res['id']}", "/metadata", f"/Patient?_id={res['id']}"):
        head = http.head(path)
        assert head.status_code == 200
        assert head.content == b""


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/metadata"),
        ("POST", "/Patient/1"),
        ("PATCH", "/"),
        ("DELETE", "/"),
        ("POST", "/Patient/1/_history"),
        ("PUT", "/Patient/1/_history/1"),
    ],
)
def test_a_method_that_is_not_allowed_is_405_with_allow(http: httpx.Client, method: str, path: str) -> None:
    answer = http.request(method, path, json=patient(), headers=JSON)
    assert answer.status_code == 405
    assert answer.headers["allow"]
    assert answer.json()["resourceType"] == "OperationOutcome"


def test_search_pages_with_a_cursor_and_never_twice(http: httpx.Client) -> None:
    tag = uuid.uuid4().hex
    made = {make(http, patient(meta={"tag": [{"system": SYSTEM, "code": tag}]}))["id"] for _ in range(7)}
    seen, url = [], f"/Patient?_tag={SYSTEM}|{tag}&_count=3&_sort=-_lastUpdated"
    while url:
        page = http.get(url).json()
        seen += [entry["resource"]["id"] for entry in page["entry"]]
        links = {link["relation"]: link["url"] for link in page["link"]}
        assert "self" in links
        url = links.get("next", "")
    assert sorted(seen) == sorted(made)
    broken = next(iter(http.get(f"/Patient?_tag={SYSTEM}|{tag}&_count=3").json()["link"][1:]), None)
    assert broken is not None


def test_last_updated_never_runs_backwards(http: httpx.Client) -> None:
    stamps = []
    res = make(http)
    for _ in range(5):
        res = http.put(f"/Patient/{res['id']}", json={**res, "active": not res.get("active", False)}, headers=JSON).json()
        stamps.append(res["meta"]["lastUpdated"])
        time.sleep(0.002)
    assert stamps == sorted(stamps)
