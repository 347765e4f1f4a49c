"""The Provenance that ties written versions to the message they came from, both ways. https://hl7.org/fhir/R4/provenance.html"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from fhir_server.feed.items import Work

MESSAGE_SYSTEM = "urn:fhir-exchange:inbox"
SOURCE_SYSTEM = "urn:fhir-exchange:source"
PARTICIPANT_TYPE = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"


def provenance(work: Work, refs: Sequence[str]) -> dict[str, Any]:
    """A new Provenance: targets are versions, the agent is the sending source, the entity the message in the inbox."""
    return _record(refs, f"{work.message.code}^{work.message.trigger}", work.received, work.source.name, work.entry)


def merge_provenance(merge: Mapping[str, Any], refs: Sequence[str]) -> dict[str, Any]:
    """A new Provenance for references rewritten because of a merge; `merge` is its document."""
    return _record(refs, "references rewritten after a merge", merge["at"], merge["source"], merge["entry"])


def _record(refs: Sequence[str], activity: str, at: datetime, source: str, entry: str) -> dict[str, Any]:
    return {
        "resourceType": "Provenance",
        "id": str(uuid.uuid4()),
        "target": [{"reference": ref} for ref in refs],
        "recorded": at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "activity": {"text": activity},
        "agent": [
            {
                "type": {"coding": [{"system": PARTICIPANT_TYPE, "code": "transmitter"}]},
                "who": {"identifier": {"system": SOURCE_SYSTEM, "value": source}},
            }
        ],
        "entity": [{"role": "source", "what": {"identifier": {"system": MESSAGE_SYSTEM, "value": entry}}}],
    }
