"""What every function of the authorization server is handed: its place, its records, its keys, and what the settings say."""

from dataclasses import dataclass

from fhir_server.security.authserver.keys import KeyRing
from fhir_server.security.authserver.kinds import ALL
from fhir_server.security.authserver.outside import Provider, read_provider
from fhir_server.security.authserver.place import Place, place_of
from fhir_server.settings import Settings, public_base
from fhir_server.store.records import Records

DAY = 86_400
BACKEND_SECONDS = 300  # SMART Backend Services: expires_in SHOULD NOT exceed 300
CODE_SECONDS = 60  # SMART: authorization codes usually expire within around one minute
FLOW_SECONDS = 900  # how long somebody may take to sign in, choose and consent
LAUNCH_SECONDS = 600
LEEWAY_SECONDS = 30


@dataclass(frozen=True, slots=True)
class AuthServer:
    """One tenant's authorization server in one worker."""

    place: Place
    records: Records
    ring: KeyRing
    types: frozenset[str]
    settings: Settings
    provider: Provider | None = None

    @property
    def fetchable(self) -> frozenset[str]:
        """Hosts that may be called although they are in private networks."""
        return frozenset(one.strip() for one in self.settings.fetch_allow.split(",") if one.strip())


async def open_server(settings: Settings, records: Records, types: frozenset[str], tenant: str = "") -> AuthServer:
    """The authorization server; its collections are ready when it returns."""
    await records.prepare(ALL)
    overlap = settings.token_seconds + LEEWAY_SECONDS + BACKEND_SECONDS
    ring = KeyRing(records, settings.secret, settings.key_days, overlap)
    return AuthServer(place_of(public_base(settings), tenant), records, ring, types, settings, read_provider(settings.oidc_provider))
