"""The largest bundles allowed: all or nothing, in time. FHIR_MAX_ENTRIES"""

import pytest

from fhir_server.query.clauses import EVERYTHING
from tests.server.rest.calls import Exchange

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


def entry(number: int) -> dict:
    res = {"resourceType": "Basic", "code": {"text": str(number)}, "identifier": [{"system": "http://h", "value": str(number)}]}
    if number % 3 == 0:
        return {"request": {"method": "POST", "url": "Basic"}, "resource": res}
    if number % 3 == 1:
        return {"request": {"method": "PUT", "url": f"Basic/b{number}"}, "resource": res | {"id": f"b{number}"}}
    return {"request": {"method": "POST", "url": "Basic", "ifNoneExist": f"identifier=http://h|{number}"}, "resource": res}


async def test_5000_entries_of_all_kinds_are_stored_twice_as_they_say(rest: Exchange) -> None:
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry(number) for number in range(5000)]}
    reply = await rest("POST", "", bundle)
    assert reply.status == 200, str(reply.res)[:500]
    assert [row["response"]["status"] for row in reply.res["entry"]] == ["201 Created"] * 5000
    again = await rest("POST", "", bundle)
    assert [row["response"]["status"][:3] for row in again.res["entry"][:6]] == ["201", "200", "200", "201", "200", "200"]
    assert await rest.ctx.store.count("Basic", EVERYTHING) == 5000 + 1667


async def test_5000_entries_of_which_the_last_is_wrong_store_nothing(rest: Exchange) -> None:
    rows = [entry(number) for number in range(4999)]
    rows.append(
        {
            "request": {"method": "PUT", "url": "Basic/last", "ifMatch": 'W/"1"'},
            "resource": {"resourceType": "Basic", "id": "last", "code": {"text": "x"}},
        }
    )
    reply = await rest("POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": rows})
    assert (reply.status, reply.res["issue"][0]["expression"]) == (412, ["Bundle.entry[4999]"])
    assert await rest.ctx.store.count("Basic", EVERYTHING) == 0


async def test_a_batch_of_5000_answers_each(rest: Exchange) -> None:
    rows = [entry(number) if number % 5 else {"request": {"method": "GET", "url": f"Basic/none{number}"}} for number in range(5000)]
    reply = await rest("POST", "", {"resourceType": "Bundle", "type": "batch", "entry": rows})
    assert [row["response"]["status"][:3] for row in reply.res["entry"]] == ["201" if number % 5 else "404" for number in range(5000)]
