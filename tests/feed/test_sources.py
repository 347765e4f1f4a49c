"""Who a message comes from, and what happens to senders that nobody configured."""

import json
from pathlib import Path
from typing import Any

import pytest

from fhir_server.sources import Source, load_registry, recognise, registry

CONFIGURED = registry(
    {
        "unknown": "defer",
        "sources": [
            {"name": "lab1", "senders": ["LAB|HOSP", "LAB|CLINIC"], "zone": "Europe/Berlin"},
            {"name": "adt", "senders": ["ADT|*"]},
            {"name": "secure", "senders": ["SEC|*"], "certificates": ["sec.example"], "clients": ["sec-client"]},
        ],
    }
)


def test_a_sender_is_recognised_by_application_and_facility() -> None:
    assert recognise(CONFIGURED, "LAB", "CLINIC").name == "lab1"
    assert recognise(CONFIGURED, "ADT", "anywhere").name == "adt"
    assert recognise(CONFIGURED, "LAB", "OTHER").policy == "defer"


def test_a_source_with_certificates_is_not_recognised_by_what_a_sender_says_of_itself() -> None:
    assert recognise(CONFIGURED, "SEC", "X").policy == "defer"
    assert recognise(CONFIGURED, "whatever", "X", certificate="sec.example").name == "secure"
    assert recognise(CONFIGURED, "LAB", "HOSP", client="sec-client").name == "secure"


@pytest.mark.parametrize(
    ("unknown", "name", "policy"), [("own", "A.B", ""), ("default", "default", ""), ("defer", "A.B", "defer"), ("refuse", "A.B", "refuse")]
)
def test_unknown_senders_follow_the_policy(unknown: str, name: str, policy: str) -> None:
    source = recognise(registry({"unknown": unknown}), "A", "B")
    assert (source.name, source.policy) == (name, policy)


def test_unknown_senders_stay_apart() -> None:
    known = registry({})
    names = {recognise(known, *pair).name for pair in [("A", "B"), ("A.B", ""), ("A", "b"), ("A B", ""), ("A_B", "")]}
    assert len(names) == 5
    assert recognise(known, "", "").name == "."


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "a", "sender": []}, "'sender' is not known"),
        ({"name": "a", "senders": ["LAB"]}, "pairs"),
        ({"name": "a", "zone": "Mars/Base"}, "zone"),
        ({"name": "a", "conflict": "maybe"}, "conflict"),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(row: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        registry({"sources": [row]})


def test_a_registry_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "sources.json"
    path.write_text(json.dumps({"sources": [{"name": "x", "senders": ["A|B"], "authorities": {"HOSP": "urn:oid:1.2.3"}}]}))
    source = recognise(load_registry(str(path)), "A", "B")
    assert source.authorities["HOSP"] == "urn:oid:1.2.3"
    assert load_registry("").unknown == "own"
    path.write_text("{")
    with pytest.raises(ValueError, match="JSON"):
        load_registry(str(path))


def test_identifiers_without_authority_belong_to_the_source() -> None:
    assert Source("lab1").own_authority == "urn:fhir-exchange:source:lab1"
    assert Source("lab1", authority="urn:oid:1.2").own_authority == "urn:oid:1.2"
