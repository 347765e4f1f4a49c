"""Counters of the feed per source, for metrics and alerts: plain numbers of this process; what must survive a restart is in the inbox."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from fhir_server.sources import Registry
from fhir_server.store.inbox import FAILED, Inbox

MAX_SOURCES = 500
RECENT = timedelta(hours=1)


@dataclass(slots=True)
class Statistics:
    """counts: (source, what) -> number, `what` being 'received', 'duplicate', a status of the inbox, or 'answer:AA'.

    observe: called with (source, what) as well, for a metrics library, observe_queue with (source, age in seconds of its oldest unfinished message);
    observe_last with (source, time of its latest message) when the process starts: a feed that fell silent before must not look like one that never was.
    waited: the sources that had one when they were looked at last.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    observe: Callable[[str, str], None] | None = None
    observe_queue: Callable[[str, float], None] | None = None
    observe_last: Callable[[str, float], None] | None = None
    remembered: bool = False
    waited: set[str] = field(default_factory=set)

    def count(self, source: str, what: str) -> None:
        """One more; beyond MAX_SOURCES names of unknown senders the rest counts as one, so that nobody fills memory with names."""
        if (source, what) not in self.counts and len(self.counts) > MAX_SOURCES * 8:
            source = "others"
        self.counts[(source, what)] += 1
        if self.observe is not None:
            self.observe(source, what)

    def rows(self) -> Iterator[tuple[str, str, int]]:
        """(source, what, number) of every counter."""
        for (source, what), number in sorted(self.counts.items()):
            yield source, what, number

    async def look(self, inbox: Inbox, known: Registry) -> None:
        """Tell the age of the oldest unfinished message of each source, 0 where there is none any more; and once what is known from before a restart."""
        now = datetime.now(UTC)
        if self.observe_last is not None and not self.remembered:
            for one in known.sources:
                for entry in await inbox.search({"source": one.name}, limit=1):
                    self.observe_last(one.name, entry.received.replace(tzinfo=UTC).timestamp())
            self.remembered = True
        ages = {source: (now - oldest).total_seconds() for source, oldest in (await inbox.waiting()).items()}
        if self.observe_queue is not None:
            for source in self.waited | ages.keys():
                self.observe_queue(source, ages.get(source, 0.0))
        self.waited = set(ages)


async def alerts(inbox: Inbox, registry: Registry, now: datetime | None = None) -> list[dict[str, Any]]:
    """Per source what an operator should see: silent (minutes since the last message beyond the limit), queue age in seconds, error rate of the last hour."""
    moment = now or datetime.now(UTC)
    recent: dict[str, list[int]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for one in await inbox.summary(moment - RECENT):
        share = recent.setdefault(one["source"], [0, 0])
        share[0] += one["recent"] if one["status"] in FAILED else 0
        share[1] += one["recent"]
        row = rows.setdefault(one["source"], {"source": one["source"], "messages": 0, "failed": 0, "waiting": 0, "queue_seconds": 0.0, "last": None})
        row["messages"] += one["count"]
        row["failed"] += one["count"] if one["status"] in FAILED else 0
        row["last"] = max(filter(None, (row["last"], one["newest"])))
        if one["status"] == "received":
            row["waiting"] += one["count"]
            row["queue_seconds"] = (moment - one["oldest"]).total_seconds()
    limits = {source.name: source.silent_minutes for source in registry.sources}
    for name in limits:
        rows.setdefault(name, {"source": name, "messages": 0, "failed": 0, "waiting": 0, "queue_seconds": 0.0, "last": None})
    for name, row in rows.items():
        silent = (moment - row["last"]).total_seconds() / 60 if row["last"] else float("inf")
        row["silent"] = bool(limits.get(name)) and silent > limits[name]
        failed, all_of_them = recent.get(name, [0, 0])
        row["error_rate"] = failed / all_of_them if all_of_them else 0.0
    return [rows[name] for name in sorted(rows)]
