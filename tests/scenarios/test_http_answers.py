"""What the running server says over HTTP: formats, refusals, health, metrics. https://hl7.org/fhir/R4/http.html"""

import gzip
import json
import re
import socket
import time

import httpx
import pytest

from tests.scenarios.running import Server

PATIENT = {"resourceType": "Patient", "name": [{"family": "Ångström", "given": ["Zoë"]}], "birthDate": "1970-01"}
JSON = {"Content-Type": "application/fhir+json"}


def issue(answer: httpx.Response) -> dict:
    """The first issue of the OperationOutcome that every refusal is."""
    body = answer.json()
    assert body["resourceType"] == "OperationOutcome", body
    return body["issue"][0]


def test_a_resource_goes_in_as_json_and_out_as_xml_and_back(server: Server) -> None:
    with server.client() as http:
        created = http.post("/Patient", json=PATIENT, headers=JSON)
        assert created.status_code == 201
        assert re.fullmatch(rf"{server.base}/Patient/[A-Za-z0-9\-.]+/_history/1", created.headers["location"])
        rid = created.json()["id"]
        as_xml = http.get(f"/Patient/{rid}", headers={"Accept": "application/fhir+xml"})
        assert as_xml.headers["content-type"].startswith("application/fhir+xml")
        assert '<family value="Ångström"/>' in as_xml.text
        updated = http.put(f"/Patient/{rid}", content=as_xml.content, headers={"Content-Type": "application/fhir+xml"})
        assert updated.status_code == 200
        assert updated.json()["name"] == PATIENT["name"]
        assert updated.headers["etag"] == 'W/"2"'


def test_gzip_both_ways_and_head(server: Server) -> None:
    large = {**PATIENT, "contact": [{"name": {"text": "x" * 100}} for _ in range(50)]}
    with server.client() as http:
        created = http.post("/Patient", content=gzip.compress(json.dumps(large).encode()), headers={**JSON, "Content-Encoding": "gzip"})
        assert created.status_code == 201
        rid = created.json()["id"]
        read = http.get(f"/Patient/{rid}")
        assert read.headers["content-encoding"] == "gzip"
        assert read.json()["contact"] == large["contact"]
        head = http.head(f"/Patient/{rid}", headers={"Accept-Encoding": "identity"})
        assert head.status_code == 200
        assert head.content == b""
        assert int(head.headers["content-length"]) > 1000


def test_pretty_is_indented(server: Server) -> None:
    with server.client() as http:
        assert "\n  " in http.get("/metadata?_pretty=true").text


BROKEN = [
    ("POST", "/Patient", b'{"resourceType": "Patient",}', JSON, 400, "line 1"),
    ("POST", "/Patient", b'{"resourceType": "Patient", "active": true, "active": false}', JSON, 400, "same key twice"),
    ("POST", "/Patient", b'{"resourceType": "Patient", "id": "\xff"}', JSON, 400, "UTF-8"),
    ("POST", "/Patient", b'{"a":' * 200 + b"1" + b"}" * 200, JSON, 413, "nest"),
    ("POST", "/Patient", b"<Patient xmlns='http://hl7.org/fhir'>", {"Content-Type": "application/fhir+xml"}, 400, ""),
    ("POST", "/Patient", b"<!DOCTYPE x [<!ENTITY e 'x'>]><Patient xmlns='http://hl7.org/fhir'/>", {"Content-Type": "application/fhir+xml"}, 400, ""),
    ("POST", "/Patient", b"hello", {"Content-Type": "text/csv"}, 415, "Content-Type"),
    ("PATCH", "/Patient/1", b"{}", {"Content-Type": "application/merge-patch+json"}, 415, "application/json-patch+json"),
    ("POST", "/Patient", b"", JSON, 400, ""),
    ("POST", "/Observation", b'{"resourceType": "Patient"}', JSON, 400, ""),
    ("POST", "/Patient", b'{"resourceType": "Patient", "gender": "unknowable"}', JSON, 422, "gender"),
    ("GET", "/Nonsense", b"", {}, 404, ""),
    ("GET", "/Nonsense/1", b"", {}, 404, ""),
    ("GET", "/Patient/does-not-exist", b"", {}, 404, "does-not-exist"),
    ("GET", "/Patient/x/y/z/a", b"", {}, 404, ""),
    ("PUT", "/Patient", b'{"resourceType": "Patient"}', JSON, 400, ""),
    ("DELETE", "/metadata", b"", {}, 405, ""),
    ("GET", "/Patient?nonsense=1", b"", {}, 400, "nonsense"),
    ("GET", "/Patient?birthdate=yesterday", b"", {}, 400, "birthdate"),
    ("GET", "/Patient?_format=turtle", b"", {}, 406, ""),
    ("GET", "/Patient", b"", {"Accept": "application/fhir+json; fhirVersion=3.0"}, 406, ""),
    ("PATCH", "/Patient/does-not-exist", b"[]", {"Content-Type": "application/json-patch+json"}, 404, ""),
    ("GET", "/Patient/%ff", b"", {}, 400, "id"),
]


@pytest.mark.parametrize(("method", "path", "body", "headers", "status", "word"), BROKEN)
def test_every_refusal_is_an_operation_outcome_that_says_why(
    server: Server, method: str, path: str, body: bytes, headers: dict, status: int, word: str
) -> None:
    with server.client() as http:
        answer = http.request(method, path, content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert word in issue(answer)["diagnostics"] + str(issue(answer).get("expression", ""))
    assert answer.headers["x-request-id"]
    assert "Traceback" not in answer.text


def test_a_value_of_a_patients_data_is_not_repeated(server: Server) -> None:
    with server.client() as http:
        answer = http.post("/Patient", json={"resourceType": "Patient", "birthDate": "Secretsson", "gender": "Secretsson"}, headers=JSON)
    assert answer.status_code in (400, 422)
    assert "Secretsson" not in answer.text
    assert "Secretsson" not in server.log.read_text()


def test_a_body_over_the_limit_is_413(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as one:
        one.sendall(b"POST /fhir/Patient HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/fhir+json\r\nContent-Length: 10000000000\r\n\r\n")
        assert one.recv(1000).startswith(b"HTTP/1.1 413")


def test_health_and_metrics(server: Server) -> None:
    root = f"http://127.0.0.1:{server.port}"
    assert httpx.get(f"{root}/health/live").json() == {"status": "live"}
    assert httpx.get(f"{root}/health/ready").status_code == 200
    httpx.get(f"{server.base}/metadata")
    assert re.search(r'fhir_requests_total\{method="GET",shape="metadata",status="200"\} [1-9]', httpx.get(f"{root}/metrics").text)


def test_open_mode_refuses_a_foreign_host_and_origin(server: Server) -> None:
    assert httpx.get(f"{server.base}/Patient", headers={"Host": "evil.example"}).status_code == 403
    assert httpx.get(f"{server.base}/Patient", headers={"Origin": "https://evil.example"}).status_code == 403


def test_binary_goes_in_and_out_raw(server: Server) -> None:
    content = bytes(range(256))
    with server.client() as http:
        created = http.post("/Binary", content=content, headers={"Content-Type": "application/octet-stream"})
        assert created.status_code == 201, created.text
        rid = created.headers["location"].split("/Binary/")[1].split("/")[0]
        raw = http.get(f"/Binary/{rid}", headers={"Accept": "application/octet-stream"})
        assert raw.content == content
        assert raw.headers["content-type"] == "application/octet-stream"
        assert raw.headers["content-disposition"] == "attachment"
        assert http.get(f"/Binary/{rid}").json()["resourceType"] == "Binary"


def test_a_custom_search_parameter_is_used_once_it_is_indexed(server: Server) -> None:
    code = "shoe-size"
    definition = {
        "resourceType": "SearchParameter",
        "url": "https://own.example/SearchParameter/shoe-size",
        "name": "ShoeSize",
        "status": "active",
        "description": "Shoe size",
        "code": code,
        "base": ["Patient"],
        "type": "number",
        "expression": "Patient.extension('https://own.example/shoe').value",
    }
    with server.client() as http:
        size = {"resourceType": "Patient", "extension": [{"url": "https://own.example/shoe", "valueInteger": 44}]}
        assert http.post("/Patient", json=size, headers=JSON).status_code == 201
        assert http.get("/Patient", params={code: "44"}).status_code == 400
        made = http.post("/SearchParameter", json=definition, headers=JSON)
        assert made.status_code == 201
        started = http.post(f"/SearchParameter/{made.json()['id']}/$reindex", json={"resourceType": "Parameters"}, headers=JSON)
        assert started.status_code in (200, 202), started.text
        deadline = time.monotonic() + 60
        while (answer := http.get("/Patient", params={code: "44"})).status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.5)
    assert answer.status_code == 200, answer.text
    assert answer.json()["total"] == 1


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("*/*", "application/pdf"),
        ("application/*", "application/pdf"),
        ("application/pdf", "application/pdf"),
        ("application/fhir+json", "application/fhir+json"),
        ("application/fhir+xml, */*", "application/fhir+xml"),
    ],
)
def test_a_binary_is_returned_as_its_content_type_unless_fhir_is_asked_for(server: Server, accept: str, media: str) -> None:
    """https://hl7.org/fhir/R4/binary.html#rest"""
    with server.client() as http:
        rid = http.post("/Binary", content=b"%PDF-1.4", headers={"Content-Type": "application/pdf"}).json()["id"]
        shown = http.get(f"/Binary/{rid}", headers={"Accept": accept})
        assert shown.headers["content-type"].startswith(media)
        assert (shown.content == b"%PDF-1.4") == (media == "application/pdf")
        assert http.get(f"/Binary/{rid}?_format=json", headers={"Accept": accept}).json()["contentType"] == "application/pdf"


@pytest.mark.parametrize("accept", ["text/turtle", "image/png", "application/fhir+json;q=0"])
def test_a_format_that_is_not_written_is_406_and_nothing_is_done(server: Server, accept: str) -> None:
    """https://hl7.org/fhir/R4/http.html#mime-type"""
    with server.client() as http:
        answer = http.put("/Patient/unacceptable", json={**PATIENT, "id": "unacceptable"}, headers={**JSON, "Accept": accept})
        assert answer.status_code == 406
        assert issue(answer)["code"] == "not-supported"
        assert http.get("/Patient/unacceptable").status_code == 404


@pytest.mark.parametrize("media", ["application/fhir+json", "text/plain", "multipart/form-data"])
def test_a_search_by_post_takes_a_form_and_nothing_else(server: Server, media: str) -> None:
    """https://hl7.org/fhir/R4/http.html#search"""
    with server.client() as http:
        assert http.post("/Patient/_search", content="{}", headers={"Content-Type": media}).status_code == 415
        assert http.post("/Patient/_search", content="_id=none", headers={"Content-Type": "application/x-www-form-urlencoded"}).json()["total"] == 0
        assert http.post("/Patient/_search?_id=none").json()["total"] == 0
        asked = http.post("/Patient/_search", data={"_id": "none", "_format": "xml"})
        assert asked.headers["Content-Type"].startswith("application/fhir+xml")
        assert "\n  " in http.post("/Patient/_search", data={"_id": "none", "_pretty": "true"}).text
        assert http.post("/Patient/_search", data={"_id": "none", "_format": "ttl"}).status_code == 406


def test_a_form_is_no_resource(server: Server) -> None:
    with server.client() as http:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert http.post("/Patient", content="active=true", headers=form).status_code == 415
        assert http.put("/Patient/formed", content="active=true", headers=form).status_code == 415
