"""Reading bodies: parts, limits, compression. RFC 9110 section 8.4"""

import gzip
import zlib
from collections.abc import Awaitable, Callable

import pytest

from conformance.outcome import Refusal
from fhir_server.web.body import read_body


def channel(*parts: bytes) -> Callable[[], Awaitable[dict]]:
    """An ASGI receive that yields these parts."""
    messages = [{"type": "http.request", "body": part, "more_body": number < len(parts) - 1} for number, part in enumerate(parts)]

    async def receive() -> dict:
        return messages.pop(0)

    return receive


async def test_parts_are_joined() -> None:
    assert await read_body(channel(b"ab", b"", b"c"), {}, 10) == b"abc"


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip"])
async def test_gzip_is_opened(encoding: str) -> None:
    assert await read_body(channel(gzip.compress(b"hello")), {"content-encoding": encoding}, 100) == b"hello"


async def test_deflate_is_opened() -> None:
    assert await read_body(channel(zlib.compress(b"hello")), {"content-encoding": "deflate"}, 100) == b"hello"


@pytest.mark.parametrize(
    ("parts", "headers", "status"),
    [
        ((b"x" * 6, b"x" * 6), {}, 413),
        ((b"x",), {"content-length": "99"}, 413),
        ((gzip.compress(b"0" * 1_000_000),), {"content-encoding": "gzip"}, 413),  # a decompression bomb is cut at the limit
        ((b"no gzip",), {"content-encoding": "gzip"}, 400),
        ((gzip.compress(b"hello")[:-4],), {"content-encoding": "gzip"}, 400),
        ((gzip.compress(b"a") + b"tail",), {"content-encoding": "gzip"}, 400),
        ((b"x",), {"content-encoding": "br"}, 415),
    ],
)
async def test_what_breaks_a_limit_or_its_encoding_is_refused(parts: tuple[bytes, ...], headers: dict[str, str], status: int) -> None:
    limit = 10 if "content-encoding" not in headers else 1000
    with pytest.raises(Refusal) as caught:
        await read_body(channel(*parts), headers, limit)
    assert caught.value.status == status


async def test_a_client_that_goes_away_is_a_bad_request() -> None:
    async def receive() -> dict:
        return {"type": "http.disconnect"}

    with pytest.raises(Refusal):
        await read_body(receive, {}, 10)
