"""Sources: who a message comes from, and the rules that hang on it (identity, ownership, time zone, policies, tables).

A source is recognised by the name in the connection's client certificate, by the OAuth client of an HTTP request, or by MSH-3 and MSH-4.
The registry is a JSON file (`FHIR_SOURCES`); README.md beside this module shows one. Without it every sender is a source of its own.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from mappers.v2.message import Message

NOTHING: Mapping[str, str] = MappingProxyType({})
UNKNOWN_POLICIES = ("own", "default", "defer", "refuse")
# Identifier types (HL7 table 0203) that name one patient within their authority; accounts, visits and insurance numbers never do.
PATIENT_TYPES = ("", "MR", "MRN", "PI", "PT", "PNT", "EPI", "EMPI", "MPI")


@dataclass(frozen=True, slots=True)
class Source:
    """One configured sender.

    name: how it is called everywhere, [A-Za-z0-9._-]; senders: 'MSH-3|MSH-4' pairs, '*' for any, 'LAB' also for 'LAB^1.2.3^ISO'; certificates: names of client
    certificates; clients: OAuth client ids; zone: IANA name for times without offset; authority: system for identifiers without an
    assigning authority; authorities: namespace id in upper case -> system; patient_types: identifier types that identify a patient, best first;
    owns: elements only this source may write, per type ('Patient.address'); snapshots: a report lists all its results, missing ones are
    withdrawn; processing: accepted MSH-11 ids; conflict: 'defer' or 'accept' a match whose demographics disagree; tables: folder of this
    sender's mapping tables; answer_to: 'host:port' for later application ACKs; sequence: keep the sequence number protocol (MSH-13);
    silent_minutes: alert when nothing came for so long (0: never).
    """

    name: str
    senders: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    zone: str = "UTC"
    authority: str = ""
    authorities: Mapping[str, str] = field(default_factory=lambda: NOTHING, hash=False)
    patient_types: tuple[str, ...] = PATIENT_TYPES
    snapshots: bool = False
    processing: tuple[str, ...] = ("P", "")
    conflict: str = "defer"
    tables: str = ""
    answer_to: str = ""
    sequence: bool = False
    silent_minutes: int = 0
    policy: str = ""  # set on sources made for an unknown sender: defer | refuse

    @property
    def own_authority(self) -> str:
        """The system of identifiers for which the sender names no authority."""
        return self.authority or f"urn:fhir-exchange:source:{self.name}"


@dataclass(frozen=True, slots=True)
class Registry:
    """All sources and what to do with unknown senders: own (a source per sender), default (one source), defer, refuse."""

    sources: tuple[Source, ...] = ()
    unknown: str = "own"


def load_registry(path: str) -> Registry:
    """The registry in a JSON file ('' for none). Raises ValueError naming the file, source and key that is wrong."""
    if not path:
        return Registry()
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"FHIR_SOURCES: {path} cannot be read as JSON") from error
    return registry(data)


def registry(data: Any) -> Registry:
    """The registry of a decoded configuration. Raises ValueError naming the source and key that is wrong."""
    if not isinstance(data, dict) or not isinstance(data.get("sources", []), list):
        raise ValueError("sources: the file holds one object, with a list 'sources'")
    for key in data:
        if key not in ("unknown", "sources"):
            raise ValueError(f"sources: '{key}' is not known; known are unknown, sources")
    unknown = data.get("unknown", "own")
    if unknown not in UNKNOWN_POLICIES:
        raise ValueError(f"sources: 'unknown' must be one of {', '.join(UNKNOWN_POLICIES)}")
    sources = tuple(_source(row) for row in data.get("sources", ()))
    names = [source.name for source in sources]
    if len(set(names)) != len(names):
        raise ValueError("sources: two sources have the same name")
    return Registry(sources, unknown)


def _source(row: Any) -> Source:
    name = str(row.get("name", "")) if isinstance(row, dict) else ""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        raise ValueError("sources: every source needs a 'name' of letters, digits, '.', '_' and '-'")
    known = {one.name: getattr(Source(name), one.name) for one in fields(Source) if one.name != "policy"}
    for key in row:
        if key not in known:
            raise ValueError(f"sources: {name}: '{key}' is not known; known are {', '.join(known)}")
        if not _fits(row[key], known[key]):
            raise ValueError(f"sources: {name}: '{key}' must be {_kind(known[key])}")
    source = Source(**{key: _value(value) for key, value in row.items()})
    _check(source)
    return source


def _fits(value: Any, example: Any) -> bool:
    """True if a value of the configuration is of the kind of the default; a text is no list, although it can be looked into like one."""
    if isinstance(example, tuple):
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if isinstance(example, Mapping):
        return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())
    return type(value) is type(example) and not (isinstance(value, int) and value < 0)


def _kind(example: Any) -> str:
    kinds = ((tuple, "a list of texts"), (Mapping, "an object of texts"), (bool, "true or false"), (int, "a number, 0 or more"))
    return next((text for kind, text in kinds if isinstance(example, kind)), "a text")


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return MappingProxyType(dict(value)) if isinstance(value, dict) else value


def _check(source: Source) -> None:
    if source.conflict not in ("defer", "accept"):
        raise ValueError(f"sources: {source.name}: 'conflict' must be defer or accept")
    if any(sender.count("|") != 1 for sender in source.senders):
        raise ValueError(f"sources: {source.name}: 'senders' are 'MSH-3|MSH-4' pairs")
    if source.answer_to and not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\s]+):\d{1,5}", source.answer_to):
        raise ValueError(f"sources: {source.name}: 'answer_to' is 'host:port'")
    try:
        ZoneInfo(source.zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"sources: {source.name}: 'zone' is not a known time zone (for a fixed offset: Etc/GMT-1 is one hour east)") from error


def recognise(known: Registry, application: str, facility: str, *, certificate: str = "", client: str = "") -> Source:
    """The source of a message; `policy` is set on the answer where an unknown sender must be deferred or refused.

    A source that is configured with certificates or clients is recognised by them alone: MSH-3 is only what a sender says of itself.
    """
    for source in known.sources:
        if (certificate and certificate in source.certificates) or (client and client in source.clients):
            return source
    for source in known.sources:
        if not source.certificates and not source.clients and sends(source, application, facility):
            return source
    return _unknown(known.unknown, application, facility, frozenset(source.name for source in known.sources))


def spoken_for(known: Registry, application: str, facility: str, *, client: str = "") -> Source:
    """The source whose message this is said to be, also where only a certificate or a client would prove it: for answers that store nothing."""
    found = recognise(known, application, facility, client=client)
    if found in known.sources:
        return found
    return next((source for source in known.sources if sends(source, application, facility)), found)


def sender_of(message: Message) -> tuple[str, str]:
    """MSH-3 and MSH-4, their components parted by '^' whatever the message parts them by."""
    application, facility = (message.get(f"MSH-{number}").replace(message.delimiters.component, "^").strip() for number in (3, 4))
    return application, facility


def sends(source: Source, application: str, facility: str) -> bool:
    """True if a source is configured for this sender by name: by the whole of MSH-3 and MSH-4, or by their namespace ids alone (HD.1)."""
    applications, facilities = (("*", whole, whole.partition("^")[0]) for whole in (application, facility))
    return any(one.partition("|")[0] in applications and one.partition("|")[2] in facilities for one in source.senders)


@lru_cache(maxsize=10_000)
def _unknown(policy: str, application: str, facility: str, taken: frozenset[str]) -> Source:
    """A source for a sender that nobody configured; never one with the name of a configured source, whose facts it would then own."""
    name = "default" if policy == "default" else sender_name(application, facility)
    while name in taken:
        name = f"{name}-unknown"
    return Source(name, policy="" if policy in ("own", "default") else policy)


def sender_name(application: str, facility: str) -> str:
    """A source name for a sender that nobody configured; different senders get different names."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", application)[:24] + "." + re.sub(r"[^A-Za-z0-9_-]", "_", facility)[:24]
    if plain == f"{application}.{facility}":
        return plain
    return f"{plain}-{hashlib.sha256(f'{application}|{facility}'.encode()).hexdigest()[:8]}"
