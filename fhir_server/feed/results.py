"""The life of results: which stored Observation an OBX means, what a correction withdraws, what an older report may still say. Pure.

A *track* is one order's results for one patient, kept in the feed's state (kind `feed`, `_id` 'results|source|filler|OBR-4'):
  {patient: 'Patient/1', report: id, at: stamp, collected: OBR-7, groups: [{key, at, items: [{id, uid, digest, at}]}]}
A *group* is everything with the same OBX-3 and OBX-4. Inside a group OBX-21 tells results apart; without it only their order does, and
then the group is superseded as a whole as soon as their number or content changes: shifting would put one value's status on another's.

Rules (HL7 v2.8 chapter 7; tables 0085 and 0123): identity = sender, filler order, OBR-4, OBX-3, OBX-4, OBX-21 or ordinal; an OBX missing
from a later report is unchanged, unless the source sends snapshots; an older report never overwrites a newer one, but fills gaps.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conformance.codec import encode

Resource = dict[str, Any]
Track = dict[str, Any]
# How far along a result is: at equal event times the further one stays. HL7 table 0085 / 0123.
RANK: Mapping[str, int] = {
    "O": 0,
    "I": 0,
    "S": 0,
    "R": 1,
    "A": 1,
    "P": 2,
    "B": 2,
    "V": 2,
    "F": 4,
    "U": 4,
    "X": 5,
    "N": 5,
    "C": 6,
    "K": 6,
    "D": 7,
    "W": 7,
}
KEEPS_VALUE = frozenset("UDWXN")  # these change the status of what was sent before; they may come without the value


@dataclass(frozen=True, slots=True)
class Result:
    """One Observation of a message: `group` (OBX-3 and OBX-4 as text), uid (OBX-21), status (OBX-11), res as mapped."""

    group: str
    uid: str
    status: str
    res: Resource


@dataclass(frozen=True, slots=True)
class Written:
    """What becomes of one Result: the id it has or gets, and `write`: False where it is stored already or is older than what is stored."""

    rid: str
    write: bool
    keep: bool  # the stored value stays where the message brings none
    is_new: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """written: one per Result, in order; withdrawn: ids of Observations that are no longer true; track: the state after this message;
    older: the report as a whole is older than what is stored.
    """

    written: tuple[Written, ...]
    withdrawn: tuple[str, ...]
    track: Track
    older: bool


def result_stamp(event_time: str, status: str, entry: str) -> str:
    """A sortable stamp of a result: event time, then how far along it is, then receipt."""
    return f"{event_time}|{RANK.get(status, 3)}|{entry}"


def content_digest(res: Resource) -> str:
    """A digest of an Observation without what changes when it is only reported again (ids, links, status, times of reporting)."""
    plain = {
        name: value for name, value in res.items() if name not in ("id", "meta", "status", "issued", "identifier", "basedOn", "derivedFrom", "text")
    }
    return _digest(plain)


def full_digest(res: Resource) -> str:
    """A digest of a resource as mapped, without ids and meta: equal means that there is nothing to write."""
    return _digest({name: value for name, value in res.items() if name not in ("id", "meta")})


def _digest(value: Any) -> str:
    return hashlib.blake2b(encode(value), digest_size=12).hexdigest()


def new_track(patient: str, report: str, collected: str) -> Track:
    """A track without results."""
    return {"patient": patient, "report": report, "at": "", "collected": collected, "groups": []}


def is_correction(track: Track, results: Sequence[Result], report_status: str, collected: str) -> bool:
    """True if the same order, now for another patient, corrects this track rather than reuses its number.

    Laboratories reuse order numbers. Only a report that says it corrects, or that is about the very same collection, withdraws another
    patient's results.
    """
    return corrected(report_status, results) or bool(collected and collected == track["collected"])


def corrected(report_status: str, results: Sequence[Result]) -> bool:
    """True for a report that says it corrects one before."""
    return report_status in ("C", "W", "D", "K") or any(result.status in ("C", "W", "D") for result in results)


def corrects(track: Track, collected: str) -> bool:
    """True if what is stored of one patient corrects what an older message says of another: `is_correction` seen from the other side."""
    return bool(track.get("corrects")) or bool(collected and collected == track["collected"])


def all_ids(track: Track) -> list[str]:
    """Ids of all Observations of a track."""
    return [item["id"] for group in track["groups"] for item in group["items"]]


def plan(
    track: Track, results: Sequence[Result], *, event_time: str, entry: str, new_id: Any, snapshot: bool = False, report_status: str = ""
) -> Plan:
    """Match the results of one report with its track. `new_id()` gives ids; `event_time` and `entry` as in `result_stamp`."""
    groups = {group["key"]: group for group in track["groups"]}
    written: dict[int, Written] = {}
    withdrawn: list[str] = []
    for key, places in _grouped(results).items():
        members = [results[place] for place in places]
        stamps = [result_stamp(event_time, member.status, entry) for member in members]
        group, rows, gone = _group(groups.get(key), key, members, stamps, new_id)
        groups[key] = group
        withdrawn += gone
        written.update(zip(places, rows))
    at = result_stamp(event_time, report_status, entry)
    older = bool(track["at"]) and at < track["at"]
    if snapshot and not older:
        present = {result.group for result in results}
        for key in [key for key in groups if key not in present]:
            withdrawn += [item["id"] for item in groups.pop(key)["items"]]
    says_so = track.get("corrects", False) if older else corrected(report_status, results)
    after = {**track, "at": max(at, track["at"]), "groups": list(groups.values()), "corrects": says_so}
    return Plan(tuple(written[place] for place in range(len(results))), tuple(withdrawn), after, older)


def _grouped(results: Sequence[Result]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for place, result in enumerate(results):
        groups.setdefault(result.group, []).append(place)
    return groups


def _group(
    stored: Mapping[str, Any] | None, key: str, members: Sequence[Result], stamps: Sequence[str], new_id: Any
) -> tuple[dict[str, Any], list[Written], list[str]]:
    """One group: its state after the message, what is written, and which ids are withdrawn."""
    old = list(stored["items"]) if stored else []
    by_uid = {item["uid"]: item for item in old if item["uid"]}
    if all(member.uid for member in members) and len(by_uid) == len(old):
        return _group_by_uid(key, old, by_uid, members, stamps, new_id)
    newest = max((item["at"] for item in old), default="")
    if old and max(stamps) < newest and (len(old) != len(members) or not _same_content(old, members)):
        return {"key": key, "items": old}, [Written("", False, False, False)] * len(members), []
    if old and (len(old) != len(members) or (len(old) > 1 and not _same_content(old, members))):
        fresh = [_item(new_id(), member, at) for member, at in zip(members, stamps)]
        return {"key": key, "items": fresh}, [Written(item["id"], True, False, True) for item in fresh], [item["id"] for item in old]
    pairs = [_paired(item, member, at, new_id) for item, member, at in zip(old or [None] * len(members), members, stamps)]
    return {"key": key, "items": [item for item, _ in pairs]}, [row for _, row in pairs], []


def _group_by_uid(
    key: str, old: list[dict[str, Any]], by_uid: Mapping[str, dict[str, Any]], members: Sequence[Result], stamps: Sequence[str], new_id: Any
) -> tuple[dict[str, Any], list[Written], list[str]]:
    pairs = [_paired(by_uid.get(member.uid), member, at, new_id) for member, at in zip(members, stamps)]
    touched = {item["uid"]: item for item, _ in pairs}
    kept = [touched.pop(item["uid"], item) for item in old]
    return {"key": key, "items": kept + list(touched.values())}, [row for _, row in pairs], []


def _same_content(old: Sequence[Mapping[str, Any]], members: Sequence[Result]) -> bool:
    """True if the members say the same in the same order (members that only change a status say nothing else)."""
    return all(member.status in KEEPS_VALUE or item["content"] == content_digest(member.res) for item, member in zip(old, members))


def _item(rid: str, member: Result, at: str) -> dict[str, Any]:
    return {"id": rid, "uid": member.uid, "digest": full_digest(member.res), "content": content_digest(member.res), "at": at}


def _paired(item: dict[str, Any] | None, member: Result, at: str, new_id: Any) -> tuple[dict[str, Any], Written]:
    if item is None:
        made = _item(new_id(), member, at)
        return made, Written(made["id"], True, False, True)
    if at < item["at"]:
        return item, Written(item["id"], False, False, False)
    keep = member.status in KEEPS_VALUE
    made = _item(item["id"], member, at)
    if keep:
        made["content"] = item["content"]
    return made, Written(item["id"], made["digest"] != item["digest"], keep, False)


def overlay(stored: Resource, sent: Resource) -> Resource:
    """A status change sent without the value: the stored Observation with what was sent on top."""
    brings = any(name.startswith("value") for name in sent) or "component" in sent
    if brings:
        return sent
    plain = {name: value for name, value in sent.items() if name != "dataAbsentReason" or not any(one.startswith("value") for one in stored)}
    return {**stored, **plain}


def withdraw(res: Resource) -> Resource:
    """An Observation or DiagnosticReport that is no longer true."""
    return {**res, "status": "entered-in-error"}


def report(stored: Resource | None, sent: Resource, references: Sequence[str], withdrawn: Sequence[str], older: bool) -> Resource:
    """The DiagnosticReport after this message: absent keeps, results unite, withdrawn ones leave; an older report only adds results.

    references: 'Observation/id' of what this message brings, in its order; withdrawn: ids of Observations.
    """
    gone = {f"Observation/{rid}" for rid in withdrawn}
    before = [row["reference"] for row in (stored or {}).get("result", []) if row.get("reference") not in gone]
    united = list(dict.fromkeys([*before, *references] if older or _within(references, before) else [*references, *before]))
    merged = dict(stored) if older and stored else {**(stored or {}), **sent}  # the first report of an order may be the older message
    merged.pop("result", None)
    if united:
        merged["result"] = [{"reference": reference} for reference in united]
    return merged


def _within(references: Sequence[str], before: Sequence[str]) -> bool:
    return set(references) <= set(before)
