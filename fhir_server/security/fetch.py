"""Fetch a small JSON document from another system without being led astray (SSRF). https://cheatsheetseries.owasp.org: SSRF prevention.

https only; the name is resolved once and the connection goes to that very address, which must be public (no loopback, private, link-local
or reserved network, so no metadata service, whatever DNS says later); no redirects, no proxies of the environment; bounded size and time.
The operator may name hosts that are allowed beyond that (FHIR_FETCH_ALLOW).
"""

import asyncio
import ipaddress
import json
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus, urlsplit

import httpx

MAX_BYTES = 262_144
SECONDS = 5.0


class NotFetched(Exception):
    """The document could not be fetched, or may not be; the text says why without naming internal addresses."""


async def fetch_json(uri: str, allow: frozenset[str] = frozenset()) -> Any:
    """The JSON document at `uri`. allow: host names that may be http or in private networks. Raises NotFetched."""
    return await _json("GET", uri, allow, {})


async def post_form(uri: str, form: Mapping[str, str], auth: tuple[str, str] | None, allow: frozenset[str] = frozenset()) -> Any:
    """The JSON answer to a form. auth: (name, secret) for HTTP Basic. Raises NotFetched as `fetch_json`."""
    given: dict[str, Any] = {"data": dict(form)}
    return await _json("POST", uri, allow, given if auth is None else {**given, "auth": (quote_plus(auth[0]), quote_plus(auth[1]))})


async def _json(method: str, uri: str, allow: frozenset[str], given: Mapping[str, Any]) -> Any:
    parts = urlsplit(uri)
    host = parts.hostname or ""
    if parts.scheme != "https" and not (parts.scheme == "http" and host in allow):
        raise NotFetched("the address must be https")
    if parts.username is not None or not host:
        raise NotFetched("the address must have a host and no user")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        async with asyncio.timeout(SECONDS):
            address = await _address(host, port, host in allow)
            return json.loads(await _body(method, uri, (parts.scheme, host, address, port), given))
    except (httpx.HTTPError, OSError, TimeoutError, ValueError, RecursionError) as error:
        raise NotFetched(f"the document could not be fetched ({type(error).__name__})") from error


async def _address(host: str, port: int, allowed: bool) -> str:
    """The first address of the host, if all of them may be called."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(row[4][0]) for row in found]
    if not addresses:
        raise NotFetched("the host has no address")
    if not allowed and not all(is_public(one) for one in addresses):
        raise NotFetched("the host is in a network that this server does not call")
    return addresses[0]


def is_public(address: str) -> bool:
    """True for an address of the public internet, also where IPv6 wraps an IPv4 address."""
    one = ipaddress.ip_address(address.split("%")[0])
    if isinstance(one, ipaddress.IPv6Address):
        inner = one.ipv4_mapped or one.sixtofour or (one.teredo[1] if one.teredo else None)
        if inner is not None:
            return is_public(str(inner))
        if one in ipaddress.ip_network("64:ff9b::/96"):
            return is_public(str(ipaddress.IPv4Address(int(one) & 0xFFFFFFFF)))
    return one.is_global and not one.is_multicast


async def _body(method: str, uri: str, place: tuple[str, str, str, int], given: Mapping[str, Any]) -> bytes:
    """Ask exactly this (scheme, host, address, port); certificate and Host are those of the name."""
    scheme, host, address, port = place
    literal = f"[{address}]" if ":" in address else address
    parts = urlsplit(uri)
    target = f"{scheme}://{literal}:{port}{parts.path or '/'}" + (f"?{parts.query}" if parts.query else "")
    headers = {"host": parts.netloc, "accept": "application/json", "accept-encoding": "identity"}
    async with (
        httpx.AsyncClient(timeout=SECONDS, follow_redirects=False, trust_env=False) as client,
        client.stream(method, target, headers=headers, extensions={"sni_hostname": host}, **given) as response,
    ):
        if response.status_code != 200:
            raise NotFetched(f"the host answered {response.status_code}")
        body = b""
        async for part in response.aiter_raw():  # as sent: nothing is inflated
            body += part
            if len(body) > MAX_BYTES:
                raise NotFetched("the document is too large")
    return body
