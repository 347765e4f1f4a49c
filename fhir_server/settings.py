"""All settings: one frozen dataclass; each field names its environment variable and says what it does. No other module reads the environment."""

import hashlib
import hmac
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

OWN, APART = "own", "apart"  # what a tenant may set for itself; and what it never takes from the exchange, because it says whom to trust


def setting(default: Any, variable: str, doc: str, tenant: str = "") -> Any:
    """A dataclass field with its variable and its documentation. tenant: OWN, APART, or '' where it is the whole exchange's."""
    return field(default=default, metadata={"variable": variable, "doc": doc, "tenant": tenant})


@dataclass(frozen=True, slots=True)
class Settings:
    """What the exchange is told from outside."""

    host: str = setting("127.0.0.1", "FHIR_HOST", "address the HTTP door listens on")
    port: int = setting(8080, "FHIR_PORT", "port of the HTTP door; 0 takes a free one")
    mllp_host: str = setting(
        "127.0.0.1", "FHIR_MLLP_HOST", "address of the MLLP door; another than loopback needs TLS with client certificates or FHIR_MLLP_ALLOW"
    )
    mllp_port: int = setting(2575, "FHIR_MLLP_PORT", "port of the MLLP door; 0 takes a free one, -1 closes the door")
    mllp_allow: str = setting(
        "", "FHIR_MLLP_ALLOW", "addresses that may connect to the MLLP door: networks such as '10.1.0.0/16,192.0.2.7'; empty: any"
    )
    mllp_tls_cert: str = setting("", "FHIR_MLLP_TLS_CERT", "PEM file with the certificate chain of the MLLP door; empty: plain TCP")
    mllp_tls_key: str = setting("", "FHIR_MLLP_TLS_KEY", "PEM file with the private key of the MLLP door, if it is not in the certificate file")
    mllp_tls_client_ca: str = setting(
        "", "FHIR_MLLP_TLS_CLIENT_CA", "PEM file of the authorities whose client certificates are required (mutual TLS)"
    )
    mllp_max_frame: int = setting(50 * 1024 * 1024, "FHIR_MLLP_MAX_FRAME", "largest HL7 v2 message over MLLP in bytes")
    mllp_max_connections: int = setting(500, "FHIR_MLLP_MAX_CONNECTIONS", "most MLLP connections at once, per process")
    mllp_idle_seconds: float = setting(3600.0, "FHIR_MLLP_IDLE_SECONDS", "an MLLP connection without a message is closed after so long; 0: never")
    mllp_read_seconds: float = setting(60.0, "FHIR_MLLP_READ_SECONDS", "longest silence within an MLLP block")
    mllp_write_seconds: float = setting(30.0, "FHIR_MLLP_WRITE_SECONDS", "longest wait for the other end to take an answer")
    mllp_commit_bytes: bool = setting(False, "FHIR_MLLP_COMMIT_BYTES", "MLLP release 2: send the commit byte ACK once a message is stored")
    sources: str = setting(
        "", "FHIR_SOURCES", "JSON file that configures the HL7 v2 sources; empty: every sender is a source of its own with default rules", APART
    )
    data_dir: Path = setting(Path("data"), "FHIR_DATA_DIR", "folder of the embedded database, keys and indexes")
    terminology_dir: Path = setting(
        Path(), "FHIR_TERMINOLOGY_DIR", "folder of the loaded code systems; empty: 'terminology' in the data directory. One for all tenants"
    )
    mongodb_uri: str = setting("", "FHIR_MONGODB_URI", "an external replica set or sharded cluster; empty starts the embedded mongod")
    mongod: str = setting("", "FHIR_MONGOD", "path of a mongod to embed instead of the bundled one")
    workers: int = setting(1, "FHIR_WORKERS", "number of server processes")
    auth: str = setting("smart", "FHIR_AUTH", "smart: bearer tokens required; open: no tokens, loopback only")
    base_url: str = setting(
        "",
        "FHIR_BASE_URL",
        "public base URL of the FHIR API; empty: the address listened on (by Host in open mode; localhost for a wildcard address)",
        APART,
    )
    max_body: int = setting(64 * 1024 * 1024, "FHIR_MAX_BODY", "largest request body in bytes, after decompression")
    max_depth: int = setting(64, "FHIR_MAX_DEPTH", "deepest nesting of a JSON or XML body")
    max_entries: int = setting(5000, "FHIR_MAX_ENTRIES", "most entries of a batch or transaction")
    referential_integrity: str = setting("off", "FHIR_REFERENTIAL_INTEGRITY", "off: references may dangle on write; enforce: they must resolve", OWN)
    validation: str = setting("enforce", "FHIR_VALIDATION", "level of the R4 gate: enforce, warn, off; per source as 'enforce,lab1=warn'", OWN)
    profile_claims: str = setting(
        "enforce",
        "FHIR_PROFILE_CLAIMS",
        "level of the profiles in meta.profile that are installed or stored: enforce, warn, off; per type as 'enforce,Basic=warn'",
        OWN,
    )
    profiles: str = setting(
        "", "FHIR_PROFILES", "profiles that all resources of a type are judged by: 'Patient=enforce:CANONICAL,Observation=warn:CANONICAL'", OWN
    )
    page_size: int = setting(50, "FHIR_PAGE_SIZE", "the _count that applies where a request names none", OWN)
    max_page_size: int = setting(1000, "FHIR_MAX_PAGE_SIZE", "largest _count; a larger one is reduced and shown so in self", OWN)
    secret: str = setting(
        "", "FHIR_SECRET", "signs page cursors; the same for all servers of one exchange; empty: made once and kept in the data directory"
    )
    conditional_delete: str = setting(
        "multiple", "FHIR_CONDITIONAL_DELETE", "several matches of a conditional delete: multiple deletes them all, single refuses", OWN
    )
    max_delete: int = setting(1000, "FHIR_MAX_DELETE", "most resources that one conditional delete or one cascade may delete", OWN)
    v2_tables: str = setting("", "FHIR_V2_TABLES", "folder of site tables that override the HL7 v2 mapping tables", OWN)
    terminology_policy: str = setting(
        "",
        "FHIR_TERMINOLOGY_POLICY",
        "CSV file: what to do about unknown, malformed, inactive codes, per code system and source; rows as in terminology/policy.csv",
        OWN,
    )
    tls_cert: str = setting("", "FHIR_TLS_CERT", "PEM file of the server's certificate chain; empty: plain HTTP (behind a proxy or on loopback)")
    tls_key: str = setting("", "FHIR_TLS_KEY", "PEM file of the certificate's private key")
    tls_client_ca: str = setting("", "FHIR_TLS_CLIENT_CA", "PEM file of authorities; when set, HTTP clients must show a certificate of one of them")
    trusted_proxies: str = setting("127.0.0.1", "FHIR_TRUSTED_PROXIES", "comma-separated addresses whose X-Forwarded-* headers are believed")
    cors_origins: str = setting(
        "*", "FHIR_CORS_ORIGINS", "comma-separated origins that browsers may call from; '*': any (tokens are never sent as cookies)"
    )
    issuers: str = setting(
        "", "FHIR_ISSUERS", "JSON file: list of {issuer, audience, algorithms, jwks_file | jwks_uri} whose tokens are accepted", APART
    )
    token_seconds: int = setting(900, "FHIR_TOKEN_SECONDS", "life of an access token of the exchange's own authorization server, at most 3600", OWN)
    refresh_days: int = setting(90, "FHIR_REFRESH_DAYS", "a refresh token for offline access ends when it was not used for so many days", OWN)
    session_seconds: int = setting(28_800, "FHIR_SESSION_SECONDS", "a sign-in, and with it online access of apps, ends after so long", OWN)
    key_days: int = setting(90, "FHIR_KEY_DAYS", "age at which the next signing key is made", OWN)
    fetch_allow: str = setting(
        "", "FHIR_FETCH_ALLOW", "comma-separated hosts whose key sets may be fetched although they are in a private network or not https"
    )
    oidc_provider: str = setting(
        "",
        "FHIR_OIDC_PROVIDER",
        "JSON file {name, issuer, client_id, client_secret_file?, scope?, algorithms?} of an OpenID provider by which people may sign in",
        APART,
    )
    brands: str = setting("", "FHIR_BRANDS", "JSON file with the User-Access Brands Bundle that discovery points to; empty: none", APART)
    brand_identifier: str = setting(
        "", "FHIR_BRAND_IDENTIFIER", "'system|value' of this server's Organization in FHIR_BRANDS, needed where it holds several", APART
    )
    smart_style: str = setting(
        "", "FHIR_SMART_STYLE", "JSON file with the SMART style that launched apps are pointed to; empty: that of our pages", OWN
    )
    metrics_token: str = setting("", "FHIR_METRICS_TOKEN", "bearer token for /metrics under --auth smart; empty: /metrics is closed there")
    rate: int = setting(1000, "FHIR_RATE", "requests a second that one client may make of one worker under --auth smart; 0: no limit", OWN)
    request_seconds: int = setting(60, "FHIR_REQUEST_SECONDS", "longest time one request may take; then 503")
    concurrency: int = setting(512, "FHIR_CONCURRENCY", "most requests in work at once in one worker; beyond: 503")
    log_level: str = setting("INFO", "FHIR_LOG_LEVEL", "DEBUG, INFO, WARNING or ERROR")
    search_parameters: int = setting(200, "FHIR_SEARCH_PARAMETERS", "most parameters of one search")
    search_values: int = setting(1000, "FHIR_SEARCH_VALUES", "most comma-separated values of one search parameter")
    search_depth: int = setting(8, "FHIR_SEARCH_DEPTH", "most steps of a chained search")
    search_codes: int = setting(5000, "FHIR_SEARCH_CODES", "most codes of a value set or hierarchy that `:in`, `:above` and the like search for")
    search_chain: int = setting(10_000, "FHIR_SEARCH_CHAIN", "most resources that one step of a chained search may go through")
    search_includes: int = setting(1000, "FHIR_SEARCH_INCLUDES", "most included resources on a page; what is beyond is reachable by a link")
    search_total: int = setting(
        1000,
        "FHIR_SEARCH_TOTAL",
        "matches are counted to this number where `_total` does not ask for more; not where the newest are asked for (`_sort=-date`)",
    )
    consent: str = setting("auto", "FHIR_CONSENT", "consents and security labels: enforce, off; auto enforces under --auth smart", OWN)
    consent_seconds: float = setting(0.5, "FHIR_CONSENT_SECONDS", "a consent counts in all processes after so long; its writer is answered then")
    clearance: str = setting("N", "FHIR_CLEARANCE", "highest confidentiality (U L M N R V) shown to who is not cleared for more by its token", OWN)
    break_glass: bool = setting(
        True, "FHIR_BREAK_GLASS", "practitioners may override consents and labels with a reason (X-Break-Glass); audited", OWN
    )
    audit: str = setting("auto", "FHIR_AUDIT", "an AuditEvent for every access and change: on, off; auto records under --auth smart", OWN)
    audit_seconds: float = setting(0.5, "FHIR_AUDIT_SECONDS", "the AuditEvent of a read is durable after so long; that of a change with the change")
    audit_days: int = setting(0, "FHIR_AUDIT_DAYS", "AuditEvents are removed after so many days, whole sealed blocks at a time; 0: never", OWN)
    transaction_seconds: int = setting(30, "FHIR_TRANSACTION_SECONDS", "longest life of a database transaction")

    @property
    def shelf(self) -> Path:
        """Where loaded code systems lie."""
        return self.data_dir / "terminology" if self.terminology_dir == Path() else self.terminology_dir


WILDCARDS = frozenset({"0.0.0.0", "::", "", "*"})  # noqa: S104 - what is listened on, by the operator's choice


def public_base(settings: Settings) -> str:
    """The FHIR base as clients of smart mode see it: as configured, else the address listened on; never what a request says.

    An address that stands for all of a machine's is nobody's: clients on this machine are told `localhost`, others need FHIR_BASE_URL.
    """
    if settings.base_url:
        return settings.base_url.rstrip("/")
    if settings.host in WILDCARDS:
        return f"{'https' if settings.tls_cert else 'http'}://localhost:{settings.port}/fhir"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{'https' if settings.tls_cert else 'http'}://{host}:{settings.port}/fhir"


def from_environment(environ: Mapping[str, str] = os.environ, **given: Any) -> Settings:
    """Settings from variables, then from `given` (flags; None means not given). Raises ValueError naming the variable."""
    values: dict[str, Any] = {}
    for one in fields(Settings):
        text = environ.get(one.metadata["variable"])
        if text is not None:
            values[one.name] = _convert(one.metadata["variable"], text, one.default)
    values.update({name: value for name, value in given.items() if value is not None})
    return Settings(**values)


def of_tenant(settings: Settings, name: str, given: Mapping[str, str]) -> Settings:
    """The settings of one organisation: the exchange's, with what it was given of its own; its folder, its base and its secret are always apart.

    Raises ValueError naming a variable that is the whole exchange's, or its value. DECISIONS.md of the package says why which is which.
    """
    known = {one.metadata["variable"]: one for one in fields(Settings) if one.metadata["tenant"]}
    if given.keys() - known.keys():
        raise ValueError(f"a tenant has no setting {', '.join(sorted(given.keys() - known.keys()))} of its own; known are {', '.join(sorted(known))}")
    values: dict[str, Any] = {one.name: one.default for one in known.values() if one.metadata["tenant"] == APART}
    values |= {known[variable].name: _convert(variable, text, known[variable].default) for variable, text in given.items()}
    values["base_url"] = values["base_url"] or public_base(settings).removesuffix("/fhir") + f"/t/{name}/fhir"
    secret = hmac.new(settings.secret.encode(), f"tenant:{name}".encode(), hashlib.sha256).hexdigest()
    return replace(settings, data_dir=settings.data_dir / "tenants" / name, terminology_dir=settings.shelf, secret=secret, **values)


def _convert(variable: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        return text.lower() in ("1", "true", "yes")
    try:
        return type(default)(text) if not isinstance(default, Path) else Path(text)
    except ValueError as error:
        raise ValueError(f"{variable} needs a value of type {type(default).__name__}") from error


def page() -> str:
    """The settings as the Markdown page docs/settings.md."""
    rows = [f"| `{one.metadata['variable']}` | `{one.default}` | {one.metadata['doc']} | {one.metadata['tenant']} |" for one in fields(Settings)]
    head = [
        "# Settings",
        "",
        "Made by `python -m fhir_server.settings > docs/settings.md`; a test compares.",
        "",
        "The last column: `own`: a tenant may set it for itself (`fhir-exchange tenant add --set`), else has the exchange's; `apart`: it may set it, and never",
        "takes over the exchange's; empty: it is the whole exchange's.",
        "",
        "| variable | default | what it does | of a tenant |",
        "| --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *rows, ""])


if __name__ == "__main__":
    sys.stdout.write(page())
