"""`client`, `user` and `key` on the command line: what they print, what they keep, what they refuse."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from typer.testing import CliRunner

from fhir_server.cli import app
from fhir_server.store.embedded import Embedded


def run(mongod: Embedded, folder: Path, *arguments: str, stdin: str = "") -> Any:
    """The JSON that a command prints."""
    result = CliRunner().invoke(app, [*arguments, "--mongodb-uri", mongod.uri, "--data-dir", str(folder)], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout) if result.stdout.strip().startswith(("{", "[")) else result.stdout


def test_a_client_is_added_listed_and_disabled(mongod: Embedded, tmp_path: Path) -> None:
    name = "c" + uuid.uuid4().hex
    made = run(
        mongod, tmp_path, "client", "add", name, "--kind", "symmetric", "--redirect-uri", "https://app.example/b", "--scope", "patient/*.rs openid"
    )
    assert len(made["client_secret"]) >= 43
    (row,) = [one for one in run(mongod, tmp_path, "client", "list") if one["client_id"] == name]
    assert (row["kind"], row["scope"], row["disabled"]) == ("symmetric", "patient/*.rs openid", False)
    assert made["client_secret"] not in json.dumps(row)
    run(mongod, tmp_path, "client", "disable", name)
    assert [one["disabled"] for one in run(mongod, tmp_path, "client", "list") if one["client_id"] == name] == [True]
    run(mongod, tmp_path, "client", "enable", name)
    with pytest.raises(ValueError, match="taken"):
        run(mongod, tmp_path, "client", "add", name, "--redirect-uri", "https://app.example/b")
    with pytest.raises(ValueError, match="not known"):
        run(mongod, tmp_path, "client", "disable", "nobody")


def test_a_user_is_added_without_the_password_on_the_command_line(mongod: Embedded, tmp_path: Path) -> None:
    name = "u" + uuid.uuid4().hex
    made = run(mongod, tmp_path, "user", "add", name, "--fhir-user", "Patient/1", "--password-file", "-", stdin="correct horse battery\n")
    assert (made["role"], made["fhirUser"]) == ("patient", "Patient/1")
    rows = run(mongod, tmp_path, "user", "list")
    assert "argon2" not in json.dumps(rows)
    for arguments, stdin, problem in (
        (("--fhir-user", "Patient/1"), "correct horse battery\n", "taken"),
        (("--fhir-user", "Patient/1"), "short\n", "password"),
        (("--fhir-user", "Device/1"), "correct horse battery\n", "fhir user"),
        (("--fhir-user", "Practitioner/1", "--role", "patient"), "correct horse battery\n", "fhir user"),
        (("--fhir-user", "Practitioner/1", "--role", "king"), "correct horse battery\n", "role"),
    ):
        with pytest.raises(ValueError, match=problem):
            run(mongod, tmp_path, "user", "add", name, *arguments, "--password-file", "-", stdin=stdin)
    run(mongod, tmp_path, "user", "disable", name)


def test_what_the_operator_changes_is_in_the_audit_trail(mongod: Embedded, tmp_path: Path) -> None:
    name = "c" + uuid.uuid4().hex
    run(mongod, tmp_path, "client", "add", name, "--redirect-uri", "https://app.example/b")
    run(mongod, tmp_path, "client", "disable", name)
    run(mongod, tmp_path, "client", "list")
    with MongoClient(mongod.uri) as client:
        rows = list(client["fhir"]["AuditEvent"].find({"res.outcomeDesc": {"$in": [f"client add {name}", f"client disable {name}"]}}))
    assert {row["res"]["outcomeDesc"]: row["res"]["subtype"][0]["code"] for row in rows} == {
        f"client add {name}": "110136",
        f"client disable {name}": "110136",
    }


def test_keys_are_rotated_and_forgotten_after_a_compromise(mongod: Embedded, tmp_path: Path) -> None:
    first = run(mongod, tmp_path, "key", "rotate")["kid"]
    second = run(mongod, tmp_path, "key", "rotate")["kid"]
    assert [row["kid"] for row in run(mongod, tmp_path, "key", "list")][:2] == [second, first]
    last = run(mongod, tmp_path, "key", "rotate", "--now")["kid"]
    assert [row["kid"] for row in run(mongod, tmp_path, "key", "list")] == [last]
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0
