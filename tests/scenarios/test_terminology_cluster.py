"""Two servers on one database: what is loaded on one is served by both, while they run; local codes wait to be mapped where an administrator finds them."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fhir_server.store.embedded import Embedded
from tests.scenarios.running import ROOT, Server, serve

SYSTEM = "http://example.org/fhir/CodeSystem/wards"
LAB = "http://example.org/lab"
SECONDS = 20.0


@pytest.fixture(scope="module")
def servers(mongod: Embedded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    folder = tmp_path_factory.mktemp("cluster")
    shared = ("--mongodb-uri", mongod.uri)
    with serve(folder / "a", *shared) as first, serve(folder / "b", *shared, "--workers", "2") as second:
        yield first, second


def terminology(data: Path, uri: str, *arguments: str) -> str:
    command = [sys.executable, "-m", "fhir_server.cli", "terminology", *arguments, "--data-dir", str(data), "--mongodb-uri", uri]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout


def becomes(http: httpx.Client, path: str, status: int) -> bool:
    """True as soon as every one of ten answers in a row has this status."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if all(http.get(path).status_code == status for _ in range(10)):
            return True
        time.sleep(0.2)
    return False


def test_a_load_reaches_every_server_and_can_be_taken_back(servers: tuple[Server, Server], mongod: Embedded, tmp_path: Path) -> None:
    concepts = [{"code": f"w{n}", "display": f"Ward {n}"} for n in range(6000)]  # large enough for an index
    res = {"resourceType": "CodeSystem", "url": SYSTEM, "version": "1", "status": "active", "content": "complete", "concept": concepts}
    (tmp_path / "wards.json").write_text(json.dumps(res), encoding="utf-8")
    data = servers[0].log.parent / "a"
    path = f"/CodeSystem/$lookup?system={SYSTEM}&code=w5999"
    for server in servers:
        with server.client() as http:
            assert http.get(path).status_code == 404
    terminology(data, mongod.uri, "load", "fhir", str(tmp_path / "wards.json"))
    for server in servers:
        with server.client() as http:
            assert becomes(http, path, 200)
            statement = http.get("/metadata?mode=terminology").json()
            assert SYSTEM in [each["uri"] for each in statement["codeSystem"]]
    (name,) = terminology(data, mongod.uri, "list").split()
    terminology(data, mongod.uri, "drop", name.partition("~")[0])
    with servers[1].client() as http:
        assert becomes(http, path, 404)


def test_unknown_codes_of_all_servers_are_listed(servers: tuple[Server, Server]) -> None:
    for server in servers:
        with server.client() as http:
            coded = {"coding": [{"system": LAB, "code": "HB", "display": "Haemoglobin"}]}
            assert http.post("/Observation", json={"resourceType": "Observation", "status": "final", "code": coded}).status_code == 201
    deadline = time.monotonic() + SECONDS
    rows: list[dict[str, object]] = []
    while time.monotonic() < deadline and not (rows and rows[0]["count"] == 2):
        rows = httpx.get(f"http://127.0.0.1:{servers[0].port}/admin/terminology/unknown", params={"system": LAB}).json()
        time.sleep(0.2)
    assert [(row["code"], row["count"], row["display"]) for row in rows] == [("HB", 2, "Haemoglobin")]


def test_closure_over_http(servers: tuple[Server, Server]) -> None:
    with servers[0].client() as first, servers[1].client() as second:
        name = {"name": "name", "valueString": "acts"}
        act = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
        body = {"resourceType": "Parameters", "parameter": [name]}
        assert first.post("/$closure", json=body).json()["version"] == "0"
        for code in ("AMB", "_ActEncounterCode"):
            body = {"resourceType": "Parameters", "parameter": [name, {"name": "concept", "valueCoding": {"system": act, "code": code}}]}
            answer = second.post("/$closure", json=body)
        assert answer.json()["group"][0]["element"] == [{"code": "AMB", "target": [{"code": "_ActEncounterCode", "equivalence": "subsumes"}]}]
        assert first.get("/$closure?name=acts").status_code == 405
