"""Reading a request's body from the ASGI channel: size and compression limits (time: the door's). RFC 9110 sections 8.4, 15.5.14, 15.5.16."""

import zlib
from collections.abc import Mapping

from conformance.outcome import bad_request, too_large, unsupported_media
from fhir_server.web.asgi import Receive

GZIP_WINDOW = 16 + zlib.MAX_WBITS
ENCODINGS: Mapping[str, int] = {"gzip": GZIP_WINDOW, "x-gzip": GZIP_WINDOW, "deflate": zlib.MAX_WBITS}


async def read_body(receive: Receive, headers: Mapping[str, str], limit: int) -> bytes:
    """The whole body, decompressed. Raises Refusal 400 (broken), 413 (over `limit` bytes), 415 (unknown encoding)."""
    if headers.get("content-length", "").isdigit() and int(headers["content-length"]) > limit:
        raise too_large(f"the body is larger than {limit} bytes")
    body = await _collect(receive, limit)
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("identity", "") or not body:
        return body
    if encoding not in ENCODINGS:
        raise unsupported_media("Content-Encoding must be gzip, deflate or identity")
    return _inflate(body, ENCODINGS[encoding], limit)


async def _collect(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise bad_request("the client went away before the body was complete")
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise too_large(f"the body is larger than {limit} bytes")
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts) if len(parts) > 1 else parts[0]


def _inflate(body: bytes, window: int, limit: int) -> bytes:
    machine = zlib.decompressobj(window)
    try:
        plain = machine.decompress(body, limit + 1)
    except zlib.error as error:
        raise bad_request("the body is not valid in its Content-Encoding") from error
    if len(plain) > limit:
        raise too_large(f"the decompressed body is larger than {limit} bytes")
    if not machine.eof or machine.unused_data:
        raise bad_request("the compressed body is cut short or has trailing bytes")
    return plain
