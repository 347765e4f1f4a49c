"""Every valid R4 example is stored and comes back equal, decimals by text, in JSON and through XML."""

import csv
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from lxml import etree

from conformance import codec
from tests.packages import npm_package
from tests.scenarios.running import Server

REFUSED = Path(__file__).resolve().parents[1] / "conformance" / "refused_examples.csv"  # each argued there


def examples() -> Iterator[tuple[str, bytes]]:
    """(file name, JSON bytes) of each example in the official package."""
    with tarfile.open(npm_package("hl7.fhir.r4.examples@4.0.1")) as archive:
        for member in archive:
            name = member.name.rsplit("/", 1)[-1]
            if member.isfile() and name.endswith(".json") and name != "package.json" and not name.startswith("."):
                stream = archive.extractfile(member)
                assert stream is not None
                yield name, stream.read()


def without_meta(res: dict) -> dict:
    """The resource without what the server stamps."""
    meta = {key: value for key, value in res.get("meta", {}).items() if key not in ("versionId", "lastUpdated")}
    rest = {key: value for key, value in res.items() if key != "meta"}
    return {**rest, "meta": meta} if meta else rest


def sorted_pairs(pairs: list) -> dict:
    """An object with its keys in order; narrative as canonical XML."""
    return {key: etree.canonicalize(value) if key == "div" and isinstance(value, str) else value for key, value in sorted(pairs)}


def text(res: dict) -> bytes:
    """A form in which equal means equal to the letter of each number, whatever the order of keys and the spelling of narrative."""
    return codec.encode(json.loads(codec.encode(res), parse_float=lambda number: f"number {number}", object_pairs_hook=sorted_pairs))


@pytest.mark.slow
def test_every_example_comes_back_equal(server: Server) -> None:
    refused, unequal, stored = {}, [], 0
    with server.client() as http:
        for name, body in examples():
            res = codec.decode(body)
            rid, rtype = res.get("id"), res["resourceType"]
            answer = http.put(f"/{rtype}/{rid}", content=body, headers={"Content-Type": "application/fhir+json"})
            if answer.status_code not in (200, 201):
                refused[name] = [answer.status_code, answer.json()["issue"][0]["diagnostics"]]
                continue
            stored += 1
            back = http.get(f"/{rtype}/{rid}", headers={"Accept": "application/fhir+json"})  # without it a Binary answers with its content
            if text(without_meta(codec.decode(back.content))) != text(without_meta(res)):
                unequal.append(f"{name} as JSON")
            as_xml = http.get(f"/{rtype}/{rid}", headers={"Accept": "application/fhir+xml"})
            again = http.put(f"/{rtype}/{rid}", content=as_xml.content, headers={"Content-Type": "application/fhir+xml"})
            if again.status_code != 200 or text(without_meta(codec.decode(again.content))) != text(without_meta(res)):
                unequal.append(f"{name} through XML: {again.status_code}")
    with REFUSED.open(encoding="utf-8") as rows:
        expected = {f"{row['file']}.json" for row in csv.DictReader(rows)}
    assert not unequal
    assert set(refused) == expected, {name: refused.get(name) for name in set(refused) ^ expected}
    assert stored > 5200
