"""Who a message comes from, and what happens to senders that nobody configured."""

import json
from pathlib import Path
from typing import Any

import pytest

from fhir_server.sources import Source, load_registry, recognise, registry, sender_of
from mappers.v2.message import parse

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
        ({"name": "a", "certificates": "engine.example"}, "'certificates' must be a list of texts"),
        ({"name": "a", "senders": "LAB|HOSP"}, "'senders' must be a list"),
        ({"name": "a", "authorities": ["HOSP"]}, "'authorities' must be an object"),
        ({"name": "a", "sequence": "yes"}, "'sequence' must be true or false"),
        ({"name": "a", "silent_minutes": "5"}, "'silent_minutes' must be a number"),
        ({"name": "a", "silent_minutes": -5}, "'silent_minutes' must be a number"),
        ({"name": "a", "zone": 1}, "'zone' must be a text"),
        ({"name": "a", "answer_to": "host"}, "host:port"),
        ("a", "name"),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(row: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        registry({"sources": [row]})


@pytest.mark.parametrize("data", [[], {"source": []}, {"sources": {}}, "x"])
def test_a_configuration_of_another_shape_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match="sources"):
        registry(data)


@pytest.mark.parametrize("header", ["MSH|^~\\&|LAB^1.2.3^ISO|HOSP^4.5.6^ISO", "MSH|$~\\&|LAB$1.2.3$ISO|CLINIC", "MSH|^~\\&|LAB |HOSP"])
def test_a_sender_is_recognised_by_the_namespace_ids_of_its_names(header: str) -> None:
    assert recognise(CONFIGURED, *sender_of(parse(f"{header}|||20240101||ADT^A08|1|P|2.5\r".encode()))).name == "lab1"
    assert recognise(CONFIGURED, "LAB^1.2.3^ISO", "OTHER^4.5.6^ISO").policy == "defer"


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
