"""Sign-ins: who uses this browser. A session is a random cookie value; the database keeps its digest, so a copy of it signs nobody in."""

import time
from dataclasses import dataclass

from fhir_server.security.authserver import users
from fhir_server.security.authserver.kinds import SESSIONS, after, digest, fresh
from fhir_server.security.authserver.server import AuthServer
from fhir_server.security.authserver.users import User


@dataclass(frozen=True, slots=True)
class Session:
    """key: the record's; csrf: what forms of this session must carry; at: when the person signed in (seconds since 1970)."""

    key: str
    user: User
    csrf: str
    at: int


async def begin(server: AuthServer, user: User) -> tuple[str, Session]:
    """(cookie value, session) of a new sign-in; always a new value, so that one planted before is worth nothing."""
    cookie, csrf, now = fresh(), fresh(), int(time.time())
    await server.records.insert(SESSIONS, digest(cookie), {"user": user.id, "csrf": csrf, "at": now}, after(server.settings.session_seconds))
    return cookie, Session(digest(cookie), user, csrf, now)


async def current(server: AuthServer, cookie: str) -> Session | None:
    """The session of a cookie value, while it lasts and its user is not disabled."""
    return await by_key(server, digest(cookie)) if cookie else None


async def by_key(server: AuthServer, key: str) -> Session | None:
    """The session of a record key."""
    row = await server.records.get(SESSIONS, key)
    user = await users.by_id(server.records, row["user"]) if row else None
    return Session(key, user, row["csrf"], row["at"]) if row and user else None


async def end(server: AuthServer, session: Session) -> None:
    """Sign out: online access of apps ends with it."""
    await server.records.remove(SESSIONS, session.key)
