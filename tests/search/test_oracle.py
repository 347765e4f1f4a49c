"""MongoDB, `query/match.py` and the oracle on raw resources agree on generated queries over all R4 examples."""

import asyncio
import random
from decimal import Decimal
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conformance.spec import load_spec
from fhir_server.query.match import matches
from fhir_server.search import parse
from fhir_server.search.extract import extractor
from fhir_server.search.keys import compartment
from fhir_server.search.resolve import resolve
from fhir_server.search.schema import schema
from fhir_server.store.mongo.store import open_store
from tests.packages import npm_package
from tests.search import oracle
from tests.search.examples import examples
from tests.search.world import BASE, NOW, context, everything, fill

SKIPPED = ("composite", "special")
CONTACTS = ("phone", "fax", "email", "pager", "url", "sms", "other")
OWN = ("_id", "_lastUpdated", "_text", "_content", "_list", "_has", "_type", "_query", "_filter")


class World:
    """All examples in a database, with their index documents and the values that queries are made from."""

    def __init__(self, uri: str):
        self.runner = asyncio.Runner()
        self.spec = load_spec()
        self.resources = {}
        for res in examples(npm_package("hl7.fhir.r4.examples@4.0.1")):
            self.resources.setdefault(res["resourceType"], []).append(res)
        extract = extractor(self.spec, None, BASE)
        self.indexes = {id(res): extract(res) for rows in self.resources.values() for res in rows}
        self.store = self.run(open_store(uri, name="oracle", transaction_seconds=30))
        self.run(fill(self.store, [res for rows in self.resources.values() for res in rows]))
        self.ctx = context(self.store)
        self.params = [
            (rtype, param)
            for rtype in sorted(self.resources)
            for code, param in sorted(self.spec.params(rtype).items())
            if code not in OWN and param.expression and param.type not in SKIPPED and code != "phonetic"
        ]

    def run(self, coroutine):
        return self.runner.run(coroutine)

    def exact(self, rtype, code):
        return not schema(self.spec, rtype).fields[code].folded

    async def by_database(self, rtype, pairs):
        clause = await resolve(self.ctx, parse.where(self.ctx, parse.parse(self.ctx, rtype, pairs), rtype), everything)
        rows = await self.store.find(rtype, clause, only_ids=True)
        by_match = {res["id"] for res in self.resources[rtype] if matches(clause, self.indexes[id(res)], rid=res["id"])}
        return {row.rid for row in rows}, by_match

    def by_oracle(self, rtype, param, modifier, text):
        exact = self.exact(rtype, param.code)
        return {
            res["id"]
            for res in self.resources[rtype]
            if oracle.matches(
                param.type,
                oracle.values(res, param.expression),
                modifier,
                text,
                exact_codes=exact,
                now=NOW,
                targets=param.targets,
                families=param.expression.endswith(".family"),
            )
        }


@pytest.fixture(scope="module")
def world(mongod):
    made = World(mongod.uri)
    yield made
    made.run(made.store.client.drop_database("oracle"))
    made.run(made.store.close())
    made.runner.close()


def escaped(text: str) -> str:
    return "".join("\\" + char if char in ",|$\\" else char for char in text)


def texts(kind: str, value, rng: random.Random, targets: tuple[str, ...] = ()) -> str | None:
    """A search value made from a value of the data, or near it."""
    if kind == "token":
        pairs = oracle.codings(value)
        if not pairs:
            return None
        system, code = rng.choice(pairs)
        contact = isinstance(value, dict) and value.get("system") in CONTACTS  # no system may be asked for there
        form = rng.choice(["code", "case"] if contact else ["code", "both", "system", "none", "case"])
        return {
            "code": escaped(code),
            "both": f"{escaped(system)}|{escaped(code)}",
            "system": f"{escaped(system)}|" if system else escaped(code),
            "none": f"|{escaped(code)}",
            "case": escaped(code.swapcase()),
        }[form]
    if kind == "string":
        found = [one for one in oracle.strings(value) if oracle.folded(one)]
        if not found:
            return None
        text = rng.choice(found)
        cut = rng.choice([text, text[: rng.randint(1, len(text))], text.upper(), text[rng.randint(0, len(text) - 1) :]])
        return escaped(cut) if oracle.folded(cut) else escaped(text)
    if kind == "uri":
        return escaped(rng.choice([str(value), str(value).rsplit("/", 1)[0], str(value) + "/more"]))
    if kind == "reference":
        target = value if isinstance(value, str) else value.get("reference", "") if isinstance(value, dict) else ""
        if not target or target.startswith("#") or "?" in target or (isinstance(value, dict) and ":" in target):
            return None
        if target.split("/")[0] not in (targets or load_spec().types):
            return escaped(target) if "/" in target else None
        return escaped(rng.choice([target, target.rsplit("/", 1)[-1]])) if isinstance(value, dict) else escaped(target)
    if kind == "date":
        found = oracle.span(value)
        if not found:
            return None
        moment = rng.choice([one for one in found if oracle.FIRST < one < oracle.LAST]).isoformat(timespec="seconds")
        return rng.choice(["", *oracle.PREFIXES]) + rng.choice(
            [moment[:4], moment[:7], moment[:10], moment.replace("+00:00", "Z"), moment[:16] + "Z"]
        )
    if kind == "number":
        found = oracle.bounds(value)
        return None if not found else rng.choice(["", *oracle.PREFIXES]) + str(rng.choice(found))
    return quantity_text(value, rng)


def quantity_text(value, rng: random.Random) -> str | None:
    unit = value.get("low") or value.get("high") or value.get("origin") or value if isinstance(value, dict) else {}
    if unit.get("value") is None:
        return None
    amount = Decimal(str(unit["value"])) + rng.choice([0, 0, 1, Decimal("0.4")])
    code, system = unit.get("code") or unit.get("currency"), unit.get("system", "urn:iso:std:iso:4217" if "currency" in unit else "")
    tails = ["", "||"]
    if code:
        tails += [f"|{escaped(system)}|{escaped(code)}", f"||{escaped(code)}"]
    if unit.get("unit"):
        tails.append(f"||{escaped(unit['unit'])}")
    return rng.choice(["", *oracle.PREFIXES]) + str(amount) + rng.choice(tails)


MODIFIERS = {
    "token": ["", "", "", "not", "text", "missing"],
    "string": ["", "", "exact", "contains", "missing"],
    "uri": ["", "below", "above", "missing"],
    "reference": ["", "", "missing"],
}


def query(world: World, rtype: str, param, rng: random.Random):
    """(modifier, text) for a parameter, made from a value of some resource; None if no resource has one."""
    holders = [res for res in world.resources[rtype] if oracle.values(res, param.expression)]
    modifier = rng.choice(MODIFIERS.get(param.type, ["", "", "", "missing"]))
    if modifier == "missing":
        return modifier, rng.choice(["true", "false"])
    if not holders:
        return None
    found = []
    for _ in range(rng.choice([1, 1, 1, 2])):
        value = rng.choice(oracle.values(rng.choice(holders), param.expression))
        if modifier == "text":
            shown = (
                value.get("text") or next((one.get("display") for one in value.get("coding", ()) if one.get("display")), None)
                if isinstance(value, dict)
                else None
            )
            text = escaped(shown[: rng.randint(3, 12)]) if shown and oracle.folded(shown[:3]) else None
        else:
            text = texts(param.type, value, rng, param.targets)
        if text is None or not text.strip():
            return None
        found.append(text)
    return modifier, ",".join(found)


def check(world: World, rtype: str, param, modifier: str, text: str) -> None:
    name = f"{param.code}:{modifier}" if modifier else param.code
    database, by_match = world.run(world.by_database(rtype, [(name, text)]))
    assert database == by_match, f"MongoDB and match.py differ: {rtype}?{name}={quote(text)}"
    expected = world.by_oracle(rtype, param, modifier, text)
    assert database == expected, f"{rtype}?{name}={text}: too many {sorted(database - expected)[:5]}, missing {sorted(expected - database)[:5]}"


def test_every_published_parameter_of_the_loaded_types(world):
    """Each parameter is asked with a value of each resource's first values, and finds what the oracle finds."""
    rng = random.Random(4)
    asked, wrong = 0, []
    for rtype, param in world.params:
        for _ in range(2):
            made = query(world, rtype, param, rng)
            try:
                check(world, rtype, param, *(made or ("missing", "true")))
            except AssertionError as error:
                wrong.append(str(error).split("\n")[0])
            asked += 1
    assert not wrong, f"{len(wrong)} of {asked}:\n" + "\n".join(wrong[:40])


def test_compartments_of_all_examples(world):
    """Membership by keys is membership by the published parameters, told by the oracle."""
    for name in ("Patient", "Encounter", "Practitioner", "RelatedPerson", "Device"):
        for rtype, rows in world.resources.items():
            codes = world.spec.compartments[name].get(rtype, ())
            params = [world.spec.param(rtype, code) for code in codes if world.spec.param(rtype, code)]
            members: dict[str, set[str]] = {}
            for res in rows:
                for param in params:
                    for value in oracle.values(res, param.expression):
                        target = value.get("reference", "") if isinstance(value, dict) else ""
                        if target.startswith(name + "/"):
                            members.setdefault(target.split("/")[1], set()).add(res["id"])
            for rid, expected in members.items():
                clause = compartment(world.spec, name, rid, rtype)
                found = {res["id"] for res in rows if matches(clause, world.indexes[id(res)], rid=res["id"])}
                assert found == expected | ({rid} & {res["id"] for res in rows} if rtype == name else set()), (name, rid, rtype)


@settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_generated_queries_agree(world, seed):
    _batch(world, seed, 10)


@pytest.mark.slow
@settings(max_examples=220, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_twenty_thousand_generated_queries_agree(world, seed):
    _batch(world, seed, 100)


def _batch(world: World, seed: int, count: int) -> None:
    rng = random.Random(seed)
    done = 0
    while done < count:
        rtype, param = rng.choice(world.params)
        made = query(world, rtype, param, rng)
        if made is not None:
            check(world, rtype, param, *made)
            done += 1
