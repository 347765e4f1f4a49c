"""Registered clients: who they are, how they prove it, where they may be sent back to, what they may ask for.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#register-app-with-ehr. Registration is the operator's (`fhir-exchange client
add`). Secrets are kept as digests, addresses are compared character by character (RFC 9700 section 2.1).
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from fhir_server.security.authserver import scope
from fhir_server.security.authserver.kinds import CLIENTS, REVOKED, after, digest, fresh
from fhir_server.store.records import Document, Records

KINDS = ("public", "symmetric", "asymmetric")
CLIENT_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}")
URI_CHARACTERS = re.compile(r"[A-Za-z0-9._~:/?\[\]@!$&'()*+=%-]{1,2000}")  # no comma, semicolon or blank: it stands in a CSP header
NO_SCHEMES = frozenset({"javascript", "data", "file", "vbscript", "blob", "about", "ftp", "ws", "wss"})
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
SECRET = re.compile(r"[A-Za-z0-9._~-]{32,256}")  # kept as a plain digest, so it must not be guessable; the same in every form encoding
REVOKED_DAYS = 2


@dataclass(frozen=True, slots=True)
class Client:
    """One registered client.

    kind: public | symmetric (client secret) | asymmetric (private_key_jwt); secrets: digests; jwks: its public keys, or jwks_uri where
    they are; scopes: the most it may be granted; trusted: the organisation's own app, users are not asked for consent.
    """

    id: str
    name: str
    kind: str
    redirect_uris: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    jwks: Mapping[str, Any] | None = None
    jwks_uri: str = ""
    launch_uri: str = ""
    trusted: bool = False
    disabled: bool = False

    @property
    def backend(self) -> bool:
        """It may ask for tokens of its own: it can authenticate and has scopes of its own (the user-less level and the exchange's own)."""
        return self.kind != "public" and any(one.startswith(("system/", "exchange/")) for one in self.scopes)


def checked(client: Client, *, secret: str = "") -> Client:
    """The client, if it may be registered. Raises ValueError that names the field and the rule."""
    if not CLIENT_ID.fullmatch(client.id):
        raise ValueError("client id: 1 to 128 of A-Z a-z 0-9 . _ ~ -")
    if client.kind not in KINDS:
        raise ValueError(f"kind: one of {', '.join(KINDS)}")
    for uri in client.redirect_uris:
        check_redirect(uri)
    if client.launch_uri:
        check_redirect(client.launch_uri)
    unknown = [one for one in client.scopes if not scope.known(one)]
    if unknown:
        raise ValueError(f"scope {unknown[0]}: not one this exchange knows")
    if (client.kind == "asymmetric") != bool(client.jwks or client.jwks_uri):
        raise ValueError("jwks, jwks_uri: an asymmetric client, and no other, has one of them")
    if client.jwks and client.jwks_uri:
        raise ValueError("jwks, jwks_uri: one of them, not both")
    if client.jwks_uri and urlsplit(client.jwks_uri).scheme != "https" and urlsplit(client.jwks_uri).hostname not in LOOPBACK:
        raise ValueError("jwks_uri: must be https")
    if client.kind == "symmetric" and secret and not SECRET.fullmatch(secret):
        raise ValueError("secret: 32 to 256 of A-Z a-z 0-9 . _ ~ -")
    if not client.redirect_uris and not client.backend:
        raise ValueError("redirect_uri: a client without system scopes needs at least one")
    return client


def check_redirect(uri: str) -> None:
    """Raises ValueError unless the address may receive codes: https, http on loopback, or an app's own scheme (RFC 8252)."""
    parts = urlsplit(uri)
    if not URI_CHARACTERS.fullmatch(uri) or "#" in uri or "\\" in uri:
        raise ValueError("redirect_uri: only characters of a URI, without fragment")
    if not parts.scheme or parts.scheme.lower() in NO_SCHEMES:
        raise ValueError("redirect_uri: https, http on loopback, or the app's own scheme")
    if parts.scheme in ("https", "http"):
        if not parts.hostname or parts.username is not None or "*" in parts.netloc:
            raise ValueError("redirect_uri: needs a host, no user, no wildcard")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise ValueError("redirect_uri: http is allowed on loopback only")
    elif "." not in parts.scheme:
        raise ValueError("redirect_uri: an app's own scheme is a reversed domain name (com.example.app)")


def may_return_to(client: Client, uri: str) -> bool:
    """True if this is one of the registered addresses, character by character; http on loopback IPs may name another port (RFC 8252 section 7.3)."""
    return uri in client.redirect_uris or any(_same_but_port(one, uri) for one in client.redirect_uris)


def _same_but_port(registered: str, uri: str) -> bool:
    one = re.fullmatch(r"(http://(?:127\.0\.0\.1|\[::1\]))(?::\d{1,5})?(/[^#]*)?", registered)
    other = re.fullmatch(r"(http://(?:127\.0\.0\.1|\[::1\]))(?::\d{1,5})?(/[^#]*)?", uri)
    return one is not None and other is not None and one.groups() == other.groups()


async def add(records: Records, client: Client, *, secret: str = "") -> str:
    """Register; the client secret (given or made; '' for other kinds), which is shown once. Raises ValueError if the id is taken."""
    checked(client, secret=secret)
    if client.kind == "symmetric":
        secret = secret or fresh()
    made = {**asdict(client), "secrets": [digest(secret)] if client.kind == "symmetric" else []}
    made["jwks"] = json.dumps(client.jwks) if client.jwks else ""
    del made["id"]
    if not await records.insert(CLIENTS, client.id, _plain(made)):
        raise ValueError(f"client {client.id}: this id is taken")
    return secret if client.kind == "symmetric" else ""


async def get(records: Records, client_id: str) -> Client | None:
    """A client that is registered and not disabled."""
    if not CLIENT_ID.fullmatch(client_id):
        return None
    row = await records.get(CLIENTS, client_id)
    return None if row is None or row["disabled"] else _client(row)


async def listed(records: Records) -> list[Client]:
    """All clients, disabled ones too."""
    return [_client(row) for row in await records.find(CLIENTS)]


async def disable(records: Records, client_id: str) -> bool:
    """Refuse this client from now on, with the tokens it has; False if there is none."""
    if await records.change(CLIENTS, client_id, {"disabled": True}) is None:
        return False
    await records.insert(REVOKED, f"client:{client_id}", {}, after(REVOKED_DAYS * 86_400))
    return True


async def enable(records: Records, client_id: str) -> bool:
    """Let it in again; False if there is none."""
    await records.remove(REVOKED, f"client:{client_id}")
    return await records.change(CLIENTS, client_id, {"disabled": False}) is not None


def _plain(values: Mapping[str, Any]) -> Document:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _client(row: Document) -> Client:
    names = {one.name for one in fields(Client)}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items() if name in names}
    return Client(**{**values, "id": row["_id"], "jwks": json.loads(row["jwks"]) if row["jwks"] else None})


def scopes_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Scopes given as words or as lists of words, each once."""
    return tuple(dict.fromkeys(one for text in texts for one in text.split()))
