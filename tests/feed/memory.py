"""A store and inbox in memory with the contract's transactions (snapshot, first committer wins), for scenarios that need speed and order."""

import asyncio
import copy
import itertools
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fhir_server.store import Change, Stored
from fhir_server.store.inbox import ACCEPTED, FAILED, REUSED, SEPARATOR, Busy, Entry


class Clash(Exception):
    """Two transactions wrote the same document."""


class Tables(dict[str, dict[Any, Any]]):
    """kind -> id -> document."""

    def of(self, kind: str) -> dict[Any, Any]:
        return self.setdefault(kind, {})


class MemoryTx:
    """Reads a snapshot, buffers writes, notes what it wrote."""

    def __init__(self, store: "MemoryStore") -> None:
        self.store, self.start, self.writes = store, store.clock, {}
        self.snapshot = {kind: dict(rows) for kind, rows in store.tables.items()}

    def read(self, kind: str, id: Any) -> Any:
        return self.writes[(kind, id)] if (kind, id) in self.writes else self.snapshot.get(kind, {}).get(id)

    def rows(self, kind: str) -> dict[Any, Any]:
        rows = dict(self.snapshot.get(kind, {}))
        rows.update({id: value for (of, id), value in self.writes.items() if of == kind})
        return {id: value for id, value in rows.items() if value is not None}

    def write(self, kind: str, id: Any, value: Any) -> None:
        self.writes[(kind, id)] = value if isinstance(value, Entry) else copy.deepcopy(value)

    def commit(self) -> None:
        if any(self.store.written.get(key, 0) > self.start for key in self.writes):
            raise Clash
        self.store.clock += 1
        for (kind, id), value in self.writes.items():
            self.store.written[(kind, id)] = self.store.clock
            if value is None:
                self.store.tables.of(kind).pop(id, None)
            else:
                self.store.tables.of(kind)[id] = value

    async def guard(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.write("guard", key, True)

    async def get(self, rtype: str, rid: str) -> Stored | None:
        await asyncio.sleep(0)
        return self.read("res", (rtype, rid))

    async def get_many(self, refs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Stored]:
        await asyncio.sleep(0)
        found = {ref: self.read("res", ref) for ref in refs}
        return {ref: stored for ref, stored in found.items() if stored is not None and stored.res is not None}

    async def put(self, changes: Sequence[Change]) -> list[Stored]:
        stored = []
        for change in changes:
            vid = (change.prior.vid if change.prior else 0) + 1
            at = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(milliseconds=self.store.clock)
            res = None if change.res is None else {**change.res, "meta": {"versionId": str(vid), "lastUpdated": self.store.updated}}
            one = Stored(change.rtype, change.rid, vid, at, res, change.method)
            self.write("res", (change.rtype, change.rid), one)
            self.write("old", (change.rtype, change.rid, vid), one)
            stored.append(one)
        return stored


class MemoryStore:
    """As much of the store contract as the feed uses."""

    def __init__(self) -> None:
        self.tables, self.written, self.clock, self.retries = Tables(), {}, 0, 0
        self.updated = "2000-01-01T00:00:00.000Z"  # lastUpdated of what is written: old, so that no event looks older than the store

    async def transact(self, body: Callable[[Any], Awaitable[Any]]) -> Any:
        for _ in range(200):
            tx = MemoryTx(self)
            answer = await body(tx)
            try:
                tx.commit()
            except Clash:
                self.retries += 1
                continue
            return answer
        raise AssertionError("a transaction never got through")

    def all(self, rtype: str) -> list[dict[str, Any]]:
        return [one.res for (of, _), one in self.tables.of("res").items() if of == rtype and one.res is not None]

    def get(self, ref: str) -> dict[str, Any]:
        return self.tables.of("res")[tuple(ref.split("/")[:2])].res

    def versions(self) -> int:
        return len(self.tables.of("old"))


class MemoryInbox:
    """`Inbox` on a MemoryStore."""

    def __init__(self, store: MemoryStore) -> None:
        self.store, self.count = store, itertools.count()

    def _now(self, change: Callable[[MemoryTx], Any]) -> Any:
        tx = MemoryTx(self.store)
        answer = change(tx)
        tx.commit()
        return answer

    def entries(self) -> list[Entry]:
        return sorted(self.store.tables.of("inbox").values(), key=lambda entry: entry.id)

    async def receive(self, entries: Sequence[Entry]) -> list[tuple[Entry, bool]]:
        answers = []
        for entry in entries:
            known = next((one for one in self.entries() if one.key == entry.key), None)
            stem = entry.key.rpartition(SEPARATOR)[0]
            if known is None and entry.control_id and not entry.origin and any(one.key.rpartition(SEPARATOR)[0] == stem for one in self.entries()):
                entry = replace(entry, flags=(*entry.flags, REUSED))
            if known is None:
                self._now(lambda tx, entry=entry: tx.write("inbox", entry.id, entry))
            answers.append((known or entry, known is None))
        return answers

    async def get(self, id: str, *, raw: bool = False) -> Entry | None:
        return self.store.tables.of("inbox").get(id)

    async def claim(self, owner: str, until: datetime, now: datetime, limit: int) -> list[Entry]:
        free = [one for one in self.entries() if one.status == "received" and (one.until is None or one.until < now)][:limit]
        return [entry for one in free if (entry := await self.take(one.id, owner, until, now)) is not None]

    async def take(self, id: str, owner: str, until: datetime | None, now: datetime, *, accepted: bool = False) -> Entry | None:
        entry = self.store.tables.of("inbox")[id]
        if entry.status not in (FAILED | ACCEPTED if accepted else FAILED) and not (
            entry.status == "received" and (entry.until is None or entry.until < now)
        ):
            return None
        taken = replace(entry, status="received", owner=owner, until=until, attempt=entry.attempt + 1)
        self._now(lambda tx: tx.write("inbox", id, taken))
        return taken

    async def extend(self, owner: str, until: datetime, *, only: str = "", besides: Collection[str] = ()) -> int:
        held = [one for one in self.entries() if one.status == "received" and one.owner == owner and one.id not in besides and only in ("", one.id)]
        for one in held:
            self._now(lambda tx, one=one: tx.write("inbox", one.id, replace(one, until=until)))
        return len(held)

    async def release(self, id: str, owner: str) -> None:
        entry = self.store.tables.of("inbox")[id]
        if entry.owner == owner and entry.status == "received":
            self._now(lambda tx: tx.write("inbox", id, replace(entry, owner="", until=None)))

    async def earlier(self, tx: MemoryTx | None, entry: Entry) -> list[Entry]:
        rows = (tx or MemoryTx(self.store)).rows("inbox").values()
        return sorted(
            (one for one in rows if one.status == "received" and one.id < entry.id and set(one.order) & set(entry.order)), key=lambda one: one.id
        )

    async def finish(self, tx: MemoryTx | None, entry: Entry, changes: Mapping[str, Any]) -> None:
        def change(one: MemoryTx) -> None:
            current = one.read("inbox", entry.id)
            if (current.status, current.owner, current.attempt) != ("received", entry.owner, entry.attempt):
                raise Busy
            one.write("inbox", entry.id, replace(current, **changes))

        if tx is None:
            self._now(change)
        else:
            change(tx)

    async def claim_due(self, id: str, until: datetime, now: datetime) -> bool:
        entry = self.store.tables.of("inbox")[id]
        if not entry.due or (entry.until is not None and entry.until >= now):
            return False
        await self.mark(id, {"until": until})
        return True

    async def mark(self, id: str, changes: Mapping[str, Any]) -> None:
        self._now(lambda tx: tx.write("inbox", id, replace(tx.read("inbox", id), **changes)))

    async def search(self, filters: Mapping[str, Any], *, after: str = "", limit: int = 50, newest_first: bool = True) -> list[Entry]:
        rows = sorted(self.entries(), key=lambda entry: entry.id, reverse=newest_first)
        plain = {name: value for name, value in filters.items() if name in ("source", "status", "event", "control_id", "due", "origin")}
        rows = [one for one in rows if all(getattr(one, name) in (value if isinstance(value, list) else [value]) for name, value in plain.items())]
        if "order" in filters:
            rows = [one for one in rows if filters["order"] in one.order]
        if "ref" in filters:
            rows = [one for one in rows if any(ref.startswith(filters["ref"] + "/_history/") for ref in one.refs)]
        return [one for one in rows if not after or (one.id < after if newest_first else one.id > after)][:limit]

    async def waiting(self) -> dict[str, datetime]:
        return {one.source: one.received for one in reversed(self.entries()) if one.status == "received"}

    async def summary(self, since: datetime) -> list[dict[str, Any]]:
        groups: dict[tuple[str, str], list[Entry]] = {}
        for one in self.entries():
            groups.setdefault((one.source, one.status), []).append(one)
        return [
            {
                "source": source,
                "status": status,
                "count": len(rows),
                "oldest": rows[0].received,
                "newest": rows[-1].received,
                "recent": sum(row.received >= since for row in rows),
            }
            for (source, status), rows in groups.items()
        ]

    async def load(self, tx: MemoryTx | None, kind: str, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        await asyncio.sleep(0)
        found = {id: (tx or MemoryTx(self.store)).read(kind, id) for id in ids}
        return {id: copy.deepcopy(row) for id, row in found.items() if row is not None}

    async def beginning(self, tx: Any, kind: str, prefix: str, limit: int) -> list[dict[str, Any]]:
        rows = (tx or MemoryTx(self.store)).rows(kind)
        return [copy.deepcopy(row) for id, row in sorted(rows.items()) if id.startswith(prefix)][:limit]

    async def find(
        self, tx: MemoryTx | None, kind: str, name: str, values: Sequence[Any], limit: int = 1000, *, after: str = ""
    ) -> list[dict[str, Any]]:
        def holds(row: Any, path: list[str]) -> bool:
            if isinstance(row, list):
                return any(holds(one, path) for one in row)
            return row in values if not path else isinstance(row, dict) and path[0] in row and holds(row[path[0]], path[1:])

        rows = (tx or MemoryTx(self.store)).rows(kind)
        return [copy.deepcopy(row) for id, row in sorted(rows.items()) if id > after and holds(row, name.split("."))][:limit]

    async def save(self, tx: MemoryTx | None, kind: str, documents: Sequence[dict[str, Any]]) -> None:
        def change(one: MemoryTx) -> None:
            for document in documents:
                one.write(kind, document["_id"], document)

        if tx is None:
            self._now(change)
        else:
            change(tx)

    async def aliases(self, after: int) -> list[tuple[int, str, str]]:
        rows = [row for key, row in self.store.tables.of("feed").items() if key.startswith("alias|")]
        return sorted((row["g"], row["_id"].removeprefix("alias|"), row["ref"]) for row in rows if row["g"] > after)

    async def drop(self, tx: MemoryTx | None, kind: str, ids: Sequence[str]) -> None:
        def change(one: MemoryTx) -> None:
            for id in ids:
                one.write(kind, id, None)

        if tx is None:
            self._now(change)
        else:
            change(tx)
