"""Codes that no map knows are kept as sent and listed for mapping, once per source."""

from fhir_server.feed import admin
from tests.feed.exchange import Exchange, adt, pid


async def listed(exchange: Exchange, **query: str) -> list[dict[str, str]]:
    found = admin.find("GET", ("unmapped",))
    assert found is not None
    rows: list[dict[str, str]] = await found[0](exchange.feed, {}, query, b"", "admin")
    return rows


async def test_codes_without_a_map_are_listed_once_per_source() -> None:
    exchange = Exchange()
    relative = "NK1|1|DOE^JANE|STEPAUNT^Step aunt^L"
    for sender in ("A|HOSP", "A|HOSP", "B|HOSP"):
        assert await exchange.send(adt("A08", pid(), relative, sender=sender)) == "AA"
    rows = await listed(exchange)
    assert [(row["source"], row["map"], row["code"]) for row in rows] == [
        ("A.HOSP", "Relationship", "STEPAUNT"),
        ("B.HOSP", "Relationship", "STEPAUNT"),
    ]
    assert rows[0]["text"] == "Step aunt"
    assert rows[0]["entry"] == exchange.inbox.entries()[0].id
    assert len(await listed(exchange, source="B.HOSP")) == 1
    (kept,) = exchange.one("Patient")["contact"][0]["relationship"]
    assert kept["coding"][0]["code"] == "STEPAUNT"


async def test_what_is_mapped_is_not_listed() -> None:
    exchange = Exchange()
    await exchange.send(adt("A08", pid(), "NK1|1|DOE^JANE|SPO"))
    assert await listed(exchange) == []
