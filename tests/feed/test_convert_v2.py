"""$convert-v2 gives the Bundle and stores nothing."""

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from conformance.outcome import Refusal
from conformance.spec import load_spec
from fhir_server.context import Context, Grant, Reply, Request
from fhir_server.operations import TABLE
from fhir_server.settings import Settings
from fhir_server.sources import registry
from tests.feed.exchange import adt, pid, pv1

MESSAGE = adt("A01", pid(), pv1())


async def ask(res: Any = None, body: bytes = b"", known: Any = None, told: str = "application/hl7-v2") -> Reply:
    ctx = Context(
        "t", Grant("t", "t", ()), None, load_spec(), None, Settings(), "http://x/fhir", "t", datetime.now(UTC), senders=registry(known or {})
    )
    return await TABLE["convert-v2"][0].handler(ctx, Request("POST", ("$convert-v2",), headers={"content-type": told}, res=res, body=body))


async def test_every_way_to_send_the_message_gives_the_same_bundle() -> None:
    data = base64.b64encode(MESSAGE.encode()).decode()
    binary = {"resourceType": "Binary", "contentType": "application/hl7-v2", "data": data}
    rows = ({"valueString": MESSAGE}, {"valueBase64Binary": data}, {"resource": binary})
    ways = [
        ask(body=MESSAGE.encode()),
        ask(binary),
        *(ask({"resourceType": "Parameters", "parameter": [{"name": "message", **row}]}) for row in rows),
    ]
    bundles = [(await way).res for way in ways]
    assert all(bundle == bundles[0] for bundle in bundles)
    assert bundles[0]["type"] == "transaction"
    assert {"Patient", "Encounter"} <= {entry["resource"]["resourceType"] for entry in bundles[0]["entry"]}


async def test_the_charset_of_the_media_type_counts_where_msh_18_is_empty() -> None:
    name = "ИВАНОВ"
    reply = await ask(body=adt("A08", pid(name=name)).encode("iso8859_5"), told="application/hl7-v2; charset=ISO-8859-5")
    (patient,) = [entry["resource"] for entry in reply.res["entry"] if entry["resource"]["resourceType"] == "Patient"]
    assert patient["name"][0]["family"] == name


@pytest.mark.parametrize(
    ("res", "body", "status"),
    [
        (None, b"", 400),
        (None, b"nonsense", 400),
        (None, MESSAGE.encode() * 2, 400),
        ({"resourceType": "Parameters", "parameter": [{"name": "other"}]}, b"", 400),
        ({"resourceType": "Parameters", "parameter": {}}, b"", 400),
        ({"resourceType": "Binary", "data": "%%"}, b"", 400),
        (None, b"MSH|^~\\&|A|B|C|D|2024||ZZZ^Z99|1|P|2.5\r", 422),
    ],
)
async def test_what_is_no_message_is_refused(res: Any, body: bytes, status: int) -> None:
    with pytest.raises(Refusal) as refused:
        await ask(res, body)
    assert refused.value.status == status


@pytest.mark.parametrize("proof", [{}, {"certificates": ["lab.example"]}])
async def test_it_maps_by_the_rules_of_the_configured_source(tmp_path: Path, proof: dict[str, Any]) -> None:
    """Nothing is stored, so that a source which only a certificate proves may be asked for by its name."""
    (tmp_path / "segments").mkdir()
    (tmp_path / "segments" / "PID_Patient.csv").write_text(
        "field,when,path,as,codes,value\n10,,extension{http://site.example/race}.valueString,string,,\n"
    )
    known = {
        "unknown": "refuse",
        "sources": [
            {
                "name": "ward",
                "senders": ["ADT|HOSP"],
                "zone": "America/New_York",
                "authorities": {"hosp": "urn:oid:1.2.3"},
                "tables": str(tmp_path),
                **proof,
            }
        ],
    }
    message = adt("A01", pid(rest="||R1"), pv1(), at="20240701120000").replace("V1^^^HOSP^VN", "V1^^^^VN")
    bundle = (await ask(body=message.encode(), known=known)).res
    found = {entry["resource"]["resourceType"]: entry["resource"] for entry in bundle["entry"]}
    assert found["Patient"]["identifier"][0]["system"] == "urn:oid:1.2.3"
    assert {"url": "http://site.example/race", "valueString": "R1"} in found["Patient"]["extension"]
    assert found["Encounter"]["identifier"][0]["system"] == "urn:fhir-exchange:source:ward"
    assert bundle["timestamp"].startswith("2024-07-01T12:00:00-04:00")
