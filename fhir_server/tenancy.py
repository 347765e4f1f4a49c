"""The tenants of one worker, kept in step with the register: opened before the worker serves, and within seconds when the operator adds, changes or disables one.

Each is a `Part` over a database of its own; the worker's doors find it by path (`web/front.py`) and by sender (`feed/routing.py`). With none registered there
is nothing here but a look at the register every EVERY seconds.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from conformance.outcome import Refusal
from conformance.shelf import installed
from conformance.spec import Spec
from fhir_server.beside import beside
from fhir_server.feed import later, worker
from fhir_server.feed.intake import Feed
from fhir_server.feed.receipt import Sender
from fhir_server.feed.routing import OWN, Astray, whose
from fhir_server.interactions.validity import check_settings
from fhir_server.metrics import Metrics, for_tenants, of_tenant
from fhir_server.mllp.sender import send_block
from fhir_server.security import tenants
from fhir_server.security.tenants import Tenant
from fhir_server.security.tokens import read_issuers
from fhir_server.serving import Loaded, Part, Shared, part_of
from fhir_server.sources import Registry, load_registry
from fhir_server.store.mongo import reindexing
from fhir_server.store.mongo.records import MongoRecords
from fhir_server.store.mongo.store import MongoStore, open_beside
from fhir_server.supervisor import check
from fhir_server.terms import terms_of
from fhir_server.web.app import Desk, branch
from fhir_server.web.front import Branch
from terminology.service import Terms

log = logging.getLogger("fhir.tenants")
EVERY = 2.0  # seconds between looks at the register
AT_ONCE = 4  # are opened beside each other
DRAIN_SECONDS, DRAIN_STEP = 15.0, 0.05  # what is in work may end before its store is closed


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A tenant that is served here, as its row was then, and what closes it."""

    tenant: Tenant
    loaded: Loaded
    part: Part
    branch: Branch
    stack: contextlib.AsyncExitStack

    def is_behind(self, row: Tenant) -> bool:
        """True if it has other settings by now, or packages or search parameters for which it needs a Spec of its own."""
        return self.tenant != row or self.loaded.outgrown


@dataclass(slots=True, eq=False)
class Tenancy:
    """One worker's tenants. exchange, store: the exchange's own; branches: what the HTTP door finds; registries: name -> sources, of disabled tenants too
    (None: they cannot be read); push: sends later answers over MLLP; broken: rows that could not be opened, so that each is told once."""

    exchange: Loaded
    store: MongoStore
    uri: str
    shared: Shared
    push: later.Push | None = None
    branches: dict[str, Branch] = field(default_factory=dict)
    registries: dict[str, Registry | None] = field(default_factory=dict)
    held: dict[str, Opened] = field(default_factory=dict)
    broken: dict[str, Tenant] = field(default_factory=dict)
    metrics: list[Metrics] = field(default_factory=list)
    common: list[tuple[Spec, Terms]] = field(default_factory=list)
    closing: "set[asyncio.Task[None]]" = field(default_factory=set)

    async def look(self) -> list[Tenant]:
        """The tenants as they are registered now; from then on their senders' messages are nobody else's. Raises Refusal 503."""
        rows = await tenants.listed(MongoRecords(self.store.database))
        self.registries = {row.name: await asyncio.to_thread(_sources, self.exchange, row) or self.registries.get(row.name) for row in rows}
        return rows

    def feed_for(self, block: bytes, sender: Sender) -> Feed | None:
        """The feed of the tenant whose message this is; None for the exchange's own. Raises Astray: no one's, or of one that is not served."""
        if not self.registries:
            return None
        known = {name: one for name, one in self.registries.items() if one is not None}
        name = whose({**known, OWN: self.exchange.registry}, block, sender.certificate)
        if name == OWN and len(known) == len(self.registries):
            return None
        if name not in self.held:  # also where it may be the sender of one whose sources cannot be read: never another's then
            raise Astray("tenant-closed")
        return self.held[name].part.feed

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What each worker holds while it serves: the tenants open before the first request."""
        await self.agree()
        try:
            async with beside("tenants", self._watch):
                yield
        finally:
            await asyncio.gather(*(self._close(name) for name in list(self.held)), *self.closing)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self.agree()
            except Refusal as refusal:  # the database is away: it is tried again
                log.warning("tenants wait: %s", refusal.status)

    async def agree(self) -> None:
        """Open what is registered and not open, close what is disabled or gone, replace what was given other settings."""
        wanted = {row.name: row for row in await self.look() if not row.disabled}
        await asyncio.gather(*(self._close(name) for name in self.held.keys() - wanted.keys()))
        if wanted and not self.common:
            self.common.append(await asyncio.to_thread(common_of, self.exchange))
            self.metrics.append(for_tenants())
        places = asyncio.Semaphore(AT_ONCE)
        changed = [row for name, row in wanted.items() if name not in self.held or self.held[name].is_behind(row)]
        await asyncio.gather(*(self._take(row, places) for row in changed))

    async def _take(self, row: Tenant, places: asyncio.Semaphore) -> None:
        """Open one, in the place of what it was before; one that cannot be opened is told of once and tried again."""
        async with places:
            try:
                fresh = await self._open(row)
            except (ValueError, OSError, Refusal) as error:
                if self.broken.get(row.name) != row:
                    log.error("a tenant cannot be opened: %s", error, extra={"fields": {"tenant": row.name}})
                self.broken[row.name] = row
                return
        self.broken.pop(row.name, None)
        before = self.held.get(row.name)
        self.held[row.name], self.branches[row.name] = fresh, fresh.branch
        if before is not None:
            leaving = asyncio.get_running_loop().create_task(_drained(before))  # it may be a request of its own that waits for this
            self.closing.add(leaving)
            leaving.add_done_callback(self.closing.discard)
        log.info("tenant opened", extra={"fields": {"tenant": row.name}})

    async def _open(self, row: Tenant) -> Opened:
        async with contextlib.AsyncExitStack() as stack:
            store = await open_beside(self.store, self.uri, row.database)
            stack.push_async_callback(store.close)
            common = None if await reindexing.rows(store.database) else self.common[0]
            loaded = await asyncio.to_thread(load_tenant, self.exchange, row, common)
            part = await part_of(loaded, store, self.shared, of_tenant(self.metrics[0], row.name), row.name)
            for each in part.background:
                await stack.enter_async_context(each)
            stop = asyncio.Event()
            await stack.enter_async_context(beside("the feed", partial(worker.run, part.feed, stop, self._push, send_block), stop))
            desks: dict[str, Desk] = {**part.desks, "packages": partial(self._packages, row.name, part.desks["packages"])}
            return Opened(row, loaded, part, branch(part.services, part.receive_v2, desks), stack.pop_all())

    async def _packages(self, name: str, desk: Desk, method: str, path: tuple[str, ...], query: Mapping[str, str], body: bytes, who: str) -> Any:
        """The packages desk; the first package of a tenant counts when it is answered."""
        answer = await desk(method, path, query, body, who)
        one = self.held.get(name)
        if one is not None and one.loaded.outgrown:
            await self._take(one.tenant, asyncio.Semaphore(1))
        return answer

    async def _push(self, connection: str, block: bytes) -> bool:
        return self.push is not None and await self.push(connection, block)

    async def _close(self, name: str) -> None:
        self.branches.pop(name, None)
        await _drained(self.held.pop(name))
        log.info("tenant closed", extra={"fields": {"tenant": name}})


async def _drained(one: Opened) -> None:
    """Close what one tenant uses, when its requests have been answered or have had their time."""
    deadline = asyncio.get_running_loop().time() + DRAIN_SECONDS
    while one.branch.busy and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - requests count themselves, nothing tells of the last
        await asyncio.sleep(DRAIN_STEP)
    await one.stack.aclose()


def common_of(exchange: Loaded) -> tuple[Spec, Terms]:
    """R4 alone and what the operator loaded, compiled once for all tenants that have nothing of their own on top; no sender's tables, no packages."""
    spec = Spec(exchange.spec.tables)
    return spec, terms_of(exchange.settings, spec)


def load_tenant(exchange: Loaded, tenant: Tenant, common: tuple[Spec, Terms] | None = None) -> Loaded:
    """What a tenant's part is made of: its own settings, packages, issuers and sources; the tables and the loaded code systems are the exchange's.

    common: what is used instead of a Spec and terms of its own, unless it has packages, code policies or tables of its own. A Spec is by far the largest
    thing that a tenant has in memory (up to 27 MB when every type was used). Raises ValueError naming the setting that is wrong.
    """
    settings = tenant.settings(exchange.settings)
    check(settings)
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    spec = Spec(exchange.spec.tables)
    for path in installed(settings.data_dir / "packages"):
        spec = spec.with_package(path)
    check_settings(settings, spec.types)
    registry = load_registry(settings.sources)
    senders = {source.name: source.tables for source in registry.sources if source.tables}
    issuers = read_issuers(settings.issuers)
    if common is None or spec.packages:
        return Loaded(settings, spec, terms_of(settings, spec, senders), issuers, registry)
    plain, loaded = common
    as_they_are = not senders and (settings.v2_tables, settings.terminology_policy) == (
        exchange.settings.v2_tables,
        exchange.settings.terminology_policy,
    )
    terms = loaded.apart() if as_they_are else terms_of(settings, plain, senders)
    return Loaded(settings, plain, terms, issuers, registry, own=spec)


def _sources(exchange: Loaded, tenant: Tenant) -> Registry | None:
    """A tenant's sources; None if they cannot be read."""
    try:
        return load_registry(tenant.settings(exchange.settings).sources)
    except ValueError:
        return None
