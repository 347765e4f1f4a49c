"""Which stored results the OBX and OBR of a message are: by their order, for its patient; wrong patients, parents and children of orders."""

import itertools
from collections.abc import Mapping, Sequence

from fhir_server.feed import identity, results
from fhir_server.feed.aside import LARGE_NUMBER, aside
from fhir_server.feed.finding import find_by_content
from fhir_server.feed.items import Item, linked
from fhir_server.feed.meeting import RESULT_TYPES, STATE, Meeting
from fhir_server.feed.orders import Anchor, group_key, result_uid
from fhir_server.feed.times import event_time, sortable, zone_of
from mappers.v2.problem import Problem


async def find_results(meeting: Meeting, items: Sequence[Item], found: dict[int, Anchor]) -> None:
    """Observations of OBX and reports of OBR by their order; other Observations and reports by their content."""
    groups: dict[str, list[Item]] = {}
    by_id = {anchor.id: anchor for anchor in found.values()}
    loose = []
    for item in items:
        if item.rtype not in RESULT_TYPES:
            continue
        anchor = found.get(item.segment.index) if item.segment is not None else None
        if anchor is None or (item.rtype == "Observation" and item.segment is not None and item.segment.name != "OBX"):
            loose.append(item)
        else:
            groups.setdefault(anchor.id, []).append(item)
    await find_by_content(meeting, loose, settled=True)
    for id, members in groups.items():
        await _find_order(meeting, by_id[id], members)


async def _find_order(meeting: Meeting, anchor: Anchor, members: Sequence[Item]) -> None:
    """The track of one order for this patient, and what of it each result is."""
    observations = [item for item in members if item.rtype == "Observation"]
    reports = [item for item in members if item.rtype == "DiagnosticReport"]
    await aside(len(members) > LARGE_NUMBER, _link_all, members, dict(meeting.refs))
    patient = identity.patient_of(members[0].res)
    id = anchor.id if anchor.numbered else f"{anchor.id}|{patient}"
    if not anchor.numbered:
        meeting.states.update(await meeting.means.inbox.load(meeting.tx, STATE, [id]))
    await _link_parents(meeting, anchor, observations, patient)
    sent = await aside(len(observations) > LARGE_NUMBER, _sent, observations)
    at = sortable(event_time(meeting.work.message, "result", zone_of(meeting.work.source.zone), meeting.work.received, anchor.segment))
    now = results.result_stamp(at, anchor.status, meeting.work.entry)
    track, others, known_wrong = await _track(meeting, id, anchor, patient, sent, now)
    if known_wrong and track["void"]:
        return  # these results were taken from this patient by a newer message: an older one does not bring them back
    if known_wrong:
        for item in members:
            item.res = results.withdraw(item.res)
        sent = _sent(observations)
    numbers = itertools.count()
    plan = await aside(
        len(sent) > LARGE_NUMBER,
        results.plan,
        track,
        sent,
        event_time=at,
        entry=meeting.work.entry,
        new_id=lambda: meeting.new_id(f"{id}|{next(numbers)}"),
        snapshot=meeting.work.source.snapshots,
        report_status=anchor.status,
    )
    for item, row in zip(observations, plan.written):
        item.ref, item.new, item.write, item.keep = f"Observation/{row.rid}" if row.rid else "", row.is_new, row.write, row.keep
        if item.ref:
            meeting.refs[item.url] = item.ref
    meeting.withdrawn.update({f"Observation/{rid}": "superseded" for rid in plan.withdrawn})
    await _adopt_children(meeting, anchor, plan.track)
    for number, item in enumerate(reports):
        _report(meeting, item, plan, track, number)
    _keep_track(meeting, id, anchor, [*others, plan.track], {item.ref for item in reports if item.new})


def _link_all(members: Sequence[Item], refs: Mapping[str, str]) -> None:
    for item in members:
        item.linked = item.targets <= refs.keys()
        item.res = linked(item.res, refs)


async def _link_parents(meeting: Meeting, anchor: Anchor, observations: Sequence[Item], patient: str) -> None:
    """Results of a child order (OBR-26, OBR-29: a culture's susceptibilities) are derived from the parent result, where that is known."""
    if not anchor.parents:
        return
    _announce(meeting, anchor, patient)
    stored = {row["_id"]: row for row in await meeting.means.inbox.find(meeting.tx, STATE, "orders", anchor.parents)}
    stored.update({key: row for key, row in meeting.states.items() if not set(anchor.parents).isdisjoint(row.get("orders", ()))})
    found: list[str] = []
    for row in stored.values():
        for track in row.get("tracks", ()):
            if row["_id"] != anchor.id and await meeting.ledger.alias(track["patient"]) == patient:
                found += [
                    item["id"]
                    for group in track["groups"]
                    if group["key"] == anchor.parent_group or not anchor.parent_group
                    for item in group["items"]
                ]
    if not found:
        meeting.problems.append(Problem("W", f"OBR^{anchor.segment.occurrence}^26", "204", "the parent result is not known"))
    for item in observations:
        before = item.res.get("derivedFrom", [])
        item.res["derivedFrom"] = [*before, *({"reference": f"Observation/{rid}"} for rid in dict.fromkeys(found))]
        if not item.res["derivedFrom"]:
            del item.res["derivedFrom"]


def children_key(order: str) -> str:
    """The id of the document that lists the child orders of an order, which may come before it: {_id, children: [[results id, parent group]]}."""
    return f"children|{order}"


def _announce(meeting: Meeting, anchor: Anchor, patient: str) -> None:
    """Note under each number of the parent order that this order is a child of it."""
    row = [anchor.id if anchor.numbered else f"{anchor.id}|{patient}", anchor.parent_group]
    for key in map(children_key, anchor.parents):
        document = meeting.states.get(key, {"_id": key, "children": []})
        if row not in document["children"]:
            meeting.states[key] = {**document, "children": [*document["children"], row]}
            meeting.changed.add(key)


async def _adopt_children(meeting: Meeting, anchor: Anchor, track: results.Track) -> None:
    """Child results that came before these parent results are derived from them from now on."""
    rows = [tuple(row) for order in anchor.orders for row in meeting.states.get(children_key(order), {}).get("children", ())]
    if not rows:
        return
    unread = {id for id, _ in rows} - meeting.states.keys()
    meeting.states.update(await meeting.means.inbox.load(meeting.tx, STATE, unread))
    for id, wanted in dict.fromkeys(rows):
        parents = [f"Observation/{item['id']}" for group in track["groups"] if wanted in ("", group["key"]) for item in group["items"]]
        for child in meeting.states.get(id, {}).get("tracks", ()):
            if parents and await meeting.ledger.alias(child["patient"]) == track["patient"]:
                meeting.late.update({f"Observation/{rid}": parents for rid in results.all_ids(child)})


def _sent(observations: Sequence[Item]) -> list[results.Result]:
    parts: dict[int, int] = {}
    sent = []
    for item in observations:
        if item.segment is None or item.segment.name != "OBX":
            raise ValueError("an Observation of an order comes from an OBX")
        part = parts[item.segment.index] = parts.get(item.segment.index, -1) + 1
        sent.append(results.Result(group_key(item.segment, part), result_uid(item.segment), item.segment.get("11").upper(), item.res))
    return sent


async def _track(
    meeting: Meeting, id: str, anchor: Anchor, patient: str, sent: Sequence[results.Result], now: str
) -> tuple[results.Track, list[results.Track], bool]:
    """This patient's track of an order, those of other patients, and if a newer message said that the results are another patient's.

    A wrong-patient correction empties the tracks of the others (`void`: when). Which of two messages corrects the other, their event times tell.
    """
    mine: results.Track | None = None
    others: list[results.Track] = []
    wrong = False
    for track in meeting.states.get(id, {}).get("tracks", ()):
        if track["patient"] == patient or await meeting.ledger.alias(track["patient"]) == patient:
            mine = {**track, "patient": patient}
        elif track["groups"] and now < track["at"]:
            wrong = wrong or results.corrects(track, anchor.collected)
            others.append(track)
        elif track["groups"] and results.is_correction(track, sent, anchor.status, anchor.collected):
            meeting.withdrawn.update({f"Observation/{rid}": "wrong patient" for rid in results.all_ids(track)})
            meeting.withdrawn.update(dict.fromkeys(_documents(meeting, track["patient"]), "wrong patient"))
            if track["report"]:
                meeting.withdrawn[f"DiagnosticReport/{track['report']}"] = "wrong patient"
            others.append({**track, "groups": [], "report": "", "void": now})
            meeting.problems.append(Problem("W", f"OBR^{anchor.segment.occurrence}^3", "205", "the results were withdrawn from another patient"))
        else:
            others.append(track)
    wrong = wrong or (mine is not None and now < mine.get("void", ""))
    if wrong:
        meeting.problems.append(
            Problem("W", f"OBR^{anchor.segment.occurrence}^3", "205", "a newer message says that these are another patient's results")
        )
    return {"void": "", **(mine or results.new_track(patient, "", anchor.collected))}, others, wrong


def _documents(meeting: Meeting, patient: str) -> list[str]:
    """What the documents of this message's results are known as for another patient."""
    keys = [key for item in meeting.work.items if item.rtype == "DocumentReference" for key in item.keys if "#result|" in key]
    return [row["ref"] for key in keys for row in meeting.ledger.meant(key) if row["patient"] == patient]


def _report(meeting: Meeting, item: Item, plan: results.Plan, track: results.Track, number: int) -> None:
    known = track["report"] if not number else ""
    meeting.decide(item, f"DiagnosticReport/{known}" if known else "")
    if not number:
        plan.track["report"] = item.rid
    item.older, item.withdrawn = plan.older, plan.withdrawn


def _keep_track(meeting: Meeting, id: str, anchor: Anchor, tracks: Sequence[results.Track], made: set[str]) -> None:
    document = {
        "_id": id,
        "tracks": list(tracks),
        "orders": list(anchor.orders),
        "patients": sorted({track["patient"] for track in tracks if track["patient"]}),
    }
    if document != meeting.states.get(id):
        meeting.states[id] = document
        meeting.changed.add(id)
