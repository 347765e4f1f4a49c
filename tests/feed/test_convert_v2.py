"""$convert-v2 gives the Bundle and stores nothing."""

import base64
from datetime import UTC, datetime
from typing import Any

import pytest

from conformance.outcome import Refusal
from conformance.spec import load_spec
from fhir_server.context import Context, Grant, Reply, Request
from fhir_server.operations import TABLE
from fhir_server.settings import Settings
from tests.feed.exchange import adt, pid, pv1

MESSAGE = adt("A01", pid(), pv1())


async def ask(res: Any = None, body: bytes = b"") -> Reply:
    ctx = Context("t", Grant("t", "t", ()), None, load_spec(), None, Settings(), "http://x/fhir", "t", datetime.now(UTC))
    return await TABLE["convert-v2"][0].handler(ctx, Request("POST", ("$convert-v2",), res=res, body=body))


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
