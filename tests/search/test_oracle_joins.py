"""Composites, chains, `_has` and `_filter` against the oracle on raw resources, over all R4 examples.

Parts of composites, references and sets are read from the JSON here; the comparisons are `oracle.py`'s. None of it comes from `fhir_server.search`.
"""

import random
import re

import pytest

from fhir_server.search.schema import part_fields, schema
from tests.search import oracle
from tests.search.test_oracle import World, escaped, texts
from tests.search.world import NOW

LITERAL = re.compile(r"([A-Z]\w+)/([A-Za-z0-9\-.]{1,64})(?:/_history/.*)?")
PLAIN = re.compile(r"[\w:/.|-]+")
COMPARISONS = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb")


@pytest.fixture(scope="module")
def world(mongod):
    made = World(mongod.uri)
    yield made
    made.run(made.store.client.drop_database("oracle"))
    made.run(made.store.close())
    made.runner.close()


def part_values(element, res, expression):
    """What the expression of a component selects below an element."""
    if expression.startswith("%resource."):
        return oracle.values(res, res["resourceType"] + expression.removeprefix("%resource"))
    found = []
    for branch in expression.split(" | "):
        chosen = re.fullmatch(r"(\w+)\.as\((\w+)\)", branch)
        name = chosen[1] + chosen[2][0].upper() + chosen[2][1:] if chosen else branch
        keys = [name] if chosen or name in element else [key for key in element if re.fullmatch(f"{name}[A-Z]\\w*", key)]
        for key in keys:
            inner = element.get(key, [])
            found += inner if isinstance(inner, list) else [inner]
    return found


class Composite:
    """A composite parameter of a type: its components as (kind, expression, codes compared exactly)."""

    def __init__(self, world, rtype, param):
        self.rtype, self.param = rtype, param
        parts = part_fields(world.spec, schema(world.spec, rtype).fields[param.code])
        self.parts = [
            (part.type, expression, not part.folded, part.param.targets) for part, (_, expression) in zip(parts, param.components, strict=True)
        ]

    def elements(self, res):
        """For each base element that has all parts, the values of each."""
        found = [[part_values(one, res, part[1]) for part in self.parts] for one in oracle.values(res, self.param.expression)]
        return [each for each in found if all(each)]

    def query(self, rows, rng):
        """A value made from one element, sometimes with a part of another; None if there is none."""
        holders = [each for res in rows for each in self.elements(res)]
        if not holders:
            return None
        chosen = rng.choice(holders)
        other = rng.choice([chosen, chosen, rng.choice(holders)])
        pieces = [texts(kind, rng.choice((chosen if at == 0 else other)[at]), rng, targets) for at, (kind, _, _, targets) in enumerate(self.parts)]
        return None if any(not one or one.endswith("|") or one[:2] == "ap" for one in pieces) else pieces

    def expected(self, rows, pieces):
        """Ids of the resources with an element in which every part matches."""
        return {res["id"] for res in rows if any(self._holds(each, pieces) for each in self.elements(res))}

    def _holds(self, found, pieces):
        return all(
            oracle.matches(kind, values, "", text, exact_codes=exact, now=NOW, targets=targets)
            for (kind, _, exact, targets), values, text in zip(self.parts, found, pieces, strict=True)
        )


def test_composites_match_within_one_element(world):
    rng, asked, wrong, kinds = random.Random(11), 0, [], set()
    for rtype, rows in sorted(world.resources.items()):
        for code, param in sorted(world.spec.params(rtype).items()):
            if param.type != "composite":
                continue
            composite = Composite(world, rtype, param)
            for _ in range(25):
                pieces = composite.query(rows, rng)
                if pieces is None:
                    continue
                database, by_match = world.run(world.by_database(rtype, [(code, "$".join(pieces))]))
                expected = composite.expected(rows, pieces)
                if not database == by_match == expected:
                    wrong.append(f"{rtype}?{code}={'$'.join(pieces)}: {sorted(database)[:4]} instead of {sorted(expected)[:4]}")
                asked += 1
                kinds.add((rtype, code))
    assert not wrong, f"{len(wrong)} of {asked}:\n" + "\n".join(wrong[:30])
    assert asked > 200
    assert len(kinds) > 8


def links(world):
    """(type, reference parameter, target type) of the examples, with the pairs (id, target id)."""
    there = {(rtype, res["id"]) for rtype, rows in world.resources.items() for res in rows}
    found = {}
    for rtype, param in world.params:
        if param.type == "reference":
            for res in world.resources[rtype]:
                for value in oracle.values(res, param.expression):
                    literal = LITERAL.fullmatch(value.get("reference", "") if isinstance(value, dict) else "")
                    if literal and literal.groups() in there and (not param.targets or literal[1] in param.targets):
                        found.setdefault((rtype, param.code, literal[1]), set()).add((res["id"], literal[2]))
    return sorted((key, sorted(pairs)) for key, pairs in found.items())


def criterion(world, rtype, rids, rng):
    """(parameter, text, ids that match) made from a value of one of these resources."""
    held = [
        (param, value)
        for kind, param in world.params
        if kind == rtype and param.type in ("token", "string", "date", "quantity")
        for res in world.resources[rtype]
        if res["id"] in rids
        for value in oracle.values(res, param.expression)
    ]
    if not held:
        return None
    param, value = rng.choice(held)
    text = texts(param.type, value, rng, param.targets)
    return None if not text or not text.strip() else (param.code, text, world.by_oracle(rtype, param, "", text))


def test_chains_and_reverse_chains(world):
    rng, wrong, asked = random.Random(12), [], 0
    for (rtype, code, target), pairs in links(world):
        for _ in range(2):
            forward = criterion(world, target, {pointed for _, pointed in pairs}, rng)
            if forward is not None:
                name, text, hits = forward
                expected = {rid for rid, pointed in pairs if pointed in hits} | holding(world, rtype, code, target, name, text)
                database, by_match = world.run(world.by_database(rtype, [(f"{code}:{target}.{name}", text)]))
                wrong += [] if database == by_match == expected else [f"{rtype}?{code}:{target}.{name}={text}: {database ^ expected}"]
            back = criterion(world, rtype, {rid for rid, _ in pairs}, rng)
            if back is not None:
                name, text, hits = back
                expected = {pointed for rid, pointed in pairs if rid in hits}
                database, by_match = world.run(world.by_database(target, [(f"_has:{rtype}:{code}:{name}", text)]))
                wrong += [] if database == by_match == expected else [f"{target}?_has:{rtype}:{code}:{name}={text}: {database ^ expected}"]
            asked += 2
    assert not wrong, f"{len(wrong)} of {asked}:\n" + "\n".join(wrong[:30])
    assert asked > 200


def holding(world, rtype, code, target, name, text):
    """Ids of resources whose reference points at a contained resource that matches: chains look inside."""
    pointer, asked = world.spec.params(rtype)[code], world.spec.params(target)[name]
    exact, found = world.exact(target, name), set()
    for res in world.resources[rtype]:
        pointed = {value.get("reference") for value in oracle.values(res, pointer.expression) if isinstance(value, dict)}
        for inner in res.get("contained", ()):
            if inner["resourceType"] == target and f"#{inner.get('id')}" in pointed:
                values = oracle.values(inner, asked.expression)
                if oracle.matches(asked.type, values, "", text, exact_codes=exact, now=NOW, targets=asked.targets):
                    found.add(res["id"])
    return found


def comparison(world, rtype, rng):
    """(filter text, ids that match) of one `param op value`."""
    param = rng.choice([param for kind, param in world.params if kind == rtype and param.type in ("token", "string", "date", "number")])
    held = [value for res in world.resources[rtype] for value in oracle.values(res, param.expression)]
    text = texts(param.type, rng.choice(held), rng) if held else None
    if not text:
        return None
    if param.type == "string":
        bare = oracle.plain(text)
        found = {
            "sw": lambda one: oracle.folded(one).startswith(oracle.folded(bare)),
            "co": lambda one: oracle.folded(bare) in oracle.folded(one),
            "ew": lambda one: oracle.folded(one).endswith(oracle.folded(bare)),
            "eq": lambda one: oracle.folded(one) == oracle.folded(bare),
        }
        operator = rng.choice(sorted(found))
        quoted = bare.replace("\\", "\\\\").replace('"', '\\"')
        hits = {
            res["id"]
            for res in world.resources[rtype]
            if any(found[operator](one) for value in oracle.values(res, param.expression) for one in oracle.strings(value))
        }
        return f'{param.code} {operator} "{quoted}"', hits
    if not PLAIN.fullmatch(text):
        return None
    if param.type == "token":
        return f"{param.code} eq {text}", world.by_oracle(rtype, param, "", text)
    operator, bare = rng.choice(COMPARISONS), text[2:] if text[:2] in oracle.PREFIXES else text
    return f"{param.code} {operator} {bare}", world.by_oracle(rtype, param, "", operator + bare)


def expression(world, rtype, rng, depth=0):
    """A filter of comparisons, groups and negations, and what it finds."""
    shape = rng.choice(["one", "one", "and", "or", "not"]) if depth < 3 else "one"
    if shape == "one":
        return comparison(world, rtype, rng)
    left = expression(world, rtype, rng, depth + 1)
    right = left and (left if shape == "not" else expression(world, rtype, rng, depth + 1))
    if not left or not right:
        return None
    if shape == "not":
        return f"not ({left[0]})", {res["id"] for res in world.resources[rtype]} - left[1]
    joined = left[1] & right[1] if shape == "and" else left[1] | right[1]
    return f"({left[0]}) {shape} ({right[0]})", joined


def test_filters(world):
    rng, wrong, asked = random.Random(13), [], 0
    rtypes = [rtype for rtype in sorted(world.resources) if any(kind == rtype and param.type in ("token", "string") for kind, param in world.params)]
    while asked < 600:
        rtype = rng.choice(rtypes)
        made = expression(world, rtype, rng)
        if made is None:
            continue
        database, by_match = world.run(world.by_database(rtype, [("_filter", made[0])]))
        if not database == by_match == made[1]:
            wrong.append(f"{rtype}?_filter={made[0]}: {sorted(database ^ made[1])[:5]}")
        asked += 1
    assert not wrong, f"{len(wrong)} of {asked}:\n" + "\n".join(wrong[:30])


def test_escapes_are_the_same_everywhere():
    assert oracle.plain(escaped("a,b|c$d\\e")) == "a,b|c$d\\e"
