"""$convert-v2: an HL7 v2 message -> the transaction Bundle that the tables make of it; nothing is stored.

POST [base]/$convert-v2 with the message as the body (application/hl7-v2, text/plain), or as a Binary, or as Parameters with `message`
(valueString, valueBase64Binary or a Binary resource). A message that cannot be mapped is refused with 422 and its problems. Equal messages
give equal bundles. It is mapped as the feed would map it: with the authorities, the time zone and the tables of the configured source of the client or
of MSH-3 and MSH-4, whatever is done with messages of unknown senders and of test systems, since nothing is taken in.
"""

import base64
import binascii
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from conformance.outcome import Issue, Refusal, bad_request, unprocessable
from fhir_server.context import Context, Reply, Request, Resource
from fhir_server.interactions.operation import Operation
from fhir_server.security.tokens import OPEN_GRANT
from fhir_server.settings import Settings
from fhir_server.sources import Source, sender_of, spoken_for
from mappers.v2.batch import split
from mappers.v2.charset import of_media
from mappers.v2.convert import Conversion, convert
from mappers.v2.message import Message, parse
from mappers.v2.problem import Problem, failed
from mappers.v2.source import Source as MapperSource
from mappers.v2.tables import Tables, load_tables

URL = "urn:fhir-exchange:OperationDefinition:convert-v2"
SEVERITY = {"E": "error", "W": "warning", "I": "information"}


async def convert_v2(ctx: Context, request: Request) -> Reply:
    """200 with the Bundle. Raises Refusal 400 (no message, or several), 422 (it cannot be mapped)."""
    raw = request.body or _message(request.res)
    found = split(raw)
    if len(found.messages) != 1:
        raise bad_request("the body must hold one HL7 v2 message, beginning with MSH")
    message = parse(found.messages[0], of_media(request.headers.get("content-type", "")) if request.body else None)
    client = "" if ctx.source == OPEN_GRANT.client else ctx.source
    source = spoken_for(ctx.senders, *sender_of(message), client=client)
    conversion = convert_from(ctx.settings, ctx.terms, message, source)
    if failed(conversion.problems):
        raise unprocessable(_issue(problem) for problem in conversion.problems)
    return Reply(200, conversion.bundle)


def convert_from(settings: Settings, terms: Any, message: Message, source: Source) -> Conversion:
    """A message mapped by the rules of its source; terms: the terminology, None for none."""
    to_ucum = terms.to_ucum if terms is not None else None
    return convert(message, tables_of(settings, source), source=_sender(source), to_ucum=to_ucum)


def tables_of(settings: Settings, source: Source) -> Tables:
    """The mapping tables of a source: ours, the site's, its own."""
    site = Path(settings.v2_tables) if settings.v2_tables else None
    return load_tables(site, extra=(Path(source.tables),) if source.tables else ())


@lru_cache(1000)
def _sender(source: Source) -> MapperSource:
    """What the mapper needs to know of a source; the same object each time, since what mapping remembers hangs on it."""
    return MapperSource(source.name, ZoneInfo(source.zone), source.own_authority, {name.upper(): uri for name, uri in source.authorities.items()})


def _issue(problem: Problem) -> Issue:
    return Issue(
        SEVERITY[problem.severity],
        "structure" if problem.code in ("100", "101") else "value",
        f"{problem.location} {problem.text}".strip(),
        details=problem.code,
    )


def _message(res: Resource | None) -> bytes:
    """The bytes in a Binary or Parameters resource. Raises Refusal 400."""
    if res is None:
        raise bad_request("the body must hold an HL7 v2 message")
    if res.get("resourceType") == "Binary":
        return _decoded(res.get("data"))
    for row in _rows(res):
        if row.get("name") == "message":
            if isinstance(row.get("valueString"), str):
                return str(row["valueString"]).encode()
            inner = row.get("resource")
            return _decoded(inner.get("data") if isinstance(inner, dict) else row.get("valueBase64Binary"))
    raise bad_request("the message is sent as the body, a Binary, or a parameter named 'message'")


def _rows(res: Resource) -> list[dict[str, Any]]:
    rows = res.get("parameter", []) if res.get("resourceType") == "Parameters" else []
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(str(text or ""), validate=True)
    except binascii.Error as error:
        raise Refusal(400, (Issue("error", "value", "the message is not base64"),)) from error


ROWS = (Operation("convert-v2", URL, frozenset({"system"}), frozenset({"*"}), False, convert_v2, takes_bytes=True),)
