"""The HTTP border: whatever fails behind it, rendering included, is answered as an OperationOutcome. https://hl7.org/fhir/R4/http.html#Status-Codes"""

import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram

from conformance.outcome import not_found
from conformance.spec import load_spec
from fhir_server.context import Context, Grant, Reply, Request
from fhir_server.metrics import Metrics
from fhir_server.settings import Settings
from fhir_server.web.asgi import App
from fhir_server.web.door import Services, fhir_door


def door(route: Any) -> tuple[App, list[dict[str, Any]]]:
    noted: list[dict[str, Any]] = []

    async def everyone(headers: Any) -> Any:
        return Grant("tester", "tests", ())

    registry = CollectorRegistry()
    metrics = Metrics(
        Counter("requests", "", ("method", "shape", "status"), registry=registry),
        Histogram("seconds", "", ("method", "shape"), registry=registry),
        Counter("messages", "", ("source", "outcome"), registry=registry),
    )
    services = Services(Settings(), load_spec(), None, None, everyone, route, metrics, lambda **fields: noted.append(fields))
    return fhir_door(services), noted


async def get(app: App, accept: bytes = b"application/fhir+json") -> tuple[int, dict[str, Any]]:
    scope = {"type": "http", "method": "GET", "scheme": "http", "path": "/fhir/Patient/1", "raw_path": b"/fhir/Patient/1", "query_string": b""}
    scope |= {"headers": [(b"accept", accept), (b"host", b"localhost")], "request_id": "r1"}
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent[1:]))


async def test_what_cannot_be_rendered_is_a_500_outcome() -> None:
    async def route(ctx: Context, request: Request) -> Reply:
        return Reply(200, {"resourceType": "Patient", "x": object()})

    app, noted = door(route)
    status, body = await get(app)
    assert (status, body["resourceType"], body["issue"][0]["code"]) == (500, "OperationOutcome", "exception")
    assert noted[0]["status"] == 500


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
