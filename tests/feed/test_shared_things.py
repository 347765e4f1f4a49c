"""Doctors and places are everybody's: a message that says nothing new of them writes nothing of them, else all messages would wait for each other."""

from typing import Any

from tests.feed.exchange import Exchange, adt, obr, obx, oru, pid, pv1

SHARED = ("Practitioner", "Location", "Organization", "PractitionerRole")


def shared(exchange: Exchange) -> dict[str, Any]:
    """What is stored of shared things: resources with their versions, and all that the feed keeps of them."""
    kept = {key: repr(row) for key, row in exchange.store.tables.of("feed").items() if key.startswith(SHARED)}
    return kept | {f"{rtype}/{rid}": one.vid for (rtype, rid), one in exchange.store.tables.of("res").items() if rtype in SHARED}


async def test_a_ward_its_rooms_and_its_doctors_are_written_once() -> None:
    exchange = Exchange()
    order = obr().replace("|||F", "|||F", 1) + "|" * 3 + "77^WELBY^MARCUS^^^^^^HOSP"
    for number in range(3):
        doctor = "|" * 3 + "78^KILDARE^JAMES^^^^^^HOSP"
        await exchange.send(adt("A01", pid(str(number)), pv1(f"V{number}", rest="").replace("W^R1^B1", f"W^R1^B1^HOSP{doctor}", 1)))
        await exchange.send(oru(pv1(f"V{number}"), order, obx("K", "1"), patient=pid(str(number))))
        if not number:
            before = shared(exchange)
    assert {key.partition("/")[0] for key in before} >= {"Practitioner", "Location"}
    assert sum(key.startswith("Location/") for key in before) >= 3
    assert shared(exchange) == before
