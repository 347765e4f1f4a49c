"""Who sees and changes what, on every path: expected from the tables written by hand, asked of the exchange on a real database.

What a caller may not know of must be answered exactly as an id that was never used: status, headers and body. And whatever is answered, on
every page, may hold only resources (each known by its tag) that the caller may read or search.
"""

import json
import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import pytest_asyncio

from fhir_server.context import Grant, Reply
from fhir_server.interactions import access
from fhir_server.security.admission import admit
from fhir_server.security.reach import sharing
from fhir_server.security.scopes import rights_of
from fhir_server.store.embedded import Embedded
from fhir_server.store.mongo.store import open_store
from tests.security.matrix.paths import PATHS, Asked
from tests.security.matrix.table import Actor, Row, actors, rows, verdict
from tests.security.matrix.world import Instance, instances, member_rows
from tests.server.rest.calls import Exchange, exchange_on

pytestmark = pytest.mark.asyncio(loop_scope="module")
TAG = re.compile(r'"tag-([A-Za-z0-9.-]+)"')
STAMP = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+Z|[0-9a-f]{8}-[0-9a-f-]{27}")
GHOST = "ghost"
BROAD = ("read", "head-of-version", "search", "history", "in-compartment")
DEEP_TYPES = ("Observation", "Device", "Practitioner", "Group", "Bundle", "Binary", "Appointment")
BROAD_ACTORS = ("patient-all", "patient-write-v1", "user-patient", "user-related", "user-staff-read", "staff-launched", "malformed")
QUICK_TYPES = ("Observation", "Device", "Practitioner")
QUICK_ACTORS = ("patient-all", "patient-lab", "user-related", "staff-launched", "malformed")
WRITING = frozenset("cud")


@dataclass
class World:
    """The exchange under test and what is stored in it."""

    admin: Exchange
    stored: dict[str, Instance]
    callers: dict[str, Exchange] = field(default_factory=dict)
    ghosts: dict[tuple[str, str, str, str], tuple[str, str]] = field(default_factory=dict)
    cases: int = 0
    wrong: list[str] = field(default_factory=list)


async def store_world(admin: Exchange, found: list[Instance]) -> World:
    """Store the resources and those that users are."""
    for res in (
        {"resourceType": "RelatedPerson", "id": "mother", "patient": {"reference": "Patient/mine"}, "active": True},
        {"resourceType": "RelatedPerson", "id": "former", "patient": {"reference": "Patient/mine"}, "period": {"end": "2020-01-01"}},
    ):
        assert (await admin("PUT", f"{res['resourceType']}/{res['id']}", res)).status == 201
    for one in found:
        reply = await admin("PUT", f"{one.rtype}/{one.rid}", one.res())
        assert reply.status == 201, (one, reply)
    return World(admin, {one.rid: one for one in found})


async def caller(world: World, actor: Actor) -> Exchange:
    """The exchange as this actor reaches it, admitted as by the door."""
    if actor.name not in world.callers:
        ctx = world.admin.ctx
        rights = rights_of(actor.scopes, ctx.spec.types, actor.patient, actor.user)
        grant = Grant(actor.name, actor.name, rights, patient=actor.patient, user=actor.user)
        world.callers[actor.name] = Exchange(await admit(replace(ctx, grant=grant)))
    return world.callers[actor.name]


async def judge(world: World, actor: Actor, row: Row, instance: Instance) -> None:
    """One case: the answer, what it shows, and (hidden) that it is that of an id never used."""
    world.cases += 1
    expected = verdict(actor, row, instance)
    asked = Asked(await caller(world, actor), instance, instance.rid)
    answer = await PATHS[row.name](asked)
    what = f"{actor.name} {row.name} {instance.rtype}/{instance.rid}: "
    if answer != row.answers[expected]:
        world.wrong.append(f"{what}{answer}, expected {row.answers[expected]} ({expected})")
    world.wrong += [what + problem for problem in shown_too_much(world, actor, asked.replies)]
    twin = expected == "hidden" and row.name not in ("create", "history-of-all")
    if twin and text_of(asked, instance.rid) != await ghost(world, actor, row, instance):
        world.wrong.append(f"{what}differs from what an unused id answers")
    if WRITING & set(row.needs):
        await restore(world, instance, expected, row)


def shown_too_much(world: World, actor: Actor, replies: list[Reply]) -> list[str]:
    """Resources in any reply that the actor may neither read nor search."""
    found = {rid for reply in replies if reply.res is not None for rid in TAG.findall(json.dumps(reply.res, default=str))}
    known = [world.stored[rid] for rid in found if rid in world.stored]
    return [f"shows {one.rtype}/{one.rid}" for one in known if not set("rs") & set(actor.may(one))]


def text_of(asked: Asked, rid: str) -> str:
    """The replies of a case without its id and moments."""
    told = [[reply.status, dict(reply.headers), reply.res] for reply in asked.replies]
    return STAMP.sub("*", json.dumps(told, default=str, sort_keys=True).replace(rid, GHOST))


async def ghost(world: World, actor: Actor, row: Row, instance: Instance) -> str:
    """What an unused id of this type answers to this actor."""
    key = (actor.name, row.name, instance.rtype, instance.owner)
    if key not in world.ghosts:
        rid = f"never-{uuid.uuid4().hex[:20]}"
        nobody = Instance(instance.rtype, rid, instance.relation, instance.owner, instance.content)
        asked = Asked(await caller(world, actor), nobody, rid)
        await PATHS[row.name](asked)
        world.ghosts[key] = text_of(asked, rid), rid
    return world.ghosts[key][0]


async def restore(world: World, instance: Instance, expected: str, row: Row) -> None:
    """What a case may have changed is set right again; what it may not have changed is looked at."""
    found = (await world.admin("GET", f"{instance.rtype}/{instance.rid}")).status
    deleted = expected == "allowed" and row.answers["allowed"] == "204"
    if found != (410 if deleted else 200):
        world.wrong.append(f"{row.name} {instance.rtype}/{instance.rid} ({expected}): afterwards a read answers {found}")
    if found == 410:
        await world.admin("PUT", f"{instance.rtype}/{instance.rid}", instance.res())
    if "c" in row.needs:
        rows_ = (await world.admin("GET", f"{instance.rtype}?_tag=tag-{instance.rid}&_elements=id")).res["entry"]
        for rid in {one["resource"]["id"] for one in rows_} - {instance.rid}:
            await world.admin("DELETE", f"{instance.rtype}/{rid}")


def told(world: World) -> None:
    """Fail with what was wrong, each kind once."""
    kinds = Counter(one.split(" ")[1] + ": " + one.partition(": ")[2] for one in world.wrong)
    assert not world.wrong, f"{len(world.wrong)} of {world.cases}:\n" + "\n".join(
        [*world.wrong[:40], *(f"{n} x {k}" for k, n in kinds.most_common(30))]
    )
    print(f"{world.cases} cases")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def exchange(mongod: Embedded) -> AsyncIterator[Exchange]:
    name = f"matrix_{uuid.uuid4().hex[:12]}"
    opened = await open_store(mongod.uri, name=name, transaction_seconds=10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(access, "QUIET", 1e-6)  # thousands of answers that say "not there": their time is another test's
        yield exchange_on(opened, validation="off", secret="matrix")
    await opened.client.drop_database(name)
    await opened.close()


async def test_members_are_those_of_the_published_definition(exchange: Exchange) -> None:
    """The hand-written list against the standard's: each parameter of each type, `patient` standing for the reference it restricts."""
    spec = exchange.ctx.spec
    written = {(rtype, code) for rtype, code, _ in member_rows() if rtype not in sharing()["beside"]}
    published = {(rtype, code) for rtype, codes in spec.compartments["Patient"].items() for code in codes}
    assert written <= published
    same = {("Invoice", "patient"), ("MedicationAdministration", "subject"), ("MedicationDispense", "patient")}  # another name for one that is listed
    assert published - written <= same | {("Device", "patient")}


async def test_quick(exchange: Exchange) -> None:
    """A few types and actors on every path."""
    chosen = [one for one in instances() if one.rtype in QUICK_TYPES or one.rtype == "Patient"]
    world = await store_world(exchange, chosen)
    for actor in actors():
        if actor.name in QUICK_ACTORS:
            for row in rows().values():
                for instance in chosen:
                    if instance.rtype in QUICK_TYPES and possible(row, instance):
                        await judge(world, actor, row, instance)
    assert world.cases >= 1500
    told(world)


def possible(row: Row, instance: Instance) -> bool:
    """False for what cannot be asked: a compartment search for a type that is no member."""
    return not row.name.startswith("in-compartment") or (bool(instance.owner) and instance.rtype not in (*sharing()["beside"], "Patient"))


@pytest.mark.slow
async def test_whole(exchange: Exchange, mongod: Embedded) -> None:
    """Everything: all resources on the common paths, the deep types on every path, all actors."""
    found = instances()
    opened = await open_store(mongod.uri, name=f"whole_{uuid.uuid4().hex[:12]}", transaction_seconds=10)
    world = await store_world(exchange_on(opened, validation="off", secret="matrix"), found)
    table = rows()
    for actor in (one for one in actors() if one.name in BROAD_ACTORS):
        for instance in found:
            for name in BROAD:
                if possible(table[name], instance):
                    await judge(world, actor, table[name], instance)
    deep: list[Any] = [one for one in found if one.rtype in DEEP_TYPES]
    for actor in actors():
        for row in table.values():
            for instance in deep:
                if possible(row, instance) and (row.name != "history-of-all" or instance.rtype == "Observation"):
                    await judge(world, actor, row, instance)
    await opened.client.drop_database(opened.database.name)
    await opened.close()
    assert world.cases >= 20_000
    told(world)
