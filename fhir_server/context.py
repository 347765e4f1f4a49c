"""What a request carries through the house: Request in, Reply out, and the Context (who asks, what they may see, when)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

from fhir_server.query.clauses import Clause
from fhir_server.settings import Settings
from fhir_server.sources import Registry
from fhir_server.store import Store

Resource = dict[str, Any]
DEFAULT = "default"  # the tenant that the exchange itself is


@dataclass(frozen=True, slots=True)
class Request:
    """One FHIR request below the base, from HTTP or from a bundle entry.

    method: upper case; path: below the base, no leading or trailing slash, percent-decoded per segment ('Patient/1/_history/2');
    query: (name, value) pairs as sent, decoded, in order; headers: lower-case names; res: the decoded body (None if absent);
    body: raw bytes where the interaction needs them (Binary, patch), else b''; content_type: media type of `body` without parameters.
    """

    method: str
    path: tuple[str, ...]
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    res: Resource | None = None
    body: bytes = b""
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of an interaction; the door renders it (JSON or XML, pretty, summary, gzip).

    res: the resource to send (None: no body); headers: names as sent (ETag, Last-Modified, Location); raw: (media type, bytes)
    that replaces `res` when the answer is not FHIR (a Binary's content).
    """

    status: int
    res: Resource | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    raw: tuple[str, bytes] | None = None


@dataclass(frozen=True, slots=True)
class Right:
    """One row of a grant: these interactions on this type, on what matches `clause` (None: all resources of the type).

    rtype: a resource type or '*'; actions: a subset of 'cruds' (SMART 2.2 scopes); level: 'patient', 'user' or 'system'; who: for whom, as a
    reference ('Patient/1', 'Practitioner/2'; '' at level system); criteria: search parameters that limit it further.
    """

    rtype: str
    actions: frozenset[str]
    clause: Clause | None = None
    level: str = "system"
    who: str = ""
    criteria: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """What a caller may do. No row, no data.

    subject: who acts (user or client id, never PHI); client: the OAuth client id or feed source; rights: union of rows;
    patient: the patient id in context ('' if none); user: the fhirUser ('Practitioner/1', '' if none); admin: may write definitions and use
    admin operations; internal: the exchange itself (feeds, background work), whom consent and labels do not concern; purposes: codes of
    http://terminology.hl7.org/CodeSystem/v3-ActReason that the token states.
    """

    subject: str
    client: str
    rights: tuple[Right, ...]
    patient: str = ""
    admin: bool = False
    user: str = ""
    internal: bool = False
    purposes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Admission:
    """What was looked up of a caller: withheld (type -> what consents and labels keep from it, whatever its grant), its purposes of use (codes of
    ActReason), and its reason for breaking the glass ('' if it does not).

    grant: whose it is. clauses: what `visible` compiled for (type, action) of this very grant; tests: what `access` compiled of those clauses.
    Both end with the admission.
    """

    withheld: Callable[[str], Clause]
    purposes: tuple[str, ...] = ()
    emergency: str = ""
    grant: Grant | None = None
    clauses: dict[tuple[str, str], Clause] = field(default_factory=dict, compare=False)
    tests: dict[tuple[str, int], Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Context:
    """Everything an interaction needs to act for one caller; `now` is only for logs and defaults, stamps come from the store."""

    request_id: str
    grant: Grant
    store: Store
    spec: Any
    terms: Any
    settings: Settings
    base: str  # the public base URL, no trailing slash: 'http://127.0.0.1:8080/fhir'
    source: str  # who the facts come from (HL7 v2 sender or OAuth client)
    now: datetime
    prefer: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # parsed Prefer header: return, handling
    tenant: str = DEFAULT
    operations: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: MappingProxyType({}))  # name -> rows: fhir_server.operations.TABLE
    address: str = ""  # of the client, as the connection tells it
    senders: Registry = field(default_factory=Registry)  # the HL7 v2 sources of this organisation
    admission: Admission | None = None  # None: for the exchange itself, and where consents and labels are not enforced


def first(query: Sequence[tuple[str, str]], name: str) -> str | None:
    """The first value of a query parameter, None if absent."""
    return next((value for key, value in query if key == name), None)
