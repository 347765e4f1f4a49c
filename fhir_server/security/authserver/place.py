"""Where the authorization server answers: every public address, derived from the FHIR base. None is ever taken from a request."""

from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True)
class Place:
    """base: the FHIR base, also our issuer name; root: the address before '/fhir'; path: root's path ('' or '/t/tenant'); secure: https; tenant: ''
    for the exchange's own."""

    base: str
    root: str
    path: str
    secure: bool
    tenant: str = ""

    def at(self, name: str) -> str:
        """The address of one endpoint ('token' -> 'https://host/auth/token')."""
        return f"{self.root}/auth/{name}"


def place_of(base: str, tenant: str = "") -> Place:
    """The places that belong to a FHIR base."""
    base = base.rstrip("/")
    root = base.removesuffix("/fhir")
    parts = urlsplit(root)
    return Place(base, root, parts.path, parts.scheme == "https", tenant)


def audiences(base: str) -> frozenset[str]:
    """What a client may name as `aud`: the base, with or without a final slash; on a loopback server also by loopback's other names."""
    parts = urlsplit(base)
    bases = {base}
    if parts.hostname in ("127.0.0.1", "localhost", "::1"):
        port = f":{parts.port}" if parts.port else ""
        bases |= {urlunsplit((parts.scheme, name + port, parts.path, "", "")) for name in LOOPBACK}
    return frozenset(bases | {one + "/" for one in bases})
