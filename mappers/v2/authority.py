"""Assigning authorities (HD, EI.2-4) -> identifier systems: the same authority gives the same URI, named by namespace or by OID.

Order: a universal id of type ISO, UUID or URI; the source's own registry; what this message itself says elsewhere
(`HOSP&1.2.3&ISO`); tables/authorities.csv; else `urn:id:<namespace>`. https://hl7.org/fhir/R4/datatypes.html#Identifier
"""

import re
from functools import lru_cache
from urllib.parse import quote

from mappers.v2.run import Run

_OID = re.compile(r"[0-2](?:\.(?:0|[1-9]\d*))+$")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")
_URL = re.compile(r"(?:https?|urn|ftp|tag):\S+$", re.IGNORECASE)
LONG = 48  # characters before 'ISO' that are compared with what was seen


def parts(run: Run, raw: str, level: int) -> tuple[str, str, str]:
    """Namespace id, universal id, its type, of a raw HD."""
    mark = run.marks[level] if level < 3 else ""
    found = [run.text(part) for part in (raw.split(mark) if mark else [raw])] + ["", "", ""]
    return found[0], found[1], found[2]


def learn(run: Run) -> None:
    """Collect from the message which namespace goes with which OID: `HOSP&1.2.3&ISO`, `HOSP^1.2.3^ISO`."""
    component, sub, _ = run.marks
    marks = {component, sub, run.message.delimiters.field, run.message.delimiters.repetition}
    seen: set[str] = set()
    for segment in run.message.segments:
        line = segment.line
        at = line.find("ISO", 4)
        while at > 0:
            before = line[max(at - LONG, 0) : at]
            if before not in seen and (before[-1] == sub or before[-1] == component):
                start = max(line.rfind(component, 0, at - 1), line.rfind(sub, 0, at - 1)) + 1
                universal = line[start : at - 1]
                if universal not in seen:
                    seen.add(universal)
                    first = end = max(start - 1, 0)
                    while first and line[first - 1] not in marks:
                        first -= 1
                    _learned(run, line[first:end], universal)
                if at - start < LONG:
                    seen.add(before)  # the universal id is all in it: the same again tells nothing new
            at = line.find("ISO", at + 3)


def _learned(run: Run, namespace: str, universal: str) -> None:
    if namespace and _OID.match(universal):
        name = run.decode(namespace).strip()
        found = run.authorities.setdefault(name.upper(), _known(run, universal) or f"urn:oid:{universal}")
        if name.upper() not in run.source.authorities:
            run.namespaces[found] = (*run.namespaces.get(found, ()), _plain(name))


def system(run: Run, namespace: str, universal: str = "", kind: str = "") -> str:
    """The system URI of an authority, '' if nothing names one."""
    if universal:
        found = _universal(run, universal, kind.upper())
        if found:
            return found
    name = namespace.upper()
    if not name:
        return _plain(universal) if universal else ""
    if _OID.match(namespace) or _UUID.match(namespace) or _URL.match(namespace):
        return _universal(run, namespace, "") or namespace
    return run.source.authorities.get(name) or run.authorities.get(name) or _known(run, name) or _plain(namespace)


@lru_cache(maxsize=1024)
def _plain(name: str) -> str:
    return f"urn:id:{quote(name, safe='.:-_')}"


def hides(run: Run, universal: str, found: str) -> bool:
    """True if a system does not show the universal id it was made with."""
    return bool(universal) and universal.casefold() not in found.casefold() and not _known(run, universal.upper())


def _universal(run: Run, universal: str, kind: str) -> str:
    known = _known(run, universal.upper())
    if known:
        return known
    if _OID.match(universal):
        return f"urn:oid:{universal}"
    if _UUID.match(universal):
        return f"urn:uuid:{universal.lower()}"
    if _URL.match(universal):
        return universal
    if kind == "DNS":
        return f"urn:dns:{quote(universal, safe='.:-_')}"
    if kind == "URI":
        return quote(universal, safe=":/?#[]@!$&'()*+,;=%-._~")
    return _known(run, kind) if kind in ("CLIA", "NPI") else ""


def _known(run: Run, name: str) -> str:
    found: str = run.tables.authorities.get(name, "")
    return found


def endpoint(run: Run, namespace: str, universal: str, kind: str) -> str:
    """A URL for an application: its universal id as URN, else its namespace as `urn:id:`."""
    return system(run, namespace, universal, kind) or "urn:id:unknown"
