"""A stored resource as the HL7 v2 message that tells of it: a DiagnosticReport as ORU^R01, an Encounter or a Patient as ADT^A01 or ADT^A08.

The message holds what the resource refers to, as far as the tables of `mappers/v2/outbound.py` have a place for it.
"""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from conformance.outcome import Issue, bad_request, gone, not_found, unprocessable
from fhir_server.context import Resource
from fhir_server.interactions.references import literal, references
from fhir_server.store import Reader
from mappers.v2.outbound import EVENTS, Envelope, build
from mappers.v2.tables import Tables

DEPTH = 6  # a report, its visit, the bed, and the room, ward, building and site that this is part of
MOST = 2000
EVENT: Mapping[str, str] = MappingProxyType({"DiagnosticReport": "ORU^R01", "Encounter": "ADT^A08", "Patient": "ADT^A08"})
MADE_FOR = MappingProxyType({"ORU^R01": ("DiagnosticReport",), "ADT^A01": ("Encounter", "Patient"), "ADT^A08": ("Encounter", "Patient")})


async def message_of(
    reader: Reader, base: str, ref: str, tables: Tables, *, event: str = "", sending: tuple[str, str], receiving: tuple[str, str]
) -> bytes:
    """The message about 'DiagnosticReport/1'. Raises Refusal 400 (no such event for it), 404, 410, 413 (too much belongs to it), 422 (no patient)."""
    rtype, _, rid = ref.partition("/")
    chosen = event or EVENT.get(rtype, "")
    if chosen not in EVENTS or rtype not in MADE_FOR[chosen]:
        raise bad_request(f"no HL7 v2 message {chosen} is made of a {rtype}; there are {', '.join(EVENTS)}".replace("  ", " "))
    found = await _with_all_it_names(reader, base, rtype, rid)
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"fullUrl": name, "resource": res} for name, res in found.items()]}
    envelope = Envelope(sending, receiving, uuid.uuid4().hex[:20].upper(), datetime.now(UTC))
    try:
        return build(bundle, chosen, envelope, tables)
    except ValueError as error:
        raise unprocessable([Issue("error", "required", f"no message can be made of it: {error}")]) from error


async def _with_all_it_names(reader: Reader, base: str, rtype: str, rid: str) -> dict[str, Resource]:
    """The resource, what it refers to, and so on: 'Type/id' -> resource, the first one first."""
    first = await reader.get(rtype, rid)
    if first is None:
        raise not_found(rtype, rid)
    if first.res is None:
        raise gone(rtype, rid)
    found: dict[str, Resource] = {f"{rtype}/{rid}": first.res}
    fresh = [first.res]
    for _ in range(DEPTH):
        texts = {text for res in fresh for text in references(res)}
        pairs = {pair for text in texts if (pair := literal(text, f"{base}/", frozenset({text.removeprefix(f"{base}/").partition("/")[0]})))}
        wanted = sorted(pair for pair in pairs if "/".join(pair) not in found)[: MOST - len(found)]
        stored = await reader.get_many(wanted)
        fresh = [one.res for one in stored.values() if one.res is not None]
        found.update((f"{res['resourceType']}/{res['id']}", res) for res in fresh)
    return found
