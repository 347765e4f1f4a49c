"""What an attacker or a standards lawyer would send: each resource of attacks.jsonl is refused at exactly these places, or not at all."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance import codec
from conformance.spec import load_spec
from conformance.validate import validate

FILE = Path(__file__).parent / "attacks.jsonl"


def rows() -> Iterator[Any]:
    for line in FILE.read_bytes().splitlines():
        row = codec.decode(line)
        yield pytest.param(row["resource"], row["at"], id=row["name"])


@pytest.mark.parametrize(("res", "at"), list(rows()))
def test_refused_at_the_right_places(res: dict[str, Any], at: list[str]) -> None:
    issues = validate(load_spec(), res)
    assert sorted({issue.expression for issue in issues if issue.severity == "error"}) == at
    assert not [issue for issue in issues if issue.code == "incomplete"]


@pytest.mark.parametrize(
    ("extension", "holder"),
    [
        ({"url": "http://example.org/unknown", "valueBoolean": True}, "modifierExtension"),
        ({"url": "http://hl7.org/fhir/StructureDefinition/none"}, "extension"),
    ],
)
def test_what_is_not_understood_is_told(extension: dict[str, Any], holder: str) -> None:
    found = validate(load_spec(), {"resourceType": "Patient", holder: [{"valueBoolean": True, **extension}]})
    assert ("warning", f"Patient.{holder}[0]") in {(issue.severity, issue.expression) for issue in found}
