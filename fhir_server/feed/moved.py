"""After a visit or an account was merged or went to another patient (A42, A44, A45), later messages find what belongs to it.

Else a diagnosis that is sent again would be recorded twice, and a laboratory's report sent again would look like a correction of the wrong patient.
HL7 v2.8 3.6.2.1.4 (move): what is subordinate to the account or visit moves with it.
"""

from collections.abc import Collection, Sequence
from typing import Any

from fhir_server.feed import identity, results
from fhir_server.feed.ledger import KIND, Ledger, owned
from fhir_server.sources import Source
from fhir_server.store.inbox import Document

Resource = dict[str, Any]
MOST = 10_000


async def follow(ledger: Ledger, states: dict[str, Document], refs: Collection[str], owner: str, patient: str) -> list[str]:
    """Let the keys of these resources ('Condition/1') belong to the new patient; the ids of states (tracks of results) that changed."""
    rows = await ledger.inbox.find(ledger.tx, KIND, "tracks.ref", sorted(refs), MOST)
    ledger.adopt(rows)
    beneath = owned("", owner)
    for key in [row["_id"] for row in rows]:
        for track in [track for track in ledger.documents[key].get("tracks", ()) if track["ref"] in refs and track["patient"] == owner]:
            if key.startswith(beneath):
                other = owned(key.removeprefix(beneath), patient)
                await ledger.load([other])
                ledger.keep(other, track["ref"], patient, track.get("told", {}))
            else:
                ledger.reassign(key, track["ref"], patient)
    return await _results(ledger, states, refs, owner, patient)


async def known_again(ledger: Ledger, source: Source, resources: Sequence[Resource], patient: str) -> None:
    """Let what is known by its content, a visit among it, be found by what it says after that visit was merged."""
    for res in resources:
        if res["resourceType"] in identity.NATURAL and not identity.identifier_keys(source, res):
            key = owned(identity.natural_key(source, res), patient)
            await ledger.load([key])
            ledger.keep(key, f"{res['resourceType']}/{res['id']}", patient)


async def _results(ledger: Ledger, states: dict[str, Document], refs: Collection[str], owner: str, patient: str) -> list[str]:
    """Tracks of orders whose results all moved are the new patient's."""
    changed = []
    for row in await ledger.inbox.find(ledger.tx, KIND, "patients", [owner], MOST):
        document = states.get(row["_id"], row)
        tracks = [{**track, "patient": patient} if _goes(track, refs, owner) else track for track in document["tracks"]]
        if tracks != document["tracks"]:
            patients = sorted({track["patient"] for track in tracks if track["patient"]})
            states[row["_id"]] = {**document, "tracks": tracks, "patients": patients}
            changed.append(row["_id"])
    return changed


def _goes(track: results.Track, refs: Collection[str], owner: str) -> bool:
    told = [f"Observation/{rid}" for rid in results.all_ids(track)] or [f"DiagnosticReport/{track['report']}"]
    return track["patient"] == owner and all(ref in refs for ref in told)
