"""The audit trail of a running server under smart authorisation: kills, stops, and the command that verifies it."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from tests.scenarios.running import ROOT, Server, start, stop, wait_ready

pytestmark = pytest.mark.slow
KEY = ECKey.generate_key("P-384", {"kid": "k1", "use": "sig", "alg": "ES384"})
AUDIENCE = "https://exchange.example/fhir"
BOUND = 1.5  # seconds: FHIR_AUDIT_SECONDS and the time of a write


def configured(folder: Path) -> dict[str, str]:
    """Variables of a server that trusts this test's key."""
    (folder / "jwks.json").write_text(json.dumps({"keys": [KEY.as_dict(private=False)]}))
    row = {"issuer": "https://idp.example", "audience": AUDIENCE, "algorithms": ["ES384"], "jwks_file": str(folder / "jwks.json")}
    (folder / "issuers.json").write_text(json.dumps([row]))
    return {"FHIR_ISSUERS": str(folder / "issuers.json"), "FHIR_BASE_URL": AUDIENCE}


def ready(data: Path, *arguments: str, **environment: str) -> Server:
    """A server that serves."""
    server = start(data, *arguments, **environment)
    wait_ready(server)
    return server


def client(server: Server, scope: str, **claims: Any) -> httpx.Client:
    """An HTTP client with a token."""
    now = int(time.time())
    held = {"iss": "https://idp.example", "aud": AUDIENCE, "sub": "dr", "client_id": "ehr", "exp": now + 600, "iat": now, "scope": scope, **claims}
    token = jwt.encode({"alg": "ES384", "kid": "k1"}, held, KEY, algorithms=["ES384"])
    return httpx.Client(base_url=f"http://127.0.0.1:{server.port}/fhir/", headers={"Authorization": f"Bearer {token}"}, timeout=30)


def kinds(http: httpx.Client, patient: str) -> list[str]:
    """The interactions that the trail has of a patient, oldest first."""
    found = http.get("AuditEvent", params={"patient": patient, "_count": "500", "_sort": "date"}).json()
    return [row["resource"]["subtype"][0]["code"] for row in found.get("entry", ())]


def test_changes_and_reads_survive_a_kill_and_the_chain_verifies(tmp_path: Path) -> None:
    flags = ("--auth", "smart", "--workers", "2", "--mllp-port", "-1")
    environment = configured(tmp_path)
    server = ready(tmp_path / "data", *flags, **environment)
    try:
        with client(server, "system/*.cruds") as http:
            assert http.put("Patient/p", json={"resourceType": "Patient", "id": "p"}).status_code == 201
            assert http.get("Patient/p").status_code == 200
            assert http.get("Patient", params={"_id": "p"}).status_code == 200
            time.sleep(BOUND)
            assert http.put("Patient/p", json={"resourceType": "Patient", "id": "p", "active": True}).status_code == 200
        server.kill()
        server = ready(tmp_path / "data", *flags, **environment)
        with client(server, "system/*.cruds") as http:
            assert kinds(http, "Patient/p") == ["create", "read", "search", "update"]
            assert http.get("Patient/p/_history/1").status_code == 200
            with client(server, "patient/*.rs", patient="p", sub="app") as app:
                assert app.get("Patient/p").status_code == 200
                assert app.get("Patient/other").status_code == 404
        assert stop(server) == 0  # what was read right before is written before it ends
        server = ready(tmp_path / "data", *flags, **environment)
        with client(server, "system/*.cruds") as http:
            assert kinds(http, "Patient/p")[4:] == ["search", "vread", "read"]
        for _ in range(100):  # the sealer's turn
            if (tmp_path / "data" / "audit.head").exists():
                break
            time.sleep(0.2)
        done = subprocess.run(
            [sys.executable, "-m", "fhir_server.cli", "verify", "--data-dir", str(tmp_path / "data")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert "nothing is wrong" in done.stderr, done.stderr
        assert (tmp_path / "data" / "audit.head").exists()
    finally:
        stop(server)
