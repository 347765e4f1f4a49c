"""What a person granted to an app, and the codes and refresh tokens that stand for it. RFC 6749 sections 4.1.2 and 6, RFC 9700 section 4.14.

A grant is one record; its code and its chain of refresh tokens are records that name it. Each code and refresh token can be used once:
the use is a compare-and-set in the database, so of two workers one wins, and the loser, like any later user, ends the whole grant.
"""

import base64
import hashlib
import hmac
import logging
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fhir_server.security.authserver.errors import OAuthError
from fhir_server.security.authserver.kinds import CODES, GRANTS, REFRESH, REVOKED, after, digest, fresh
from fhir_server.security.authserver.server import CODE_SECONDS, DAY, LEEWAY_SECONDS, AuthServer
from fhir_server.store.records import Document

log = logging.getLogger("fhir.auth")
VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
MEMORY_SECONDS = 3600  # a used code is remembered so long, so that its second use is noticed


@dataclass(frozen=True, slots=True)
class GrantRow:
    """One grant. user: account id; scopes: as granted; lasting: offline | online | '' ; session: key of the sign-in; extra: launch parameters."""

    id: str
    client: str
    user: str
    scopes: tuple[str, ...]
    patient: str
    encounter: str
    fhir_user: str
    nonce: str
    auth_time: int
    lasting: str
    session: str
    extra: dict[str, Any]
    at: int


def _row(document: Document) -> GrantRow:
    values = {name: document[name] for name in GrantRow.__slots__ if name != "id"}
    return GrantRow(id=document["_id"], **{**values, "scopes": tuple(values["scopes"])})


def lasting(scopes: tuple[str, ...]) -> str:
    """How long access lasts: offline before online, where both were granted."""
    if "offline_access" in scopes:
        return "offline"
    return "online" if "online_access" in scopes else ""


def _until(server: AuthServer, row_lasting: str) -> datetime:
    if row_lasting == "offline":
        return after(server.settings.refresh_days * DAY)
    return after(server.settings.session_seconds if row_lasting else CODE_SECONDS + server.settings.token_seconds + LEEWAY_SECONDS)


async def grant_code(server: AuthServer, values: dict[str, Any], redirect_uri: str, challenge: str) -> str:
    """Keep a grant (fields of GrantRow but id) and return the code that is worth it once, for a minute."""
    grant_id, code = fresh(), fresh()
    await server.records.insert(GRANTS, grant_id, {**values, "scopes": list(values["scopes"])}, _until(server, values["lasting"]))
    document = {
        "grant": grant_id,
        "client": values["client"],
        "redirect_uri": redirect_uri,
        "challenge": challenge,
        "used": False,
        "ends": datetime.now(UTC) + timedelta(seconds=CODE_SECONDS),
    }
    await server.records.insert(CODES, digest(code), document, after(MEMORY_SECONDS))
    return code


async def redeem_code(server: AuthServer, code: str, client_id: str, redirect_uri: str, verifier: str) -> GrantRow:
    """The grant of a code. Raises OAuthError invalid_grant; whatever is wrong, the code is spent."""
    key = digest(code)
    row = await server.records.change(CODES, key, {"used": True}, where={"used": False})
    if row is None:
        spent = await server.records.get(CODES, key)
        if spent is not None:
            _replayed("code", spent)
            await revoke_grant(server, spent["grant"])
        raise _invalid("the code is unknown, has expired, or was used before")
    problem = _problem(row, client_id, redirect_uri, verifier)
    grant = await live_grant(server, row["grant"])
    if problem or grant is None:
        await revoke_grant(server, row["grant"])
        raise _invalid(problem or "the grant was withdrawn")
    return grant


def _problem(row: Document, client_id: str, redirect_uri: str, verifier: str) -> str:
    if row["client"] != client_id:
        return "the code is another client's"
    if row["ends"] < datetime.now(UTC):
        return "the code has expired"
    if row["redirect_uri"] != redirect_uri:
        return "redirect_uri is not that of the authorization request"
    if not VERIFIER.fullmatch(verifier):
        return "code_verifier must have 43 to 128 unreserved characters"
    made = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    return "" if hmac.compare_digest(made, row["challenge"]) else "code_verifier does not fit the code_challenge"


async def live_grant(server: AuthServer, grant_id: str) -> GrantRow | None:
    """A grant that was not withdrawn."""
    row = await server.records.get(GRANTS, grant_id)
    return _row(row) if row else None


async def fresh_refresh(server: AuthServer, grant: GrantRow) -> str:
    """The next refresh token of the chain; the grant lives as long as it."""
    token, until = fresh(), _until(server, grant.lasting)
    await server.records.insert(REFRESH, digest(token), {"grant": grant.id, "client": grant.client, "used": False}, until)
    await server.records.change(GRANTS, grant.id, {}, until=until) if grant.lasting == "offline" else None
    return token


async def grant_of_refresh(server: AuthServer, token: str) -> GrantRow | None:
    """The grant a refresh token belongs to, used or not."""
    row = await server.records.get(REFRESH, digest(token))
    return await live_grant(server, row["grant"]) if row else None


async def client_of_refresh(server: AuthServer, token: str) -> str:
    """The id of the client that a refresh token was given to. Raises OAuthError invalid_grant if there is no such token."""
    row = await server.records.get(REFRESH, digest(token))
    if row is None:
        raise _invalid("the refresh token is unknown or has expired")
    return str(row["client"])


async def unspent(server: AuthServer, token: str) -> bool:
    """True for a refresh token that can still be used."""
    row = await server.records.get(REFRESH, digest(token))
    return row is not None and not row["used"]


async def spend_refresh(server: AuthServer, token: str, client_id: str) -> None:
    """Use a refresh token, once. Raises OAuthError invalid_grant; a second use, or another client's, ends the grant."""
    row = await server.records.change(REFRESH, digest(token), {"used": True}, where={"used": False})
    if row is not None and row["client"] == client_id:
        return
    spent = row or await server.records.get(REFRESH, digest(token))
    if spent is not None:
        _replayed("refresh token", spent)
        await revoke_grant(server, spent["grant"])
    raise _invalid("the refresh token is unknown, was withdrawn, or was used before")


def _replayed(what: str, row: Document) -> None:
    """Somebody holds what is not theirs: the operator should know."""
    log.warning("used twice or by another client: the grant ends", extra={"fields": {"what": what, "client": row["client"]}})


async def revoke_grant(server: AuthServer, grant_id: str) -> None:
    """Withdraw: no refresh from now on, and access tokens of the grant end (on other workers within a second)."""
    await server.records.insert(REVOKED, f"grant:{grant_id}", {}, after(server.settings.token_seconds + 2 * LEEWAY_SECONDS))
    await server.records.remove(GRANTS, grant_id)


async def of_user(server: AuthServer, user_id: str) -> list[GrantRow]:
    """What a person has granted."""
    return [_row(row) for row in await server.records.find(GRANTS, "user", user_id)]


def _invalid(text: str) -> OAuthError:
    return OAuthError("invalid_grant", text)
