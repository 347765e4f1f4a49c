"""Several organisations in one running exchange: registered by the command line while it serves, reached by path and by sender, disabled, erased."""

import json
import ssl
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from fhir_server.cli import app
from tests.mllp.test_listener import certificate
from tests.scenarios.running import Server, mllp, serve
from tests.scenarios.test_hl7v2_transport import Wire

pytestmark = pytest.mark.slow
SECONDS = 20.0
NAMES = ("north", "south")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An exchange in smart mode with nothing in it: tenants come while it runs."""
    folder = tmp_path_factory.mktemp("organisations")
    with serve(folder / "data", "--auth", "smart", FHIR_METRICS_TOKEN="m" * 40) as running:
        for name in NAMES:
            sources = folder / f"{name}.json"
            sources.write_text(json.dumps({"sources": [{"name": f"lab-{name}", "senders": [f"LAB-{name.upper()}|HOSP"]}]}))
            (row,) = json.loads(command(running, "tenant", "add", name, "--title", name.title(), "--set", f"FHIR_SOURCES={sources}"))
            assert row["database"] == f"fhir-{name}"
        for name in NAMES:
            until(running, name, 200)
        yield running


def command(server: Server, *arguments: str, stdin: str = "", code: int = 0) -> str:
    """`fhir-exchange ...` beside the running server; what it prints."""
    done = CliRunner().invoke(app, [*arguments, "--data-dir", str(server.log.with_suffix(""))], input=stdin)
    assert (2 if isinstance(done.exception, ValueError) else done.exit_code) == code, (arguments, done.output, done.exception)
    return done.stdout


def root(server: Server, name: str) -> str:
    """A tenant's address."""
    return server.base.removesuffix("/fhir") + f"/t/{name}"


def until(server: Server, name: str, status: int) -> None:
    """Wait until a tenant's metadata answers so."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if httpx.get(root(server, name) + "/fhir/metadata", timeout=10).status_code == status:
            return
        time.sleep(0.1)
    raise AssertionError(f"{name} does not answer {status}: {server.log.read_text()[-2000:]}")


def token(server: Server, name: str) -> dict[str, str]:
    """A backend client of one tenant, registered by the command line, and its token."""
    scope = ("--scope", "system/*.cruds exchange/admin")
    arguments = ("client", "add", "loader", "--kind", "symmetric", *scope, "--tenant", name)
    rows = json.loads(command(server, "client", "list", "--tenant", name))
    secret = "l" * 40
    if not rows:
        command(server, *arguments, "--secret-file", "-", stdin=secret)
    form = {"grant_type": "client_credentials", "client_id": "loader", "client_secret": secret, "scope": "system/*.cruds exchange/admin"}
    reply = httpx.post(root(server, name) + "/auth/token", data=form, timeout=30)
    assert reply.status_code == 200, reply.text
    return {"Authorization": "Bearer " + reply.json()["access_token"]}


def message(name: str, control: str, family: str) -> str:
    """An ADT of this tenant's laboratory."""
    return f"MSH|^~\\&|LAB-{name.upper()}|HOSP|X|Y|20260101||ADT^A08^ADT_A01|{control}|P|2.5\nPID|1||{control}^^^urn:mrn^MR||{family}^X\n"


def test_a_message_goes_to_the_organisation_of_its_sender(server: Server) -> None:
    for name, family in zip(NAMES, ("Nordmann", "Suedmann")):
        assert "MSA|AA" in mllp(server.mllp_port, message(name, f"m-{name}", family))
    assert "MSA|AA" in mllp(server.mllp_port, message("nobody", "m-own", "Eigen"))
    for name, family in zip(NAMES, ("Nordmann", "Suedmann")):
        headers = token(server, name)
        found = httpx.get(root(server, name) + "/fhir/Patient", headers=headers, timeout=30).json()
        assert [one["resource"]["name"][0]["family"] for one in found["entry"]] == [family]
        rows = httpx.get(root(server, name) + "/admin/hl7v2/inbox", headers=headers, timeout=30).json()
        assert [row["source"] for row in rows] == [f"lab-{name}"]
    listed = json.loads(command(server, "hl7v2", "list"))
    assert [row["control_id"] for row in listed] == ["m-own"]
    both = message("north", "m-1", "Beide") + message("south", "m-2", "Beide")
    answer = mllp(server.mllp_port, both)
    assert "MSA|AR" in answer
    assert "several organisations" in answer


def test_the_commands_work_on_the_organisation_they_name(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "one.ndjson"
    file.write_text(json.dumps({"resourceType": "Organization", "id": "loaded", "name": "North"}) + "\n")
    command(server, "load", str(file), "--tenant", "north")
    command(server, "verify", "--tenant", "north")
    command(server, "key", "rotate", "--tenant", "north")
    kids = [{row["kid"] for row in json.loads(command(server, "key", "list", *more))} for more in ((), ("--tenant", "north"), ("--tenant", "south"))]
    assert not kids[0] & kids[1]
    assert not kids[1] & kids[2]
    north = httpx.get(root(server, "north") + "/fhir/Organization/loaded", headers=token(server, "north"), timeout=30)
    south = httpx.get(root(server, "south") + "/fhir/Organization/loaded", headers=token(server, "south"), timeout=30)
    assert (north.status_code, south.status_code) == (200, 404)
    for arguments in (("load", str(file)), ("client", "list"), ("verify",), ("package", "list"), ("hl7v2", "list")):
        command(server, *arguments, "--tenant", "nobody", code=2)


def test_an_organisation_is_kept_and_restored_without_the_others(server: Server, tmp_path: Path) -> None:
    kept = tmp_path / "moved.backup"
    added = ("tenant", "add", "moved", "--title", "Moved")
    command(server, *added)
    for name in ("moved", "south"):
        until(server, name, 200)
        body = {"resourceType": "Organization", "id": "kept", "name": f"of {name}"}
        httpx.put(root(server, name) + "/fhir/Organization/kept", json=body, headers=token(server, name), timeout=30).raise_for_status()
    command(server, "backup", str(kept), "--tenant", "moved")
    for again in (("tenant", "disable", "moved"), ("tenant", "erase", "moved", "--yes"), added):
        command(server, *again)
        until(server, "moved", 200 if again is added else 404)
    command(server, "restore", str(kept), "--tenant", "moved", code=2)  # it is served
    command(server, "restore", str(kept), code=2)  # and the exchange is running on its own
    for name in ("moved", "south"):
        command(server, "tenant", "disable", name)
        until(server, name, 404)
    command(server, "restore", str(kept), "--tenant", "south", code=1)  # it holds resources
    command(server, "restore", str(kept), "--tenant", "moved")
    command(server, "verify", "--tenant", "moved")
    for name in ("moved", "south"):
        command(server, "tenant", "enable", name)
        until(server, name, 200)
        found = httpx.get(root(server, name) + "/fhir/Organization/kept", headers=token(server, name), timeout=30)
        assert found.json()["name"] == f"of {name}"
    command(server, "tenant", "disable", "moved")
    until(server, "moved", 404)
    command(server, "tenant", "erase", "moved", "--yes")


def test_a_certificate_decides_whose_message_it_is(tmp_path: Path) -> None:
    own, lab, other = (certificate(tmp_path, name) for name in ("server", "lab-east", "lab-west"))
    trusted = tmp_path / "trusted.pem"
    trusted.write_text(lab.read_text() + other.read_text())
    tls = {"FHIR_MLLP_TLS_CERT": str(own), "FHIR_MLLP_TLS_CLIENT_CA": str(trusted)}
    with serve(tmp_path / "data", "--auth", "smart", "--workers", "1", **tls) as running:
        for name in ("east", "west"):
            sources = tmp_path / f"{name}.json"
            sources.write_text(json.dumps({"unknown": "refuse", "sources": [{"name": f"its-{name}", "certificates": [f"lab-{name}"]}]}))
            command(running, "tenant", "add", name, "--title", name.title(), "--set", f"FHIR_SOURCES={sources}")
            until(running, name, 200)
        sent = {"east": (lab, "m-east"), "west": (other, "m-west")}
        for name, (shown, control) in sent.items():  # both say of themselves that they are the other's
            context = ssl.create_default_context(cafile=str(own))
            context.check_hostname = False
            context.load_cert_chain(shown)
            assert Wire(running.mllp_port, context).ask(message("anybody", control, name.title()).replace("\n", "\r")) == f"AA {control}"
        for name, (_, control) in sent.items():
            rows = json.loads(command(running, "hl7v2", "list", "--tenant", name))
            assert [(row["source"], row["control_id"]) for row in rows] == [(f"its-{name}", control)]
        assert json.loads(command(running, "hl7v2", "list")) == []


def test_metrics_name_the_tenant_and_nothing_else_of_it(server: Server) -> None:
    text = httpx.get(server.base.removesuffix("/fhir") + "/metrics", headers={"Authorization": "Bearer " + "m" * 40}, timeout=30).text
    lines = [line for line in text.splitlines() if 'tenant="north"' in line]
    assert any(line.startswith("fhir_requests_total{") for line in lines)
    assert any(line.startswith("hl7v2_messages_total{") for line in lines)
    own = [line for line in text.splitlines() if line.startswith("hl7v2_messages_total{") and "tenant=" not in line]
    assert own, "the exchange's own metrics stay without the label"
    assert "Nordmann" not in text
    for name in NAMES:
        assert httpx.get(root(server, name) + "/metrics", headers={"Authorization": "Bearer " + "m" * 40}, timeout=30).status_code == 404


def test_a_disabled_organisation_is_as_if_it_had_never_been(server: Server) -> None:
    headers = token(server, "south")
    command(server, "tenant", "erase", "south", "--yes", code=2)
    command(server, "tenant", "disable", "south")
    until(server, "south", 404)
    replies = [httpx.get(root(server, name) + "/fhir/Patient", headers=headers, timeout=30) for name in ("south", "nobody")]
    assert {reply.status_code for reply in replies} == {404}
    assert replies[0].content == replies[1].content
    assert replies[0].json()["resourceType"] == "OperationOutcome"
    answer = mllp(server.mllp_port, message("south", "m-late", "Spaet"))
    assert "MSA|AR" in answer
    assert "m-late" not in command(server, "hl7v2", "list")
    command(server, "tenant", "enable", "south")
    until(server, "south", 200)
    assert httpx.get(root(server, "south") + "/fhir/Patient", headers=headers, timeout=30).status_code == 200
    command(server, "tenant", "disable", "south")
    until(server, "south", 404)
    command(server, "tenant", "erase", "south", "--yes")
    assert [row["tenant"] for row in json.loads(command(server, "tenant", "list"))] == ["north"]
    until(server, "north", 200)
