"""A document that replaces or appends another one (MDM T05, T06, T09, T10; TXA-13): the reference becomes a real one, the replaced one superseded.

HL7 v2.8 chapter 9, 9.5; https://hl7.org/fhir/R4/documentreference-definitions.html#DocumentReference.relatesTo
"""

from collections.abc import Sequence
from typing import Any

from fhir_server.feed import identity
from fhir_server.feed.meeting import Meeting, Write

Resource = dict[str, Any]


async def relate(meeting: Meeting, writes: dict[str, Write]) -> None:
    """Resolve `relatesTo` of the message's documents among what is stored, and supersede what they replace."""
    for item in meeting.work.items:
        write = writes.get(item.ref)
        if item.rtype != "DocumentReference" or write is None or not write.res.get("relatesTo"):
            continue
        patient = identity.patient_of(write.res)
        related = []
        for row in write.res["relatesTo"]:
            named = row.get("target", {}).get("identifier")
            ref = await _stored(meeting, named, patient) if named else ""
            resolved = {**row, "target": {**row["target"], "reference": ref}} if ref else row
            if resolved not in related:  # the one stored before and the one just sent are the same link
                related.append(resolved)
            if ref and row.get("code") == "replaces":
                await _supersede(meeting, writes, ref)
        writes[item.ref] = Write({**write.res, "relatesTo": _one_each(related)}, write.prior)


def _one_each(related: Sequence[Resource]) -> list[Resource]:
    """Without an addendum to what is replaced: an edit (T08) or a status (T04) repeats TXA-13 and does not say which it was."""
    replaced = [row["target"] for row in related if row.get("code") == "replaces"]
    return [row for row in related if row.get("code") != "appends" or row["target"] not in replaced]


async def _stored(meeting: Meeting, named: dict[str, str], patient: str) -> str:
    keys = identity.identifier_keys(meeting.work.source, {"resourceType": "DocumentReference", "identifier": [named]})
    await meeting.ledger.load(keys)
    found = [await meeting.ledger.find(key, patient) for key in keys]
    return next((ref for ref in found if ref), "")


async def _supersede(meeting: Meeting, writes: dict[str, Write], ref: str) -> None:
    """Mark a replaced document, unless it was withdrawn as an error."""
    if ref in writes:
        current = writes[ref]
    else:
        stored = await meeting.tx.get("DocumentReference", ref.partition("/")[2])
        if stored is None or stored.res is None:
            return
        current = Write(stored.res, stored)
    if current.res.get("status") == "current":
        writes[ref] = Write({**current.res, "status": "superseded"}, current.prior)
