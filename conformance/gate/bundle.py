"""Bundle: bdl-1 to bdl-12 and the rules of fullUrl. https://hl7.org/fhir/R4/bundle.html"""

import re
from typing import Any

from conformance.gate.report import At, Report

REQUESTED = ("batch", "transaction", "history")
ANSWERED = ("batch-response", "transaction-response", "history")
IDENTIFIED = ("document", "message", "collection", "searchset")
_url = re.compile(r"(?:https?|ftp)://\S+\Z")
_restful = re.compile(r"https?://[^\s?#]+/([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})\Z")
_absolute = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:\S+\Z")


def check_bundle(bundle: dict[str, Any], at: At, report: Report) -> None:
    """Judge the rules of a Bundle that speak of more than one element."""
    kind = bundle.get("type")
    entries = [each for each in bundle.get("entry", ()) if isinstance(each, dict)] if isinstance(bundle.get("entry"), list) else []
    if "total" in bundle and kind not in ("searchset", "history"):
        report.error("invariant", "total is only for searchset and history", (at, "total", None), "bdl-1")
    _first(kind, bundle, entries, at, report)
    for index, each in enumerate(entries):
        _entry(kind, each, (at, "entry", index), report)
    if kind != "history":
        _distinct(entries, at, report)


def _first(kind: Any, bundle: dict[str, Any], entries: list[dict[str, Any]], at: At, report: Report) -> None:
    first = entries[0].get("resource") if entries else None
    rtype = first.get("resourceType") if isinstance(first, dict) else None
    if kind == "document":
        identifier = bundle.get("identifier")
        if not isinstance(identifier, dict) or "system" not in identifier or "value" not in identifier:
            report.error("invariant", "a document has an identifier with system and value", (at, "identifier", None), "bdl-9")
        if "timestamp" not in bundle:
            report.error("invariant", "a document has a timestamp", (at, "timestamp", None), "bdl-10")
        if rtype != "Composition":
            report.error("invariant", "the first entry of a document is a Composition", (at, "entry", 0), "bdl-11")
    elif kind == "message" and rtype != "MessageHeader":
        report.error("invariant", "the first entry of a message is a MessageHeader", (at, "entry", 0), "bdl-12")


def _entry(kind: Any, entry: dict[str, Any], at: At, report: Report) -> None:
    if "search" in entry and kind != "searchset":
        report.error("invariant", "search is only for the entries of a searchset", (at, "search", None), "bdl-2")
    if ("request" in entry) != (kind in REQUESTED):
        text = "an entry of this type of bundle has a request" if kind in REQUESTED else "request is only for batch, transaction and history"
        report.error("invariant", text, (at, "request", None), "bdl-3")
    if ("response" in entry) != (kind in ANSWERED):
        text = "an entry of this type of bundle has a response" if kind in ANSWERED else "response is only for responses and history"
        report.error("invariant", text, (at, "response", None), "bdl-4")
    if not {"resource", "request", "response"} & entry.keys():
        report.error("invariant", "an entry has a resource, a request or a response", at, "bdl-5")
    _request(entry, at, report)
    _full_url(kind, entry, at, report)


def _request(entry: dict[str, Any], at: At, report: Report) -> None:
    """https://hl7.org/fhir/R4/http.html#transaction: create, update and patch carry a resource; read and delete do not."""
    request = entry.get("request")
    method = request.get("method") if isinstance(request, dict) else None
    if method in ("PUT", "PATCH") and "resource" not in entry:
        report.error("required", f"{method} needs a resource", (at, "resource", None))


def _full_url(kind: Any, entry: dict[str, Any], at: At, report: Report) -> None:
    url, resource = entry.get("fullUrl"), entry.get("resource")
    if not isinstance(url, str):
        if "resource" in entry and kind in IDENTIFIED:
            report.add("warning", "required", "an entry of this type of bundle should have a fullUrl", (at, "fullUrl", None))
        return
    place = (at, "fullUrl", None)
    if "/_history/" in url:
        report.error("invariant", "fullUrl names no version", place, "bdl-8")
    if not _absolute.match(url):
        report.error("value", "fullUrl is an absolute URI", place)
    match = _restful.match(url)
    if match and isinstance(resource, dict) and isinstance(resource.get("id"), str) and "/_history/" not in url:
        if match[1] == resource.get("resourceType") and match[2] != resource["id"]:
            report.error("structure", "fullUrl does not agree with the id of the resource", place)
        elif match[1] != resource.get("resourceType") and match[2] == resource["id"]:
            report.error("structure", "fullUrl does not agree with the type of the resource", place)


def _distinct(entries: list[dict[str, Any]], at: At, report: Report) -> None:
    seen: set[tuple[str, str]] = set()
    for index, each in enumerate(entries):
        url, resource = each.get("fullUrl"), each.get("resource")
        meta = resource.get("meta") if isinstance(resource, dict) else None
        key = (str(url), str(meta.get("versionId", "")) if isinstance(meta, dict) else "")
        if url is not None and key in seen:
            report.error("invariant", "fullUrl stands in the bundle only once", ((at, "entry", index), "fullUrl", None), "bdl-7")
        seen.add(key)
