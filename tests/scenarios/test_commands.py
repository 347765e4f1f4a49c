"""The command line beside a running server: bulk load, verify, backup and restore, HL7 v2 messages."""

import json
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import httpx

from tests.scenarios.running import ROOT, Server
from tests.scenarios.test_main_story import LAB


def command(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `fhir-exchange ...`; its exit code must be `code`."""
    done = subprocess.run([sys.executable, "-m", "fhir_server.cli", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def data_of(server: Server) -> str:
    """The data directory of the running server."""
    return str(server.log.with_suffix(""))


def test_load_lists_errors_by_line_and_verify_finds_nothing_wrong(server: Server, tmp_path: Path) -> None:
    tag = uuid.uuid4().hex
    rows = [{"resourceType": "Patient", "id": f"{tag}-{number}", "active": True} for number in range(20)]
    lines = [json.dumps(row) for row in rows] + ['{"resourceType": "Patient", "gender": "Secretsson"}', "{broken"]
    file = tmp_path / "patients.ndjson"
    file.write_text("\n".join(lines) + "\n")
    done = command("load", str(file), "--data-dir", data_of(server), code=1)
    assert "20 loaded" in done.stderr
    assert "patients.ndjson:21" in done.stderr.replace("\n", "")
    assert "patients.ndjson:22" in done.stderr.replace("\n", "")
    assert "Secretsson" not in done.stderr
    with server.client() as http:
        assert http.get(f"/Patient/{tag}-7").json()["active"] is True
    assert "nothing is wrong" in command("verify", "--data-dir", data_of(server)).stderr
    assert "Patient" in command("reindex", "Patient", "--data-dir", data_of(server)).stderr


def test_a_backup_restores_into_an_empty_store_and_nowhere_else(server: Server, tmp_path: Path) -> None:
    with server.client() as http:
        rid = http.post("/Patient", json={"resourceType": "Patient", "active": True}).json()["id"]
    command("backup", str(tmp_path / "backup"), "--data-dir", data_of(server))
    command("restore", str(tmp_path / "backup"), "--data-dir", data_of(server), code=2)
    command("restore", str(tmp_path / "backup"), "--data-dir", str(tmp_path / "other"))
    shutil.copy(Path(data_of(server)) / "secret", tmp_path / "other" / "secret")  # what the audit trail was sealed with
    found = command("verify", "--data-dir", str(tmp_path / "other"))
    assert "nothing is wrong" in found.stderr
    assert rid


def test_messages_are_sent_listed_shown_and_replayed(server: Server, tmp_path: Path) -> None:
    mrn = uuid.uuid4().hex[:12]
    file = tmp_path / "lab.hl7"
    file.write_text(LAB.format(control="S" + mrn, mrn=mrn, value="4.4", status="F"))
    assert f"S{mrn} AA" in command("hl7v2", "send", str(file), "--port", str(server.mllp_port)).stderr
    listed = json.loads(command("hl7v2", "list", "--limit", "200", "--data-dir", data_of(server)).stdout)
    (entry,) = [row for row in listed if row["control_id"] == f"S{mrn}"]
    shown = json.loads(command("hl7v2", "show", entry["id"], "--data-dir", data_of(server)).stdout)
    assert mrn in json.dumps(shown)
    over_http = httpx.get(f"http://127.0.0.1:{server.port}/admin/hl7v2/inbox/{entry['id']}")
    assert over_http.status_code == 200
    assert over_http.json()["control_id"] == f"S{mrn}"
    assert httpx.get(f"http://127.0.0.1:{server.port}/admin/hl7v2/nonsense").status_code == 404


def test_the_inbox_is_searched_traced_replayed_and_merges_are_undone_by_command(server: Server, tmp_path: Path) -> None:
    mrn = uuid.uuid4().hex[:12]
    file = tmp_path / "adt.hl7"
    head = "MSH|^~\\&|CMD|{mrn}|X|Y|2026010112000{n}||ADT^{event}|C{n}{mrn}|P|2.5\rEVN|{event}|2026010112000{n}\rPID|1||{mrn}{n}^^^CMD^MR||A^B\r"
    bodies = [head.format(mrn=mrn, n=number, event="A28") for number in (1, 2)]
    bodies.append(head.format(mrn=mrn, n=1, event="A40").replace("C1", "C3") + f"MRG|{mrn}2^^^CMD^MR\r")
    file.write_text("".join(bodies), newline="")
    assert command("hl7v2", "send", str(file), "--port", str(server.mllp_port)).stderr.count(" AA") == 3

    def asked(*arguments: str) -> Any:
        return json.loads(command("hl7v2", *arguments, "--data-dir", data_of(server)).stdout)

    rows = asked("list", "--source", f"CMD.{mrn}", "--since", "2020-01-01T00:00:00Z")
    assert [row["event"] for row in rows] == ["ADT^A40", "ADT^A28", "ADT^A28"]
    assert [row["id"] for row in asked("list", "--source", f"CMD.{mrn}", "--limit", "1", "--after", rows[0]["id"])] == [rows[1]["id"]]
    assert asked("list", "--control-id", f"C2{mrn}") == rows[1:2]
    (patient,) = [ref.partition("/_history")[0] for ref in rows[2]["resources"] if ref.startswith("Patient/")]
    assert [row["id"] for row in asked("trace", patient)] == [rows[0]["id"], rows[2]["id"]]
    assert asked("replay", "--source", f"CMD.{mrn}") == {"replayed": 3, "failed": []}
    (one,) = [row for row in asked("sources") if row["source"] == f"CMD.{mrn}"]
    assert (one["messages"], one["failed"]) == (3, 0)
    (merge,) = asked("merges", patient)
    assert asked("undo", merge["_id"])["restored"] == merge["retired"]
    for wrong in (("list", "--status", "lost"), ("list", "--since", "yesterday"), ("show", "nothing"), ("undo", "nothing")):
        done = command("hl7v2", *wrong, "--data-dir", data_of(server), code=2)
        assert done.stderr.strip()
        assert "Traceback" not in done.stderr


def test_a_second_server_on_the_same_directory_is_refused_with_the_reason(server: Server) -> None:
    done = command("serve", "--auth", "open", "--port", "0", "--mllp-port", "-1", "--data-dir", data_of(server), code=2)
    assert "already" in done.stderr or "another" in done.stderr or "in use" in done.stderr
    assert httpx.get(f"http://127.0.0.1:{server.port}/metrics").status_code == 200  # the running server did not notice


def test_open_mode_on_a_public_address_is_refused() -> None:
    assert "loopback" in command("serve", "--auth", "open", "--host", "0.0.0.0", code=2).stderr


def test_a_standalone_mongod_is_refused_with_the_reason(tmp_path: Path) -> None:
    done = command("verify", "--mongodb-uri", "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200", code=2)
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr


def test_a_code_system_that_is_loaded_is_answered_from_by_the_running_server(server: Server, tmp_path: Path) -> None:
    url = "https://own.example/CodeSystem/colours"
    concepts = [{"code": "red", "display": "Red"}]
    system = {"resourceType": "CodeSystem", "url": url, "version": "1", "status": "active", "content": "complete", "concept": concepts}
    file = tmp_path / "colours.json"
    file.write_text(json.dumps(system))
    command("terminology", "load", "fhir", str(file), "--data-dir", data_of(server))
    with server.client() as http:
        deadline = time.monotonic() + 15
        while (answer := http.get("/CodeSystem/$lookup", params={"system": url, "code": "red"})).status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.3)
    assert answer.status_code == 200, answer.text
    assert "Red" in answer.text


def test_an_unknown_release_format_is_refused(tmp_path: Path) -> None:
    assert "icd9" in command("terminology", "load", "icd9", str(tmp_path), code=2).stderr
