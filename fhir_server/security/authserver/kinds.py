"""What the authorization server keeps, one row per kind of record. Secrets are kept as digests, so that a backup holds none that work."""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta

from fhir_server.store.records import Kind

CLIENTS = Kind("auth_clients")
USERS = Kind("auth_users", ("id", "external"))
KEYS = Kind("auth_keys")
SESSIONS = Kind("auth_sessions", ("user",))
FLOWS = Kind("auth_flows")
LAUNCHES = Kind("auth_launches")
CODES = Kind("auth_codes")
GRANTS = Kind("auth_grants", ("user", "client"))
REFRESH = Kind("auth_refresh", ("grant",))
SEEN = Kind("auth_seen")  # jti of assertions: each once
TRIES = Kind("auth_tries")  # failed logins in a window
REVOKED = Kind("auth_revoked")  # keys of access tokens that ended before their time
ALL = (CLIENTS, USERS, KEYS, SESSIONS, FLOWS, LAUNCHES, CODES, GRANTS, REFRESH, SEEN, TRIES, REVOKED)
RANDOM_BYTES = 32


def fresh() -> str:
    """A new secret of 256 bits, as text that goes into URLs, headers and cookies."""
    return secrets.token_urlsafe(RANDOM_BYTES)


def digest(secret: str) -> str:
    """The key under which a secret of ours is kept. It has 256 random bits, so one round is enough (NIST SP 800-63B, look-up secrets)."""
    return hashlib.sha256(secret.encode()).hexdigest()


def after(seconds: float) -> datetime:
    """The moment so many seconds from now."""
    return datetime.now(UTC) + timedelta(seconds=seconds)
