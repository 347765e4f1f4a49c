"""Rewriting references from a retired resource to the one that stands for it: at once within the merge, or later by a resumable job.

AuditEvent and Provenance tell of the past, Bundle documents and signed documents are what somebody signed: they stay as they were.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from fhir_server.feed.meeting import Means, Write, version
from fhir_server.feed.provenance import merge_provenance
from fhir_server.interactions.retired import is_kept
from fhir_server.store import Stored, Tx

SETTLING = "settling"
LOOK_AGAIN = timedelta(seconds=2)
LOOK_AT = 100  # referrers looked at to see whether a finished merge has late ones
Resource = dict[str, Any]


def redirected(value: Any, old: str, new: str) -> Any:
    """A copy whose references to `old` point to `new`; the links between the two patients themselves are not touched."""
    if isinstance(value, dict):
        return {name: new if name == "reference" and part == old else redirected(part, old, new) for name, part in value.items()}
    return [redirected(part, old, new) for part in value] if isinstance(value, list) else value


async def rewritten(means: Means, tx: Tx, old: str, new: str, limit: int, writes: dict[str, Write]) -> list[str]:
    """Add to `writes` up to `limit` resources that refer to `old`, referring to `new`; their 'Type/id'."""
    touched = []
    for stored in await means.referrers(tx, old, limit):
        ref = f"{stored.rtype}/{stored.rid}"
        if stored.res is None or is_kept(stored.res) or ref in (old, new) or _is_patient_link(stored, old):
            continue
        base = writes[ref] if ref in writes else Write(stored.res, stored)
        res = redirected(base.res, old, new)
        if res != base.res:
            writes[ref] = Write(res, base.prior)
            touched.append(ref)
    _rewrite_pending(writes, old, new)
    return touched


def _rewrite_pending(writes: dict[str, Write], old: str, new: str) -> None:
    """What the message itself writes must not refer to the retired resource either."""
    for ref, write in list(writes.items()):
        if ref not in (old, new) and not is_kept(write.res) and write.res["resourceType"] != "Patient":
            writes[ref] = Write(redirected(write.res, old, new), write.prior)


def _is_patient_link(stored: Stored, old: str) -> bool:
    """A Patient refers to another one only by links, which tell the history of merges."""
    return stored.rtype == "Patient" and old.startswith("Patient/")


async def reopened(means: Means, transact: Any, merge: Mapping[str, Any]) -> bool:
    """Open a finished merge again where something written later refers to the retired resource; True if so."""
    old, new = merge["retired"], merge["survivor"]
    for stored in await means.referrers(None, old, LOOK_AT):
        ref = f"{stored.rtype}/{stored.rid}"
        if stored.res is not None and not is_kept(stored.res) and ref not in (old, new) and not _is_patient_link(stored, old):
            return bool(await transact(lambda tx: _open_again(means, tx, merge["_id"])))
    return False


async def _open_again(means: Means, tx: Tx, id: str) -> bool:
    document = (await means.inbox.load(tx, "merges", [id]))[id]
    if document["state"] != "done":  # undone meanwhile, or another process was first
        return False
    await means.inbox.save(tx, "merges", [{**document, "state": "open"}])
    return True


async def continue_rewriting(means: Means, transact: Any, merge: Mapping[str, Any], batch: int = 200, *, settle: float = 0.0) -> int:
    """One step of the job for an open or settling merge: rewrite up to `batch` resources in a transaction of their own; how many.

    The merge document records what was touched, so the job can stop anywhere and go on elsewhere. When nothing is left, the merge settles: it is
    looked at again until `settle` seconds later, when nobody can be writing any more who did not know of it (it is then done).
    """

    async def body(tx: Tx) -> int:
        found = await means.inbox.load(tx, "merges", [merge["_id"]])
        document = found[merge["_id"]]
        if document["state"] not in ("open", SETTLING):
            return 0
        writes: dict[str, Write] = {}
        touched = await rewritten(means, tx, document["retired"], document["survivor"], batch, writes)
        if touched:
            refs = [version(write) for write in writes.values()]
            await means.commit(tx, [*writes.values(), Write(merge_provenance(document, refs), None)])
        document["touched"] = [*document.get("touched", ()), *touched]
        now = datetime.now(UTC)
        until = document.setdefault("until", now + timedelta(seconds=settle))
        document["state"] = "open" if touched else SETTLING if now < until else "done"
        document["due"] = min(until, now + LOOK_AGAIN)
        await means.inbox.save(tx, "merges", [document])
        return len(touched)

    count: int = await transact(body)
    return count
