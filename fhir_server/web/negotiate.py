"""What the client wants back: format, FHIR version, pretty printing, Prefer. https://hl7.org/fhir/R4/http.html#mime-type

`_format` wins over `Accept`; quality values order the alternatives; a `fhirVersion` other than 4.0 is not acceptable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from conformance.outcome import Refusal, bad_request, not_acceptable, unsupported_media

JSON, XML, OTHER = "json", "xml", "other"
MEDIA: Mapping[str, str] = {
    "application/fhir+json": JSON,
    "application/json": JSON,
    "application/json+fhir": JSON,
    "text/json": JSON,
    "json": JSON,
    "application/fhir+xml": XML,
    "application/xml": XML,
    "application/xml+fhir": XML,
    "text/xml": XML,
    "xml": XML,
    "*/*": JSON,
    "application/*": JSON,
    "text/*": JSON,
    "text/html": JSON,
}
OWN = ("application/fhir+json", "application/fhir+xml")
ANY = frozenset({"*/*", "application/*", "text/*", "text/html"})  # a browser that looks is shown JSON
VERSIONS = ("4.0", "4.0.1")
RETURNS = ("minimal", "representation", "OperationOutcome")
HANDLINGS = ("strict", "lenient")


@dataclass(frozen=True, slots=True)
class Wanted:
    """format: json | xml; raw: no format of FHIR was asked for by name, so a Binary goes out as what it is; versioned: fhirVersion was named;
    acceptable: False if the client takes no format of FHIR at all."""

    format: str
    raw: bool = False
    versioned: bool = False
    acceptable: bool = True


@lru_cache(512)
def wanted(format_param: str, accept: str) -> Wanted:
    """The representation to answer with. Raises Refusal 406 if there is none that both sides know."""
    if format_param:
        media, version = split_media(format_param.replace(" ", "+"))
        if media not in MEDIA:
            raise not_acceptable("_format names no media type this server writes: use json or xml")
        _check_version(version)
        return Wanted(MEDIA[media], versioned=bool(version))
    ranked, never = _ranked(accept or "*/*")
    raw = False
    for media, version in ranked:
        found = _written(media, never)
        if found and (not version or version in VERSIONS):
            return Wanted(found, raw or media in ANY, bool(version))
        raw = raw or not found
    if raw:
        return Wanted(JSON, raw, acceptable=False)
    raise unwritten()


def unwritten() -> Refusal:
    """406: the client takes none of FHIR's formats."""
    return not_acceptable("this server writes application/fhir+json and application/fhir+xml, fhirVersion 4.0")


def _written(media: str, never: frozenset[str]) -> str:
    """The format that a media type or range stands for, '' if it is none of FHIR's; a range does not stand for what the client never takes."""
    if media not in ANY:
        return MEDIA.get(media, "")
    return next((MEDIA[each] for each in OWN if each not in never), "")


def _ranked(accept: str) -> tuple[list[tuple[str, str]], frozenset[str]]:
    """(media type, fhirVersion) of an Accept header, best first; and what stands there with quality 0."""
    rows = []
    never = set()
    for order, part in enumerate(accept.split(",")):
        media, version = split_media(part)
        quality = _quality(part)
        if media and quality > 0:
            rows.append((-quality, order, media, version))
        elif media:
            never.add(media)
    return [(media, version) for _, _, media, version in sorted(rows)], frozenset(never)


def _quality(part: str) -> float:
    for piece in part.split(";")[1:]:
        name, _, value = piece.strip().partition("=")
        if name.strip().lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


@lru_cache(512)
def split_media(text: str) -> tuple[str, str]:
    """'application/fhir+json; fhirVersion=4.0' -> ('application/fhir+json', '4.0'); lower case, version '' if absent."""
    media, *parameters = text.split(";")
    version = ""
    for piece in parameters:
        name, _, value = piece.strip().partition("=")
        if name.strip().lower() == "fhirversion":
            version = value.strip().strip('"')
    return media.strip().lower(), version


def body_format(content_type: str) -> str:
    """json | xml | other for a request body. Raises Refusal 415 for another FHIR version or a charset that is not UTF-8."""
    media, version = split_media(content_type)
    if version and version not in VERSIONS:
        raise unsupported_media("the body's fhirVersion is not one this server reads: 4.0")
    check_charset(content_type)
    return MEDIA[media] if is_fhir(media) else OTHER


def is_fhir(media: str) -> bool:
    """True for the media type of a body in one of FHIR's formats."""
    return media in MEDIA and media not in ("", "*/*", "application/*", "text/*", "text/html", "json", "xml")


def check_charset(content_type: str) -> None:
    """415 for another charset than UTF-8."""
    lowered = content_type.lower()
    if "charset=" in lowered and lowered.rsplit("charset=", 1)[1].split(";")[0].strip(' "') not in ("utf-8", "utf8", "us-ascii"):
        raise unsupported_media("FHIR bodies are UTF-8")


def _check_version(version: str) -> None:
    if version and version not in VERSIONS:
        raise not_acceptable("fhirVersion must be 4.0")


def pretty(values: Sequence[str]) -> bool:
    """The `_pretty` parameter. Raises Refusal 400 unless true or false."""
    if not values:
        return False
    if values[-1] not in ("true", "false"):
        raise bad_request("_pretty must be true or false")
    return values[-1] == "true"


@lru_cache(512)
def prefer(header: str) -> Mapping[str, str]:
    """Prefer: the preferences that FHIR names (return, handling, respond-async); unknown ones are ignored as RFC 7240 says."""
    found: dict[str, str] = {}
    for part in header.replace(";", ",").split(","):
        name, _, value = part.strip().partition("=")
        name, value = name.strip().lower(), value.strip().strip('"')
        if (name == "return" and value in RETURNS) or (name == "handling" and value in HANDLINGS):
            found.setdefault(name, value)
        elif name == "respond-async":
            found[name] = "true"
    return found
