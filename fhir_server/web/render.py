"""Reply -> bytes on the wire: JSON or XML, pretty, gzip, HEAD. https://hl7.org/fhir/R4/http.html#mime-type"""

import asyncio
import zlib
from dataclasses import replace
from typing import Any

import msgspec

from conformance import codec, xml
from fhir_server.context import Reply, Request
from fhir_server.web.asgi import Headers
from fhir_server.web.negotiate import XML, Wanted

JSON_TYPE = b"application/fhir+json;charset=utf-8"
XML_TYPE = b"application/fhir+xml;charset=utf-8"
VERSIONED = b";fhirVersion=4.0"
GZIP_FROM = 1400  # bytes: below one network packet compression only costs
GZIP_LEVEL = 1
GZIP_PIECE = 65_536  # bytes that are compressed at a stretch
SLICE = 50  # entries of a Bundle that are written at a stretch
SAFE: Headers = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]


def render(reply: Reply, want: Wanted, *, pretty: bool, gzip: bool, spec: Any) -> tuple[Headers, bytes]:
    """Headers and body of an answer; one too long to be compressed at a stretch is left to `squeezed`."""
    headers: Headers = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in reply.headers.items()]
    headers += SAFE
    if reply.raw is not None:
        media, body = reply.raw
        # A stored document must never run as a page of this origin.
        headers += [
            (b"content-type", media.encode("latin-1", "replace")),
            (b"content-disposition", b"attachment"),
            (b"content-security-policy", b"sandbox"),
        ]
    elif reply.res is not None:
        media_type, body = _resource(reply.res, want, pretty, spec)
        headers.append((b"content-type", media_type))
    else:
        return headers, b""
    if gzip and GZIP_FROM <= len(body) <= GZIP_PIECE:
        machine = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        body = machine.compress(body) + machine.flush()
        headers.append((b"content-encoding", b"gzip"))
    headers += [(b"vary", b"accept, accept-encoding"), (b"content-length", str(len(body)).encode())]
    return headers, body


async def squeezed(headers: Headers, body: bytes) -> tuple[Headers, bytes]:
    """A long body that `render` left as it was, compressed piece by piece, so that other requests have their turns between."""
    machine, parts = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS), []
    for start in range(0, len(body), GZIP_PIECE):
        parts.append(machine.compress(body[start : start + GZIP_PIECE]))
        await asyncio.sleep(0)
    small = b"".join([*parts, machine.flush()])
    kept = [pair for pair in headers if pair[0] != b"content-length"]
    return [*kept, (b"content-encoding", b"gzip"), (b"content-length", str(len(small)).encode())], small


async def written(reply: Reply, want: Wanted, *, pretty: bool, spec: Any) -> Reply:
    """The answer; of a long Bundle the entries are written already, some at a time, so that other requests have their turns between.

    They then stand in `entry` as one msgspec.Raw, in the format that is wanted.
    """
    res = reply.res
    if res is None or res.get("resourceType") != "Bundle" or "signature" in res:  # what follows the entries in XML; only stored Bundles have one
        return reply
    entries = res.get("entry")
    if not isinstance(entries, list) or len(entries) <= SLICE:
        return reply
    pieces = []
    for start in range(0, len(entries), SLICE):
        pieces.append(_entries(entries[start : start + SLICE], want, pretty, spec))
        await asyncio.sleep(0)
    whole = b"".join(pieces) if want.format == XML else b"[" + b",".join(pieces) + b"]"
    return replace(reply, res={**res, "entry": msgspec.Raw(whole)})


def _entries(entries: list[Any], want: Wanted, pretty: bool, spec: Any) -> bytes:
    """Some entries of a Bundle, without what stands around them."""
    if want.format != XML:
        return codec.encode(entries)[1:-1]
    document = xml.to_xml({"resourceType": "Bundle", "entry": entries}, spec, pretty=pretty)
    return document[document.index(b">", document.index(b"<Bundle")) + 1 : document.rindex(b"</Bundle>")].rstrip(b"\n")


def _xml(res: dict[str, Any], pretty: bool, spec: Any) -> bytes:
    """The document; entries that are written already (the last element of the Bundles that this server makes) are put in."""
    entries = res.get("entry")
    if not isinstance(entries, msgspec.Raw):
        return xml.to_xml(res, spec, pretty=pretty)
    around = xml.to_xml({name: inner for name, inner in res.items() if name != "entry"}, spec, pretty=pretty)
    end = around.rindex(b"\n</Bundle>" if pretty else b"</Bundle>")
    return around[:end] + bytes(entries) + around[end:]


def _resource(res: dict[str, Any], want: Wanted, pretty: bool, spec: Any) -> tuple[bytes, bytes]:
    suffix = VERSIONED if want.versioned else b""
    if want.format == XML:
        return XML_TYPE + suffix, _xml(res, pretty, spec)
    return JSON_TYPE + suffix, codec.encode_pretty(res) if pretty else codec.encode(res)


def accepts_gzip(accept_encoding: str) -> bool:
    """True if Accept-Encoding allows gzip (quality above 0)."""
    for part in accept_encoding.split(","):
        coding, _, parameters = part.strip().lower().partition(";")
        if coding.strip() in ("gzip", "*"):
            return parameters.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def binary_of(request: Request, reply: Reply, want: Wanted) -> tuple[str, str] | None:
    """(contentType, base64) if a Binary was read by a client that did not ask for a format of FHIR (https://hl7.org/fhir/R4/binary.html#rest)."""
    res = reply.res
    if not want.raw or request.method != "GET" or reply.status != 200 or res is None or res.get("resourceType") != "Binary":
        return None
    return str(res.get("contentType", "application/octet-stream")), str(res.get("data", ""))
