"""Launch contexts that an EHR creates before it opens an app. https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#launch-app-ehr-launch

The EHR's own client (token with scope `exchange/launch`) posts what is open; the answer is the opaque `launch` value for the app's launch
URL. It serves one app for ten minutes, and whoever used it first is the only one who may use it again.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conformance.outcome import bad_request
from fhir_server.security.authserver import clients
from fhir_server.security.authserver.errors import OAuthError
from fhir_server.security.authserver.kinds import LAUNCHES, after, digest, fresh
from fhir_server.security.authserver.server import LAUNCH_SECONDS, AuthServer
from fhir_server.security.authserver.users import folded

ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
REFERENCE = re.compile(r"[A-Z][A-Za-z]+/[A-Za-z0-9.-]{1,64}")
FIELDS = frozenset({"client_id", "patient", "encounter", "user", "need_patient_banner", "intent", "tenant", "fhirContext", "smart_style_url"})
CONTEXT_FIELDS = frozenset({"reference", "canonical", "type", "role", "identifier"})
MOST_CONTEXT = 20
LONGEST = 512


@dataclass(frozen=True, slots=True)
class Launch:
    """key: the record's; patient, encounter: ids or ''; user: who alone may use it, '' until somebody did; extra: token parameters for the app."""

    key: str
    patient: str
    encounter: str
    user: str
    extra: Mapping[str, Any]


def decoded(body: bytes) -> Any:
    """The JSON of a launch request. Raises Refusal 400."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise bad_request("the body must be JSON") from error


async def create(server: AuthServer, body: Any) -> dict[str, Any]:
    """Keep a launch context; {launch, expires_in, launch_url?}. Raises Refusal 400 naming the field."""
    if not isinstance(body, dict):
        raise bad_request("the body must be a JSON object")
    if unknown := sorted(set(body) - FIELDS):
        raise bad_request(f"unknown fields; known are {', '.join(sorted(FIELDS))}" if len(unknown[0]) > LONGEST else f"unknown field {unknown[0]!r}")
    client = await clients.get(server.records, body["client_id"]) if isinstance(body.get("client_id"), str) else None
    if client is None or not client.redirect_uris:
        raise bad_request("client_id must be a registered app", "client_id")
    for name in ("patient", "encounter"):
        if name in body and not (isinstance(body[name], str) and ID.fullmatch(body[name])):
            raise bad_request(f"{name} must be an id of the exchange", name)
    if "encounter" in body and "patient" not in body:
        raise bad_request("an encounter needs its patient", "patient")
    extra = _extra(body)
    value = fresh()
    document = {
        "client": client.id,
        "patient": body.get("patient", ""),
        "encounter": body.get("encounter", ""),
        "user": folded(body["user"]) if _is_text(body, "user") else "",
        "extra": extra,
    }
    await server.records.insert(LAUNCHES, digest(value), document, after(LAUNCH_SECONDS))
    answer: dict[str, Any] = {"launch": value, "expires_in": LAUNCH_SECONDS}
    if client.launch_uri:
        answer["launch_url"] = client.launch_uri
    return answer


def _is_text(body: Mapping[str, Any], name: str) -> bool:
    """True if the field is there. Raises Refusal 400 if it is not a short string."""
    if name not in body:
        return False
    if not isinstance(body[name], str) or not 1 <= len(body[name]) <= LONGEST:
        raise bad_request(f"{name} must be a string of 1 to {LONGEST} characters", name)
    return True


def _extra(body: Mapping[str, Any]) -> dict[str, Any]:
    """What goes into the token response as it is."""
    extra = {name: body[name] for name in ("intent", "tenant", "smart_style_url") if _is_text(body, name)}
    if "smart_style_url" in extra and not extra["smart_style_url"].startswith("https://"):
        raise bad_request("smart_style_url must be https", "smart_style_url")
    if "need_patient_banner" in body:
        if not isinstance(body["need_patient_banner"], bool):
            raise bad_request("need_patient_banner must be true or false", "need_patient_banner")
        extra["need_patient_banner"] = body["need_patient_banner"]
    if "fhirContext" in body:
        rows = body["fhirContext"]
        if not isinstance(rows, list) or len(rows) > MOST_CONTEXT or not all(_is_context(row) for row in rows):
            raise bad_request("fhirContext must be a list of objects with reference, canonical or identifier", "fhirContext")
        extra["fhirContext"] = rows
    return extra


def _is_context(row: Any) -> bool:
    if not isinstance(row, dict) or not set(row) <= CONTEXT_FIELDS or not set(row) & {"reference", "canonical", "identifier"}:
        return False
    texts = [value for name, value in row.items() if name != "identifier"]
    if not all(isinstance(value, str) and len(value) <= LONGEST for value in texts):
        return False
    if "reference" in row:
        kind = row["reference"].split("/")[0]
        return REFERENCE.fullmatch(row["reference"]) is not None and (kind not in ("Patient", "Encounter") or "role" in row)
    return "identifier" not in row or isinstance(row["identifier"], dict)


async def find(server: AuthServer, value: str, client_id: str) -> Launch:
    """The context of a launch value for this app. Raises OAuthError invalid_request."""
    row = await server.records.get(LAUNCHES, digest(value))
    if row is None or row["client"] != client_id:
        raise OAuthError("invalid_request", "the launch value is unknown, has expired, or is another app's")
    return Launch(row["_id"], row["patient"], row["encounter"], row["user"], row["extra"])


async def claim(server: AuthServer, launch: Launch, name: str) -> None:
    """This user takes the launch. Raises OAuthError access_denied if it is another one's."""
    if launch.user == folded(name):
        return
    if launch.user or await server.records.change(LAUNCHES, launch.key, {"user": folded(name)}, where={"user": ""}) is None:
        raise OAuthError("access_denied", "this launch is another user's")
