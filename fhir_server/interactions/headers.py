"""Entity tags, HTTP dates and the preconditions built from them. https://hl7.org/fhir/R4/http.html#concurrency, RFC 9110 section 13."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache

from conformance.outcome import bad_request, precondition_failed
from fhir_server.store import Stored

TAG = re.compile(r'(?:W/)?"([^"\x00-\x20\x7f]*)"')
TAGS = re.compile(r'\s*(?:W/)?"[^"\x00-\x20\x7f]*"\s*(?:,\s*(?:W/)?"[^"\x00-\x20\x7f]*"\s*)*')
ANY = frozenset({"*"})


def etag(vid: int) -> str:
    """The weak tag of a version: W/"3"."""
    return f'W/"{vid}"'


def http_date(at: datetime) -> str:
    """Last-Modified of a commit stamp (whole seconds, rounded down)."""
    return _second(at.replace(microsecond=0))


@lru_cache(256)  # what is written in one second has one date
def _second(at: datetime) -> str:
    return format_datetime(at.astimezone(UTC), usegmt=True)


def stamps(stored: Stored) -> dict[str, str]:
    """ETag and Last-Modified of a version."""
    return {"ETag": etag(stored.vid), "Last-Modified": http_date(stored.at)}


def tags(text: str, header: str) -> frozenset[str]:
    """The version ids of an If-Match or If-None-Match header; '*' for any. Weak and strong tags count alike, as R4 asks. Raises 400."""
    if text.strip() == "*":
        return ANY
    if not TAGS.fullmatch(text):
        raise bad_request(f'{header} is malformed: expected W/"version"')
    return frozenset(TAG.findall(text))


def check_if_match(headers: Mapping[str, str], current: Stored | None) -> None:
    """412 unless If-Match (if sent) names the current version; a missing or deleted resource matches nothing."""
    text = headers.get("if-match")
    if text is None:
        return
    wanted = tags(text, "If-Match")
    if current is None or current.res is None:
        raise precondition_failed("If-Match was sent, but there is no current version")
    if wanted != ANY and str(current.vid) not in wanted:
        raise precondition_failed("If-Match does not name the current version: the resource was changed since it was read")


def check_if_none_match(headers: Mapping[str, str], current: Stored | None) -> None:
    """412 if If-None-Match (`*` or a tag) matches what a write would replace."""
    text = headers.get("if-none-match")
    if text is None:
        return
    unwanted = tags(text, "If-None-Match")
    if current is not None and current.res is not None and (unwanted == ANY or str(current.vid) in unwanted):
        raise precondition_failed("If-None-Match: the resource exists already")


def unchanged(headers: Mapping[str, str], stored: Stored) -> bool:
    """True if a conditional read may answer 304. If-None-Match wins over If-Modified-Since (RFC 9110 section 13.2.2)."""
    if "if-none-match" in headers:
        known = tags(headers["if-none-match"], "If-None-Match")
        return known == ANY or str(stored.vid) in known
    if "if-modified-since" in headers:
        since = _date(headers["if-modified-since"])
        return since is not None and stored.at.replace(microsecond=0) <= since
    return False


def _date(text: str) -> datetime | None:
    """An HTTP date, or the instant that R4 bundles carry in ifModifiedSince; None if it is neither (RFC 9110: then ignore it)."""
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
