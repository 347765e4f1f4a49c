"""The HTTP border: whatever fails behind it, rendering included, is answered as an OperationOutcome. https://hl7.org/fhir/R4/http.html#Status-Codes"""

import asyncio
import gzip
import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from conformance.outcome import not_found
from conformance.spec import load_spec
from conformance.xml import from_xml
from fhir_server.context import Context, Grant, Reply, Request
from fhir_server.metrics import Metrics
from fhir_server.settings import Settings
from fhir_server.web.asgi import App
from fhir_server.web.door import Services, fhir_door
from fhir_server.web.negotiate import JSON, XML, Wanted
from fhir_server.web.render import SLICE, render, written


class NoStore:
    """These routes ask for nothing that is stored."""


class Nowhere:
    """A store that is not asked for anything."""


def door(route: Any) -> tuple[App, list[dict[str, Any]]]:
    noted: list[dict[str, Any]] = []

    async def everyone(headers: Any) -> Any:
        return Grant("tester", "tests", ())

    registry = CollectorRegistry()
    metrics = Metrics(
        Counter("requests", "", ("method", "shape", "status"), registry=registry),
        Histogram("seconds", "", ("method", "shape"), registry=registry),
        Counter("messages", "", ("source", "outcome"), registry=registry),
        Gauge("received", "", ("source",), registry=registry),
        Gauge("waiting", "", ("source",), registry=registry),
        Counter("mllp", "", ("event",), registry=registry),
    )
    services = Services(Settings(), load_spec(), None, NoStore(), everyone, route, metrics, lambda **fields: noted.append(fields))
    return fhir_door(services), noted


async def get(app: App, accept: bytes = b"application/fhir+json", encoding: bytes = b"") -> tuple[int, dict[str, Any]]:
    scope = {"type": "http", "method": "GET", "scheme": "http", "path": "/fhir/Patient/1", "raw_path": b"/fhir/Patient/1", "query_string": b""}
    scope |= {"headers": [(b"accept", accept), (b"host", b"localhost"), (b"accept-encoding", encoding)], "request_id": "r1"}
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    headers, body = dict(sent[0]["headers"]), b"".join(message.get("body", b"") for message in sent[1:])
    assert int(headers[b"content-length"]) == len(body)
    packed = headers.get(b"content-encoding") == b"gzip"
    assert packed == bool(encoding)
    return sent[0]["status"], json.loads(gzip.decompress(body) if packed else body)


async def test_what_cannot_be_rendered_is_a_500_outcome() -> None:
    async def route(ctx: Context, request: Request) -> Reply:
        return Reply(200, {"resourceType": "Patient", "x": object()})

    app, noted = door(route)
    status, body = await get(app)
    assert (status, body["resourceType"], body["issue"][0]["code"]) == (500, "OperationOutcome", "exception")
    assert noted[0]["status"] == 500


@pytest.mark.parametrize("encoding", [b"", b"gzip"])
async def test_a_long_bundle_is_written_in_pieces(encoding: bytes) -> None:
    """Others have their turns while it is written, and nothing of it is lost."""
    entries = [{"resource": {"resourceType": "Basic", "id": str(number), "code": {"text": "x" * 300}}} for number in range(5 * SLICE + 1)]
    whole = {"resourceType": "Bundle", "type": "searchset", "entry": entries}
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def route(ctx: Context, request: Request) -> Reply:
        return Reply(200, whole)

    beside = asyncio.create_task(others())
    assert await get(door(route)[0], encoding=encoding) == (200, whole)
    beside.cancel()
    assert turns >= 5


@pytest.mark.parametrize(
    "res",
    [
        {"resourceType": "List", "status": "current", "mode": "working", "entry": [{"item": {"reference": f"Basic/{n}"}} for n in range(2 * SLICE)]},
        {
            "resourceType": "Bundle",
            "type": "collection",
            "entry": [{"resource": {"resourceType": "Basic", "code": {"text": "x"}}}] * (2 * SLICE),
            "signature": {"type": [{"code": "x"}], "when": "2026-01-01T00:00:00Z", "who": {"display": "x"}},
        },
    ],
)
async def test_only_bundles_that_end_with_their_entries_are_written_in_pieces(res: dict[str, Any]) -> None:
    spec, want = load_spec(), Wanted(XML)
    reply = Reply(200, res=res)
    assert await written(reply, want, pretty=False, spec=spec) is reply
    assert from_xml(render(reply, want, pretty=False, gzip=False, spec=spec)[1], spec) == res


@pytest.mark.parametrize("form", [JSON, XML])
@pytest.mark.parametrize("pretty", [False, True])
async def test_a_bundle_in_pieces_is_the_same_to_the_byte(form: str, pretty: bool) -> None:
    entries = [
        {"fullUrl": f"urn:x:{number}", "resource": {"resourceType": "Basic", "id": str(number), "code": {"text": "æ <b>"}}} for number in range(120)
    ]
    reply = Reply(200, {"resourceType": "Bundle", "type": "searchset", "link": [{"relation": "self", "url": "http://x"}], "entry": entries})
    spec, want = load_spec(), Wanted(form)
    in_pieces = await written(reply, want, pretty=pretty, spec=spec)
    assert in_pieces is not reply
    assert render(in_pieces, want, pretty=pretty, gzip=False, spec=spec) == render(reply, want, pretty=pretty, gzip=False, spec=spec)


async def test_what_has_no_xml_form_is_refused_in_json() -> None:
    """A resource stored with the gate off may hold what R4's XML cannot say."""

    async def route(ctx: Context, request: Request) -> Reply:
        return Reply(200, {"resourceType": "Patient", "name": 7})

    app, noted = door(route)
    assert (await get(app))[0] == 200
    status, body = await get(app, b"application/fhir+xml")
    assert (status, body["resourceType"]) == (406, "OperationOutcome")
    assert [row["status"] for row in noted] == [200, 406]


@pytest.mark.parametrize(("raised", "expected"), [(RuntimeError("secret"), 500), (TimeoutError(), 503), (not_found("Patient", "1"), 404)])
async def test_what_route_raises_is_an_outcome_without_a_traceback(raised: Exception, expected: int) -> None:
    async def route(ctx: Context, request: Request) -> Reply:
        raise raised

    app, noted = door(route)
    status, body = await get(app)
    assert (status, body["resourceType"]) == (expected, "OperationOutcome")
    assert "secret" not in json.dumps(body)
    assert noted[0]["status"] == expected
