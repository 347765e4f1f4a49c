"""Who and what a message means: identity keys of patients, visits, orders, people and places. Pure.

A key is text 'Type|system|value'. The feed's `identity` documents map keys to resources ({_id: key, tracks: [{ref, patient}], digests}), so a
merge moves a key to another resource and later messages land there. Rules:
- a patient is named by the identifier types and authorities of the source (`Source.patient_types`), never by account, visit, insurance or
  social numbers; an identifier without an authority belongs to the source: the same number of two hospitals is two people;
- a namespace and an OID sent together are one authority: both keys are kept, either finds the patient (or visit, order, doctor) later. A
  namespace that is known under one OID is not that of another: `MRN&1.2.3` and `MRN&9.9.9` are two hospitals (`paired`, `Ledger.under`);
- other resources are found by their identifiers, and without any by the elements that `identity.csv` names, within source and patient.

HL7 v2.8 chapter 2A (CX, HD), table 0203; https://hl7.org/fhir/R4/datatypes.html#Identifier
"""

import csv
import hashlib
import itertools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from conformance.codec import encode
from fhir_server.sources import Source
from mappers.v2.message import Segment

Resource = dict[str, Any]
OID = re.compile(r"[0-2](\.(0|[1-9]\d*))+")
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
URL = re.compile(r"(https?|urn|ftp|tag):\S+", re.IGNORECASE)
PLAIN = "urn:id:"  # systems of namespaces that stand alone
UNTOLD: Mapping[str, Sequence[str]] = MappingProxyType({})
PATIENT_FIELDS = (3, 2, 4)  # PID-3; PID-2 and PID-4 are what 2.1 to 2.3 senders use when PID-3 is empty
MERGED_FIELDS = (1, 4, 2)  # MRG-1; MRG-4 and MRG-2 before 2.5
PATIENT_LINKS = ("subject", "patient", "beneficiary", "individual")
MOST_TEXT = 65_536  # characters of an identifier field; nobody is named by more
UNNAMED = frozenset({"", "unknown", "unk", "unbekannt", "nn", "none", "notavailable", "test"})
# Identifier types that many people may share or that name something else than a person; HL7 table 0203.
SHARED = frozenset(
    {"AN", "VN", "SS", "HC", "MC", "MA", "MB", "XX", "DL", "PPN", "NI", "NH", "TAX", "EI", "EN", "BC", "WP", "CC", "GN", "SN", "PLAC", "FILL", "ACSN"}
)


def authorities(source: Source, namespace: str, universal: str, kind: str) -> tuple[str, ...]:
    """The systems that an assigning authority (HD) amounts to, the best first: universal id, then the namespace, spelt as the mapper spells them."""
    systems: list[str] = []
    if universal:
        systems.append(_universal(universal, kind.upper()))
    if namespace:
        systems.append(source.authorities.get(namespace.upper()) or _plain(namespace))
    return tuple(dict.fromkeys(systems)) or (source.own_authority,)


def _plain(name: str) -> str:
    """The system of a namespace that stands alone; it may itself be an OID or a URI."""
    if OID.fullmatch(name):
        return f"urn:oid:{name}"
    return name if URL.fullmatch(name) else f"urn:id:{quote(name, safe='.:-_')}"


def _universal(universal: str, kind: str) -> str:
    if kind == "ISO":
        return f"urn:oid:{universal}"  # also one that no OID may be: it tells two authorities of one namespace apart
    if kind in ("UUID", "GUID") or UUID.fullmatch(universal):
        return f"urn:uuid:{universal.lower()}"
    return f"urn:dns:{quote(universal, safe='.:-_')}" if kind == "DNS" else _plain(universal)


def cx_keys(rtype: str, source: Source, segment: Segment, place: str) -> tuple[str, ...]:
    """The keys of one CX or EI-like repetition at '3(1)': number, authority of component 4."""
    value = segment.get(f"{place}.1").strip()
    if not value:
        return ()
    systems = authorities(source, *(segment.get(f"{place}.4.{sub}").strip() for sub in (1, 2, 3)))
    return tuple(f"{rtype}|{system}|{value}" for system in systems)


def patient_keys(source: Source, segment: Segment, numbers: Iterable[int] = PATIENT_FIELDS) -> tuple[str, ...]:
    """Keys of the patient that a PID or MRG names, the source's best identifier type first; () if it names none.

    Where no identifier is of a type that the source trusts, the first one that is not shared by nature is taken.
    """
    for number in numbers:
        if len(segment.text(number)) > MOST_TEXT:
            continue
        rows = [
            (segment.get(f"{number}({place}).5").strip().upper(), f"{number}({place})") for place in range(1, len(segment.repetitions(number)) + 1)
        ]
        trusted = [(source.patient_types.index(kind), place) for kind, place in rows if kind in source.patient_types]
        chosen = [place for _, place in sorted(trusted, key=lambda row: row[0])] or [place for kind, place in rows if kind not in SHARED][:1]
        keys = [key for place in chosen for key in cx_keys("Patient", source, segment, place)]
        if keys:
            return tuple(dict.fromkeys(keys))
    return ()


def demographic_key(source: Source, patient: Resource) -> str:
    """The key of a patient without any number: family, given, birth date and sex, all present, within the source; '' otherwise."""
    name = _name(patient)
    parts = (name[0], name[1], str(patient.get("birthDate", "")), str(patient.get("gender", "")))
    return f"Patient|{source.name}|~{'|'.join(parts)}" if all(parts) and name[0] not in UNNAMED else ""


def _name(patient: Mapping[str, Any]) -> tuple[str, str]:
    for name in patient.get("name", ()):
        if name.get("family"):
            return folded(str(name["family"])), folded(str((name.get("given") or [""])[0]))
    return "", ""


def folded(text: str) -> str:
    """Text without case, accents, blanks and punctuation."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    return "".join(char for char in plain if char.isalnum())


def disagreements(stored: Mapping[str, Any], sent: Mapping[str, Any]) -> list[str]:
    """Which of name, birth date and sex are known on both sides and differ."""
    found = []
    families = {folded(str(name.get("family", ""))) for name in stored.get("name", ())} - UNNAMED
    said = {folded(str(name.get("family", ""))) for name in sent.get("name", ())} - UNNAMED
    if families and said and not families & said:
        found.append("name")
    born, told = str(stored.get("birthDate", "")), str(sent.get("birthDate", ""))
    length = min(len(born), len(told))
    if length and born[:length] != told[:length]:
        found.append("birthDate")
    sexes = {stored.get("gender"), sent.get("gender")} - {None, "unknown", "other"}
    if len(sexes) == 2:
        found.append("gender")
    return found


def is_conflict(stored: Mapping[str, Any], sent: Mapping[str, Any]) -> bool:
    """True if two of name, birth date and sex disagree: probably another person, for a person to decide."""
    return len(disagreements(stored, sent)) >= 2


def _natural() -> Mapping[str, tuple[str, ...]]:
    with Path(__file__).with_name("identity.csv").open(encoding="utf-8") as file:
        return MappingProxyType({row["rtype"]: tuple(row["elements"].split()) for row in csv.DictReader(file)})


NATURAL = _natural()


def paired(keys: Sequence[str]) -> dict[str, str]:
    """Key by a namespace -> the universal system that was said with it: the one of the key before, of the same number."""
    found = {}
    for before, key in itertools.pairwise(keys):
        (_, system, value), (_, name, number) = _parts(before), _parts(key)
        if value == number and name.startswith(PLAIN) and system.startswith("urn:") and not system.startswith(PLAIN):
            found[key] = system
    return found


def _parts(key: str) -> tuple[str, str, str]:
    """Type, system and value of a key; systems have no '|'."""
    rtype, _, rest = key.partition("|")
    system, _, value = rest.partition("|")
    return rtype, system, value


def identifier_keys(source: Source, res: Resource, namespaces: Mapping[str, Sequence[str]] = UNTOLD) -> tuple[str, ...]:
    """Keys by the identifiers of a resource that is no patient; () if it has none with a value. namespaces: see `Facts`."""
    keys = []
    for identifier in [*_listed(res.get("masterIdentifier")), *_listed(res.get("identifier"))]:
        value = identifier.get("value")
        if value:
            kind = next((coding.get("code", "") for coding in identifier.get("type", {}).get("coding", ())), "")
            system = identifier.get("system") or f"{source.own_authority}#{kind}"
            keys += [f"{res['resourceType']}|{name}|{value}" for name in (system, *namespaces.get(system, ()))]
    return tuple(dict.fromkeys(keys))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def natural_key(source: Source, res: Resource) -> str:
    """The key of a resource without identifiers: the elements of `identity.csv` (all of it where the table has no row), in the source.

    Its references must be those of the store already. The patient is no part of it: what belongs to one is kept apart for each (`ledger.owned`).
    """
    if res["resourceType"] == "Encounter":  # a visit without a number: known by its beginning, else one per patient and source
        return f"Encounter|{source.name}|~{res.get('period', {}).get('start', 'open')}"
    told = {name: value for name, value in told_apart_by(res).items() if name not in PATIENT_LINKS or not patient_of(res)}
    return f"{res['resourceType']}|{source.name}|~{hashlib.blake2b(encode(told), digest_size=16).hexdigest()}"


def told_apart_by(res: Resource) -> Resource:
    """The elements of a resource without identifiers that its key is made of."""
    wanted = NATURAL.get(res["resourceType"])
    if res["resourceType"] == "Encounter":
        return {"period": res["period"]} if "period" in res else {}
    told = {name: value for name, value in res.items() if (name in wanted if wanted else name not in ("id", "meta", "text"))}
    return told or {name: value for name, value in res.items() if name not in ("id", "meta", "text")}


def is_whole(rtype: str, keys: Iterable[str]) -> bool:
    """True if a resource is known by all of its content (a Binary): the same content is the same resource, so there is nothing to reconcile."""
    return rtype not in NATURAL and rtype not in ("Patient", "Encounter") and all("|~" in key for key in keys)


def patient_of(res: Resource) -> str:
    """The patient a resource is about ('Patient/1'), '' if it is about none."""
    for name in PATIENT_LINKS:
        reference = next(iter(_listed(res.get(name))), None)  # an Account has a list of subjects
        if isinstance(reference, dict) and str(reference.get("reference", "")).startswith("Patient/"):
            return str(reference["reference"])
    return ""
