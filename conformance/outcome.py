"""Issues, refusals and their HTTP statuses: the only way this exchange says no.

Every refusal is an OperationOutcome (https://hl7.org/fhir/R4/operationoutcome.html). A text names the element, the rule and
the value's place; it never repeats a value that could be a patient's data.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Issue:
    """One OperationOutcome.issue.

    severity: fatal | error | warning | information; code: a code of issue-type; text: diagnostics for the sender;
    expression: FHIRPath of the element, '' where none applies; details: code of the rule (invariant key, v2 error code), '' if none.
    """

    severity: str
    code: str
    text: str
    expression: str = ""
    details: str = ""


@dataclass(slots=True, eq=False)
class Refusal(Exception):
    """A request is refused: HTTP status, the issues that say why, and headers the answer needs (`Allow`, `Retry-After`)."""

    status: int
    issues: tuple[Issue, ...]
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)

    def __str__(self) -> str:
        return f"{self.status}: " + "; ".join(issue.text for issue in self.issues)


def failed(issues: Iterable[Issue]) -> bool:
    """True if any issue is an error or fatal."""
    return any(issue.severity in ("error", "fatal") for issue in issues)


def outcome(issues: Iterable[Issue]) -> dict[str, Any]:
    """The OperationOutcome resource that carries these issues (all-ok if there are none)."""
    rows = [_row(issue) for issue in issues]
    return {"resourceType": "OperationOutcome", "issue": rows or [_row(ALL_OK)]}


def _row(issue: Issue) -> dict[str, Any]:
    row: dict[str, Any] = {"severity": issue.severity, "code": issue.code, "diagnostics": issue.text}
    if issue.details:
        row["details"] = {"text": issue.details}
    if issue.expression:
        row["expression"] = [issue.expression]
    return row


ALL_OK = Issue("information", "informational", "All OK")

# issue-type code -> HTTP status, https://hl7.org/fhir/R4/http.html#Status-Codes
STATUS: Mapping[str, int] = MappingProxyType(
    {
        "invalid": 400,
        "structure": 400,
        "required": 400,
        "value": 400,
        "invariant": 422,
        "business-rule": 422,
        "code-invalid": 422,
        "extension": 422,
        "not-supported": 400,
        "not-found": 404,
        "deleted": 410,
        "duplicate": 412,
        "multiple-matches": 412,
        "conflict": 409,
        "too-long": 413,
        "too-costly": 413,
        "login": 401,
        "unknown": 401,
        "expired": 401,
        "forbidden": 403,
        "throttled": 429,
        "timeout": 503,
        "lock-error": 503,
        "no-store": 507,
        "transient": 503,
        "exception": 500,
    }
)


def refuse(code: str, text: str, *, expression: str = "", status: int = 0, headers: Mapping[str, str] = NO_HEADERS) -> Refusal:
    """A refusal of one error issue; `status` defaults to the STATUS row of `code`."""
    return Refusal(status or STATUS[code], (Issue("error", code, text, expression),), headers)


def bad_request(text: str, expression: str = "") -> Refusal:
    """400: the request is malformed."""
    return refuse("invalid", text, expression=expression)


def not_supported(text: str) -> Refusal:
    """400: a parameter, modifier, prefix or feature that this server does not support, by name."""
    return refuse("not-supported", text)


def too_costly(text: str) -> Refusal:
    """400: what is asked is beyond a limit of this server; the text names the limit."""
    return refuse("too-costly", text, status=400)


def not_found(rtype: str, rid: str) -> Refusal:
    """404: no such resource, or none that the caller may know of."""
    return refuse("not-found", f"{rtype}/{rid} is not known")


def gone(rtype: str, rid: str) -> Refusal:
    """410: the resource was deleted."""
    return refuse("deleted", f"{rtype}/{rid} was deleted")


def method_not_allowed(allowed: str) -> Refusal:
    """405, with `Allow`."""
    return refuse("not-supported", f"this method is not allowed here; allowed: {allowed}", status=405, headers={"Allow": allowed})


def not_acceptable(text: str) -> Refusal:
    """406: no representation that the client accepts."""
    return refuse("not-supported", text, status=406)


def conflict(text: str, expression: str = "") -> Refusal:
    """409: the stored state stands against it (referrers, concurrent change)."""
    return refuse("conflict", text, expression=expression)


def precondition_failed(text: str, code: str = "conflict") -> Refusal:
    """412: If-Match, If-None-Match or a conditional interaction's criteria failed."""
    return refuse(code, text, status=412)


def too_large(text: str) -> Refusal:
    """413: a documented limit on size, depth or count is exceeded."""
    return refuse("too-long", text)


def unsupported_media(text: str) -> Refusal:
    """415: the body's media type is not one we read."""
    return refuse("not-supported", text, status=415)


def unprocessable(issues: Iterable[Issue]) -> Refusal:
    """422: the resource breaks rules of R4, a profile or the server."""
    return Refusal(422, tuple(issues))


def unauthorised(text: str, challenge: str = 'Bearer realm="fhir"') -> Refusal:
    """401, with a WWW-Authenticate challenge (RFC 6750)."""
    return refuse("login", text, headers={"WWW-Authenticate": challenge})


def forbidden(text: str) -> Refusal:
    """403: known caller, missing right."""
    return refuse("forbidden", text)


def too_many(text: str, retry_after: int = 1) -> Refusal:
    """429, Retry-After in seconds."""
    return refuse("throttled", text, headers={"Retry-After": str(retry_after)})


def unavailable(text: str, retry_after: int = 1) -> Refusal:
    """503: the store cannot answer now; the client may retry after so many seconds."""
    return refuse("transient", text, headers={"Retry-After": str(retry_after)})
