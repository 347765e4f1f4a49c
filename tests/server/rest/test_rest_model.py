"""Random interactions against a model of what R4 says should happen: versions, statuses, preconditions, conditions, transactions."""

import random
from typing import Any

import pytest

from tests.server.rest.calls import Exchange

pytestmark = pytest.mark.asyncio(loop_scope="module")
IDS, VALUES = ("a", "b", "c"), ("1", "2")
Versions = dict[str, list[dict[str, Any] | None]]


def body(rid: str, value: str) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": rid, "identifier": [{"system": "http://h", "value": value}]}


class Model:
    """What the exchange should hold: per id its versions, None for a deletion."""

    def __init__(self) -> None:
        self.versions: Versions = {}

    def live(self, rid: str) -> dict[str, Any] | None:
        return self.versions.get(rid, [None])[-1]

    def vid(self, rid: str) -> int:
        return len(self.versions.get(rid, []))

    def write(self, rid: str, res: dict[str, Any] | None) -> None:
        self.versions.setdefault(rid, []).append(res)

    def matching(self, value: str) -> list[str]:
        return [rid for rid in self.versions if (res := self.live(rid)) and res["identifier"][0]["value"] == value]


def put(model: Model, chance: random.Random) -> tuple[tuple[Any, ...], dict[str, str], int]:
    """(request, headers, expected status) of an update, with preconditions now and then."""
    rid, value = chance.choice(IDS), chance.choice(VALUES)
    headers, status = {}, 200 if model.live(rid) else 201
    if chance.random() < 0.4:
        wanted = chance.choice([model.vid(rid), model.vid(rid) + 1, 1])
        headers["if_match"] = f'W/"{wanted}"'
        status = status if model.live(rid) and wanted == model.vid(rid) else 412
    elif chance.random() < 0.3:
        headers["if_none_match"] = "*"
        status = 412 if model.live(rid) else status
    if status != 412:
        model.write(rid, body(rid, value))
    return ("PUT", f"Patient/{rid}", body(rid, value)), headers, status


def delete(model: Model, chance: random.Random) -> tuple[tuple[Any, ...], dict[str, str], int]:
    rid = chance.choice(IDS)
    if model.live(rid):
        model.write(rid, None)
    return ("DELETE", f"Patient/{rid}"), {}, 204


def conditional_put(model: Model, chance: random.Random) -> tuple[tuple[Any, ...], dict[str, str], int]:
    value, rid = chance.choice(VALUES), chance.choice(IDS)
    found = model.matching(value)
    if len(found) > 1:
        status = 412
    elif found:
        status = 200 if found[0] == rid else 400
    else:
        status = 409 if model.live(rid) else 201
    if status in (200, 201):
        model.write(rid, body(rid, value))
    return ("PUT", f"Patient?identifier=http://h|{value}", body(rid, value)), {}, status


def conditional_delete(model: Model, chance: random.Random) -> tuple[tuple[Any, ...], dict[str, str], int]:
    value = chance.choice(VALUES)
    found = model.matching(value)
    for rid in found:
        model.write(rid, None)
    return ("DELETE", f"Patient?identifier=http://h|{value}"), {}, 200 if len(found) > 1 else 204


def transaction(model: Model, chance: random.Random) -> tuple[tuple[Any, ...], dict[str, str], int]:
    """Two updates and a deletion; sometimes one of them cannot be done, and then none is."""
    rids = chance.sample(IDS, 3)
    rows = [{"request": {"method": "PUT", "url": f"Patient/{rid}"}, "resource": body(rid, chance.choice(VALUES))} for rid in rids[:2]]
    rows.append({"request": {"method": "DELETE", "url": f"Patient/{rids[2]}"}})
    fails = chance.random() < 0.4
    if fails:
        rows[1]["request"]["ifMatch"] = 'W/"999"'
    else:
        for row, rid in zip(rows, rids, strict=True):
            if "resource" in row:
                model.write(rid, row["resource"])
            elif model.live(rid):
                model.write(rid, None)
    chance.shuffle(rows)
    return ("POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": rows}), {}, 412 if fails else 200


DEEDS = (put, put, put, delete, conditional_put, conditional_delete, transaction)


async def agrees(rest: Exchange, model: Model) -> None:
    """Every id reads, and every version vreads, as the model says; searches find what is live."""
    for rid in IDS:
        reply = await rest("GET", f"Patient/{rid}")
        assert reply.status == (200 if model.live(rid) else 410 if model.vid(rid) else 404)
        for number, res in enumerate(model.versions.get(rid, []), 1):
            version = await rest("GET", f"Patient/{rid}/_history/{number}")
            assert version.status == (200 if res else 410)
            if res:
                assert version.res["identifier"] == res["identifier"]
                assert version.res["meta"]["versionId"] == str(number)
        assert (await rest("GET", f"Patient/{rid}/_history/{model.vid(rid) + 1}")).status == 404
    for value in VALUES:
        reply = await rest("GET", f"Patient?identifier=http://h|{value}")
        assert sorted(row["resource"]["id"] for row in reply.res.get("entry", [])) == sorted(model.matching(value))


@pytest.mark.parametrize("seed", range(4))
async def test_random_interactions_agree_with_the_model(rest: Exchange, seed: int) -> None:
    chance, model = random.Random(seed), Model()
    for step in range(60):
        request, headers, status = chance.choice(DEEDS)(model, chance)
        reply = await rest(*request, **headers)
        assert reply.status == status, (step, request, headers, status, reply)
        if step % 20 == 19:
            await agrees(rest, model)
