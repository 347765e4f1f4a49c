"""Where a request beside FHIR comes from, and what is noted of it in the audit trail."""

from fastapi import Request

from fhir_server.security.occurrences import Occurrence


def address_of(request: Request) -> str:
    """The client's address as the connection tells it, '' if it does not."""
    return request.client.host if request.client else ""


def occurrence(request: Request, kind: str, outcome: str, client: str = "", user: str = "", text: str = "") -> Occurrence:
    """What happened by this request; see `Occurrence`."""
    return Occurrence(kind, outcome, address_of(request), client, user, text, str(request.scope.get("request_id", "")))
