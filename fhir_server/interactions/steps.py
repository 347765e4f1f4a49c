"""A write that was asked for, before anything was read: what create, update, patch and delete have in common, alone or in a bundle."""

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType

from conformance.outcome import NO_HEADERS, Refusal, bad_request, not_found, refuse
from fhir_server.context import Request, Resource
from fhir_server.interactions.conditional import Criteria

ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
ALONE = -1
UUID7 = 0x7 << 76 | 0x2 << 62
RANDOM_A, RANDOM_B = 0xFFF << 64, (1 << 62) - 1


@dataclass(frozen=True, slots=True)
class Step:
    """One write.

    method: POST | PUT | PATCH | DELETE; rid: the id it names, or the new id of a POST ('' where only `criteria` can tell);
    res: the resource sent (POST, PUT); patch: old resource -> new one; headers: the preconditions, lower-case names;
    cascade: a delete takes its referrers along; place: index in the bundle, ALONE outside one; full_url: of that entry.
    """

    method: str
    rtype: str
    rid: str = ""
    res: Resource | None = None
    patch: Callable[[Resource], Resource] | None = None
    criteria: Criteria | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)
    cascade: bool = False
    place: int = ALONE
    full_url: str = ""


def new_id() -> str:
    """A server-assigned id: a UUID of version 7 (RFC 9562), so that ids made together stand together in the id index."""
    millis = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    digits = f"{millis << 80 | UUID7 | (random << 2 & RANDOM_A) | random & RANDOM_B:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def checked_id(rid: str) -> str:
    """The id, if it is one by https://hl7.org/fhir/R4/datatypes.html#id; else 400."""
    if not ID.fullmatch(rid):
        raise bad_request("an id is 1 to 64 characters of A-Z, a-z, 0-9, '-' and '.'")
    return rid


def body_of(request: Request, rtype: str) -> Resource:
    """The resource of a create or update. Raises 400 if there is none or it is of another type than the URL says."""
    if request.res is None:
        raise refuse("required", "the request needs a resource as its body")
    if request.res.get("resourceType") != rtype:
        raise bad_request("the resource's type is not the one in the URL", "resourceType")
    return request.res


def no_query(request: Request) -> None:
    """400 for parameters on an interaction that has none, so that a mistyped conditional one is not taken for a plain one."""
    if request.query:
        raise refuse("not-supported", f"this interaction has no parameter '{request.query[0][0]}'")


class placed:  # a class because three times an entry a generator as context costs more than the rest of its parsing
    """Names the bundle entry in whatever refusal is raised inside."""

    __slots__ = ("place",)

    def __init__(self, place: int) -> None:
        self.place = place

    def __enter__(self) -> None:
        """See the class."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Raises the refusal again, with its place."""
        if self.place != ALONE and isinstance(error, Refusal):
            entry = f"Bundle.entry[{self.place}]"
            issues = tuple(replace(issue, expression=_below(entry, issue.expression)) for issue in error.issues)
            raise Refusal(error.status, issues, error.headers) from error


def _below(entry: str, expression: str) -> str:
    """'Patient.name[0]' in an entry -> 'Bundle.entry[3].resource.name[0]'; 'entry.request.url', which is of the entry itself, -> 'Bundle.entry[3].request.url'."""
    head, _, rest = expression.partition(".")
    if not rest:
        return entry
    return f"{entry}.{rest}" if head == "entry" else f"{entry}.resource.{rest}"


def missing(step: Step) -> Refusal:
    """404 for a write that needs an existing resource and has none."""
    return not_found(step.rtype, step.rid) if step.rid else refuse("not-found", f"no {step.rtype} matches the criteria")
