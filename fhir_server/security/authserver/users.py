"""Local accounts: argon2id passwords, throttled over all workers, each with the FHIR resource that the person is.

RFC 9106 (Argon2), NIST SP 800-63B sections 5.1.1 and 5.2.2 (passwords, rate limiting). Failures are counted in the database per user and
address, per user, and per address; while a count is over its limit no password is looked at, right or wrong.
"""

import asyncio
import logging
import re
import unicodedata
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from fhir_server.security.authserver.errors import OAuthError
from fhir_server.security.authserver.kinds import REVOKED, SESSIONS, TRIES, USERS, after, digest
from fhir_server.store.records import Document, Records

log = logging.getLogger("fhir.auth")
T = TypeVar("T")
ROLES: Mapping[str, tuple[str, ...]] = {  # role -> what the person may be in FHIR ('' : nobody)
    "patient": ("Patient", "RelatedPerson"),
    "clinician": ("Practitioner", "PractitionerRole"),
    "admin": ("Practitioner", "PractitionerRole", ""),
}
NAME = re.compile(r"[^\s\x00-\x1f\x7f]{1,128}")
REFERENCE = re.compile(r"([A-Z][A-Za-z]+)/[A-Za-z0-9.-]{1,64}")
MIN_PASSWORD, MAX_PASSWORD = 12, 256  # characters
WINDOW_SECONDS = 900
LIMITS: Mapping[str, int] = {"both": 5, "user": 50, "address": 100}  # failures in a window
HASHES_AT_ONCE = 2  # per worker: each takes 19 MiB and a core
REVOKED_SECONDS = 2 * 86_400
hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1, type=Type.ID)  # OWASP's minimum for argon2id
_turns = ThreadPoolExecutor(HASHES_AT_ONCE, "password")


@dataclass(frozen=True, slots=True)
class User:
    """One account. id: opaque, what tokens call `sub`; name: what the person types; fhir_user: 'Practitioner/1'; role: a row of ROLES."""

    id: str
    name: str
    fhir_user: str
    role: str
    display: str = ""
    external: str = ""  # 'issuer|subject' at the outside identity provider
    disabled: bool = False


def folded(name: str) -> str:
    """The key of a user name: case and compatibility forms do not make another person."""
    return unicodedata.normalize("NFKC", name).casefold().strip()


async def add(records: Records, user: User, password: str) -> User:
    """Register an account; without a password only the outside provider lets it in. Raises ValueError that names the field and the rule."""
    if not NAME.fullmatch(user.name):
        raise ValueError("user name: 1 to 128 characters without blanks")
    if user.role not in ROLES:
        raise ValueError(f"role: one of {', '.join(ROLES)}")
    match = REFERENCE.fullmatch(user.fhir_user)
    if (match[1] if match else user.fhir_user) not in ROLES[user.role]:
        raise ValueError(f"fhir user: a role '{user.role}' is one of {', '.join(one or 'nobody' for one in ROLES[user.role])}, as Type/id")
    if not (password or user.external):
        raise ValueError("password: an account needs one, or an identity at the outside provider")
    if password and not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise ValueError(f"password: {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    user_id = uuid.uuid4().hex
    row = {name: getattr(user, name) for name in _names() if name != "id"}
    row |= {"id": user_id, "hash": await _in_turn(hasher.hash, password) if password else ""}
    if not await records.insert(USERS, folded(user.name), row):
        raise ValueError("user name: taken")
    return _user({**row, "id": user_id})


async def sign_in(records: Records, name: str, password: str, address: str) -> User | None:
    """The account if name and password fit; None if not. Raises OAuthError too_many_requests while a limit is exceeded."""
    keys = {"both": digest(f"{folded(name)}\n{address}"), "user": digest(folded(name)), "address": digest(address)}
    for what, limit in LIMITS.items():  # counted before the password is looked at, so that a crowd at the same moment is counted too
        if await records.count(TRIES, f"{what}:{keys[what]}", after(WINDOW_SECONDS)) > limit:
            log.warning("sign-ins are closed for a while", extra={"fields": {"what": what}})
            raise OAuthError("too_many_requests", "Too many failed sign-ins. Wait a quarter of an hour and try again.")
    row = await records.get(USERS, folded(name))
    stored = row["hash"] if row and row["hash"] else _nobody()
    fits = await _in_turn(_verify, stored, password[: MAX_PASSWORD + 1])
    if not (fits and row and row["hash"]) or row["disabled"]:
        return None
    await records.remove(TRIES, f"both:{keys['both']}")
    for what in ("user", "address"):
        await records.count(TRIES, f"{what}:{keys[what]}", after(WINDOW_SECONDS), -1)
    return _user(row)


async def by_id(records: Records, user_id: str) -> User | None:
    """The account with this id, unless it is disabled."""
    rows = await records.find(USERS, "id", user_id, limit=1)
    return _user(rows[0]) if rows and not rows[0]["disabled"] else None


async def by_external(records: Records, external: str) -> User | None:
    """The account of somebody whom the outside provider vouched for."""
    rows = await records.find(USERS, "external", external, limit=1)
    return _user(rows[0]) if rows and not rows[0]["disabled"] else None


async def known(records: Records, name: str) -> str:
    """The id of the account that was meant, '' if there is none: what was typed may be a password."""
    row = await records.get(USERS, folded(name))
    return str(row["id"]) if row else ""


async def listed(records: Records) -> list[User]:
    """All accounts."""
    return [_user(row) for row in await records.find(USERS)]


async def disable(records: Records, name: str) -> bool:
    """Refuse this account from now on, with its sessions and tokens; False if there is none."""
    row = await records.change(USERS, folded(name), {"disabled": True})
    if row is None:
        return False
    await records.insert(REVOKED, f"user:{row['id']}", {}, after(REVOKED_SECONDS))
    for session in await records.find(SESSIONS, "user", row["id"]):
        await records.remove(SESSIONS, session["_id"])
    return True


def _names() -> list[str]:
    return [one.name for one in fields(User)]


def _user(row: Document) -> User:
    return User(**{name: row[name] for name in _names()})


async def _in_turn(work: Callable[..., T], *arguments: str) -> T:
    """Run a hash in a thread, few at a time: a crowd of sign-ins must not take the machine's memory."""
    return await asyncio.get_running_loop().run_in_executor(_turns, work, *arguments)


def _verify(stored: str, password: str) -> bool:
    try:
        return hasher.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False


@lru_cache(1)
def _nobody() -> str:
    """A hash that fits no password: an unknown name takes as long as a known one."""
    return hasher.hash(uuid.uuid4().hex)
