"""What happens beside resources (sign-ins, requests without a token, administration) -> AuditEvent resources.

Their types are DICOM's (https://dicom.nema.org/medical/dicom/current/output/chtml/part16/sect_CID_400.html and CID 401), as R4 binds
AuditEvent.type and .subtype. IHE BALP has no profile for them, so they claim none. A text says what was asked for, never what was typed or stored.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from fhir_server.context import Resource
from fhir_server.security.audit import DCM, MADE, RTYPE, SUCCESS, TAGS

AUTHENTICATION, ALERT = "110114", "110113"
KINDS: Mapping[str, tuple[str, str]] = {  # kind -> AuditEvent.type, .subtype (codes of DCM)
    "login": (AUTHENTICATION, "110122"),
    "logout": (AUTHENTICATION, "110123"),
    "token": (ALERT, "110126"),  # node authentication: a request whose token is missing or no good
    "glass": (ALERT, "110127"),  # emergency override
    "restricted": (ALERT, "110132"),  # use of a restricted function: /admin
    "roles": (ALERT, "110136"),  # security roles changed: what an app may do for a person, which clients there are
    "user": (ALERT, "110137"),  # user security attributes changed
    "keys": (ALERT, "110129"),  # security configuration
}
PER_ADDRESS, IN_ALL, WINDOW_SECONDS = 5, 20, 60.0  # of one kind: at most some 60 MB a day


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One of them. client, user: who, '' if nobody is known; text: what was asked for ('GET /admin/hl7v2'); outcome as AuditEvent.outcome."""

    kind: str
    outcome: str = SUCCESS
    address: str = ""
    client: str = ""
    user: str = ""
    text: str = ""
    request_id: str = ""


def event_of(one: Occurrence, base: str) -> Resource:
    """Its AuditEvent, without an id."""
    kind, subtype = KINDS[one.kind]
    who: Resource = {"reference": one.user} if "/" in one.user else {"identifier": {"value": one.user}}
    caller: Resource = {"requestor": not one.user, "network": {"address": one.address or "unknown", "type": "2"}}
    agents: list[Resource] = [{"who": {"identifier": {"value": one.client or "unknown"}}, **caller}]
    if one.user:
        agents.append({"who": who, "requestor": True})
    return {
        "resourceType": RTYPE,
        "meta": {"tag": [{"system": TAGS, "code": MADE}]},
        "type": {"system": DCM, "code": kind},
        "subtype": [{"system": DCM, "code": subtype}],
        "action": "E",
        "recorded": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "outcome": one.outcome,
        **({"outcomeDesc": one.text} if one.text else {}),
        "agent": agents,
        "source": {
            "observer": {"display": base},
            "type": [{"system": "http://terminology.hl7.org/CodeSystem/security-source-type", "code": "4"}],
        },
        "entity": [
            {
                "what": {"identifier": {"value": one.request_id or "none"}},
                "type": {"system": "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType", "code": "XrequestId"},
            }
        ],
    }


@dataclass(slots=True)
class Bounds:
    """How much of what anybody can cause is recorded: so many a minute from an address and in all; the rest is counted and told with the next."""

    counts: dict[str, int] = field(default_factory=dict)
    total: int = 0
    left_out: int = 0
    until: float = 0.0

    def admits(self, address: str) -> bool:
        """True if one more is to be recorded."""
        now = time.monotonic()
        if now >= self.until:
            self.counts.clear()
            self.total, self.until = 0, now + WINDOW_SECONDS
        many = self.counts.get(address, 0)
        if many >= PER_ADDRESS or self.total >= IN_ALL:
            self.left_out += 1
            return False
        self.counts[address] = many + 1
        self.total += 1
        return True

    def told(self, text: str) -> str:
        """The text, and how many were left out since the last that was recorded."""
        left, self.left_out = self.left_out, 0
        return f"{text} ({left} more were not recorded)" if left else text
