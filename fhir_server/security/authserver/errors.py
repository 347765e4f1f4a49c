"""How the authorization server says no: the error codes of RFC 6749 sections 4.1.2.1 and 5.2, OpenID Connect Core section 3.1.2.6, RFC 8707."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

STATUS: Mapping[str, int] = MappingProxyType(
    {"invalid_client": 401, "invalid_token": 401, "server_error": 500, "temporarily_unavailable": 503, "too_many_requests": 429}
)  # others: 400


@dataclass(slots=True, eq=False)
class OAuthError(Exception):
    """A refused request. code: as the standards name it; text: what is wrong, for the developer, without values the client sent."""

    code: str
    text: str
    challenge: str = ""

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"

    @property
    def status(self) -> int:
        """The HTTP status at the token, revocation and introspection endpoints."""
        return STATUS.get(self.code, 400)
