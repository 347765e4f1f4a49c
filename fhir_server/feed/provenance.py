"""The Provenance that ties written versions to the message they came from, both ways. https://hl7.org/fhir/R4/provenance.html"""

import uuid
from collections.abc import Sequence
from typing import Any

from fhir_server.feed.items import Work

MESSAGE_SYSTEM = "urn:fhir-exchange:inbox"
SOURCE_SYSTEM = "urn:fhir-exchange:source"
DATA_OPERATION = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"


def provenance(work: Work, refs: Sequence[str]) -> dict[str, Any]:
    """A new Provenance: targets are versions, the agent is the sending source, the entity the message in the inbox."""
    return {
        "resourceType": "Provenance",
        "id": str(uuid.uuid4()),
        "target": [{"reference": ref} for ref in refs],
        "recorded": work.received.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "activity": {"text": f"{work.message.code}^{work.message.trigger}"},
        "agent": [
            {
                "type": {"coding": [{"system": DATA_OPERATION, "code": "transmitter"}]},
                "who": {"identifier": {"system": SOURCE_SYSTEM, "value": work.source.name}},
            }
        ],
        "entity": [{"role": "source", "what": {"identifier": {"system": MESSAGE_SYSTEM, "value": work.entry}}}],
    }
