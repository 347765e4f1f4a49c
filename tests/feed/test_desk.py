"""The inbox as a person works with it."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conformance.outcome import Refusal
from fhir_server.feed import admin, desk, worker
from fhir_server.feed.over_http import hl7v2
from fhir_server.feed.statistics import alerts
from mappers.v2.message import Message, parse
from mappers.v2.problem import Problem
from tests.feed.exchange import Exchange, adt, map_it, obr, obx, oru, pid, pv1


async def ask(exchange: Exchange, method: str, path: str, query: dict[str, str] | None = None, body: bytes = b"") -> Any:
    found = admin.find(method, tuple(path.split("/")))
    assert found is not None
    return json.loads(json.dumps(await found[0](exchange.feed, found[1], query or {}, body, "operator")))


async def test_entries_are_listed_shown_and_filtered() -> None:
    exchange = Exchange()
    await exchange.send(adt("A01", pid(), pv1()))
    await exchange.send("nonsense")
    rows = await ask(exchange, "GET", "inbox")
    assert [row["status"] for row in rows] == ["parse-error", "processed"]
    assert [row["event"] for row in await ask(exchange, "GET", "inbox", {"status": "processed"})] == ["ADT^A01"]
    assert "SMITH" not in json.dumps(rows)
    shown = await ask(exchange, "GET", f"inbox/{rows[1]['id']}")
    assert "SMITH^JOHN" in shown["message"]
    assert "MSA|AA" in shown["answer_text"]
    for query in ({"colour": "red"}, {"status": "lost"}, {"limit": "0"}, {"received_ge": "yesterday"}, {"received_ge": "2024-01-01"}):
        with pytest.raises(Refusal):
            await ask(exchange, "GET", "inbox", query)
    with pytest.raises(Refusal):
        await ask(exchange, "GET", "inbox/unknown")
    assert admin.find("GET", ("nothing",)) is None


async def test_a_failed_message_is_edited_and_resubmitted() -> None:
    exchange = Exchange()
    await exchange.send(adt("A01", pid("100", "SMITH^JOHN", "19700102", "M"), pv1()))
    wrong = adt("A08", pid("100", "GARCIA^MARIA", "19880505", "F"))
    assert await exchange.send(wrong) == "AE"
    failed = exchange.inbox.entries()[-1]
    again = await desk.resubmit(exchange.feed, failed.id)
    assert again["status"] == "deferred"
    done = await desk.resubmit(exchange.feed, failed.id, wrong.replace("|1||100^", "|1||101^").encode(), "operator")
    assert (done["status"], done["origin"], done["flags"]) == ("processed", failed.id, ["edited"])
    assert (await exchange.inbox.get(failed.id)).status == "replaced"
    assert (await exchange.inbox.get(failed.id)).raw == wrong.encode()
    assert exchange.patient("101")["gender"] == "female"
    with pytest.raises(Refusal) as refused:
        await desk.resubmit(exchange.feed, done["id"])
    assert refused.value.status == 409


async def test_a_corrected_message_stays_with_the_source_that_its_connection_named() -> None:
    exchange = Exchange({"sources": [{"name": "north", "certificates": ["north.example"], "authority": "urn:oid:1.2.3"}]})
    wrong = adt("A01", "PID|1||||SMITH^JOHN", sender="ADT|HOSP").replace("\rPID|1||||SMITH^JOHN", "")
    assert await exchange.send(wrong, certificate="north.example") == "AE"
    done = await desk.resubmit(exchange.feed, exchange.inbox.entries()[-1].id, f"{wrong}PID|1||7||SMITH^JOHN\r".encode(), "operator")
    assert (done["source"], exchange.one("Patient")["identifier"][0]["system"]) == ("north", "urn:oid:1.2.3")


async def test_replay_after_a_mapping_change_derives_again_and_does_not_regress() -> None:
    exchange = Exchange()
    await exchange.send(adt("A01", pid(name="OLD^JOHN", rest="|||1 Main St"), pv1(), at="20240101120000"))
    await exchange.send(adt("A08", pid(name="NEW^JOHN"), at="20240102120000"))
    await exchange.send(oru(obr(), obx("K", "5.1"), patient=pid(name="NEW^JOHN")))
    before = exchange.state()

    def changed(message: Message, source: Any) -> Any:
        conversion = map_it(message, source)
        for entry in conversion.bundle["entry"]:
            if entry["resource"]["resourceType"] == "Patient":
                entry["resource"].pop("address", None)
                entry["resource"]["maritalStatus"] = {"text": "mapped"}
        return conversion

    exchange.feed.convert = changed
    rows = await ask(exchange, "POST", "replay", {"source": "ADT.HOSP"})
    assert [row["status"] for row in rows] == ["processed", "processed"]
    patient = exchange.one("Patient")
    assert [row["family"] for row in patient["name"]] == ["NEW"]
    assert patient["maritalStatus"] == {"text": "mapped"}
    assert "address" not in patient, "what the new tables no longer say is taken back"
    exchange.feed.convert = map_it
    await ask(exchange, "POST", "replay", {"resource": f"Patient/{patient['id']}"})
    assert exchange.state() == before


async def test_a_replay_by_an_unknown_filter_is_refused_and_a_page_of_failed_messages_is_not_its_end() -> None:
    exchange = Exchange()
    for number in range(desk.REPLAY_PAGE + 1):
        await exchange.send(f"MSH|^~\\&|A|B|C|D|20240101||ADT^A08|C{number}|P|2.5\r")
    await exchange.send(adt("A01", pid(), pv1()))
    for query in ({"sorce": "A.B"}, {"limit": "5"}, {"resource": "Patient/1", "source": "A.B"}, {"status": "lost"}):
        with pytest.raises(Refusal):
            await ask(exchange, "POST", "replay", query)
    (row,) = await ask(exchange, "POST", "replay")
    assert (row["event"], row["attempt"]) == ("ADT^A01", 2)
    assert await ask(exchange, "POST", "replay", {"after": row["id"]}) == []


async def test_a_replay_that_fails_forgets_nothing_of_what_the_message_wrote() -> None:
    exchange = Exchange()
    await exchange.send(adt("A01", pid(), pv1()))
    before = (await ask(exchange, "GET", "inbox"))[0]["resources"]

    def broken(message: Message, source: Any) -> Any:
        return replace(map_it(message, source), problems=(Problem("E", "PID^1", "207", "a site table is wrong"),))

    exchange.feed.convert = broken
    (row,) = await ask(exchange, "POST", "replay")
    assert (row["status"], row["resources"]) == ("mapping-error", before)


async def test_what_the_transport_said_of_the_bytes_is_known_later() -> None:
    exchange = Exchange()
    body = adt("A08", pid(name="ИВАНОВ^ИВАН"), sender="ЛАБ|HOSP", msh_rest="|||AL|AL").encode("iso8859_5")
    await hl7v2(exchange.feed, body, {"content-type": "application/hl7-v2; charset=iso-8859-5"})
    await worker.work_once(exchange.feed)
    assert exchange.one("Patient")["name"][0]["family"] == "ИВАНОВ"
    shown = await ask(exchange, "GET", f"inbox/{exchange.inbox.entries()[0].id}")
    assert all("ЛАБ" in shown[name] for name in ("message", "answer_text", "commit_text"))


async def test_messages_and_resources_are_traced_both_ways() -> None:
    exchange = Exchange()
    await exchange.send(adt("A01", pid(), pv1()))
    await exchange.send(adt("A08", pid(name="SMITH-JONES^JOHN")))
    patient = exchange.one("Patient")
    rows = await ask(exchange, "GET", f"messages/Patient/{patient['id']}")
    assert [row["event"] for row in rows] == ["ADT^A08", "ADT^A01"]
    assert f"Patient/{patient['id']}/_history/2" in rows[0]["resources"]


async def test_the_age_of_the_queue_is_told_per_source_until_it_is_empty() -> None:
    exchange = Exchange()
    told: list[tuple[str, float]] = []
    exchange.feed.statistics.observe_queue = lambda source, seconds: told.append((source, seconds))
    await exchange.send(adt("A01", pid(), pv1(), msh_rest="|||AL|NE"))  # enhanced mode: taken, the worker does the rest
    await exchange.feed.statistics.look(exchange.inbox, exchange.feed.registry)
    (source, seconds) = told.pop()
    assert (source, seconds > 0) == ("ADT.HOSP", True)
    await worker.work_once(exchange.feed)
    await exchange.feed.statistics.look(exchange.inbox, exchange.feed.registry)
    await exchange.feed.statistics.look(exchange.inbox, exchange.feed.registry)
    assert told == [("ADT.HOSP", 0.0)]


async def test_after_a_restart_a_silent_feed_is_told_by_when_it_was_heard_last() -> None:
    known = {"sources": [{"name": "adt", "senders": ["ADT|HOSP"]}, {"name": "never", "senders": ["N|N"]}]}
    exchange = Exchange(known)
    await exchange.send(adt("A01", pid(), pv1()))
    told: dict[str, float] = {}
    exchange.feed.statistics.observe_last = told.__setitem__
    await exchange.feed.statistics.look(exchange.inbox, exchange.feed.registry)
    assert told == {"adt": exchange.inbox.entries()[0].received.timestamp()}
    told.clear()
    await exchange.feed.statistics.look(exchange.inbox, exchange.feed.registry)
    assert told == {}


async def test_the_age_of_one_queue_is_told_however_long_another_is() -> None:
    exchange = Exchange()
    for number in range(520):
        await exchange.send(adt("A08", pid(str(number)), msh_rest="|||AL|NE"))
    await exchange.send(adt("A08", pid("x"), sender="LAB|HOSP", msh_rest="|||AL|NE"))
    told: dict[str, float] = {}
    exchange.feed.statistics.observe_queue = told.__setitem__
    await exchange.feed.statistics.look(exchange.inbox, exchange.feed.registry)
    assert set(told) == {"ADT.HOSP", "LAB.HOSP"}
    assert told["ADT.HOSP"] > told["LAB.HOSP"] > 0


async def test_the_error_rate_is_that_of_the_last_hour() -> None:
    exchange = Exchange()
    await exchange.send("nonsense")
    later = datetime.now(UTC) + timedelta(hours=2)
    for now, rate in ((None, 1.0), (later, 0.0)):
        (row,) = await alerts(exchange.inbox, exchange.feed.registry, now)
        assert (row["messages"], row["failed"], row["error_rate"]) == (1, 1, rate)


async def test_sources_are_watched() -> None:
    exchange = Exchange({"sources": [{"name": "quiet", "senders": ["Q|Q"], "silent_minutes": 5}]})
    await exchange.send(adt("A01", pid(), pv1()))
    await exchange.send(adt("A08", pid("100", "GARCIA^MARIA", "19880505", "F")))
    rows = {row["source"]: row for row in await alerts(exchange.inbox, exchange.feed.registry)}
    assert rows["quiet"]["silent"]
    assert rows["ADT.HOSP"]["error_rate"] == 0.5
    assert not rows["ADT.HOSP"]["silent"]
    assert exchange.feed.statistics.counts[("ADT.HOSP", "answer:AE")] == 1
    listed = await ask(exchange, "GET", "sources")
    assert {row["source"] for row in listed} == {"quiet", "ADT.HOSP"}


async def test_messages_come_over_http_with_their_charset() -> None:
    exchange = Exchange()
    body = adt("A01", pid(name="MÜLLER^JÖRG"), pv1())
    answer, media = await hl7v2(exchange.feed, body.encode("latin-1"), {"content-type": "application/hl7-v2; charset=iso-8859-1"})
    assert media == "application/hl7-v2"
    assert parse(answer).get("MSA-1") == "AA"
    assert exchange.one("Patient")["name"][0]["family"] == "MÜLLER"
    for sent, media, status in ((b"x", "application/json", 415), (b"  ", "", 400)):
        with pytest.raises(Refusal) as refused:
            await hl7v2(exchange.feed, sent, {"content-type": media})
        assert refused.value.status == status


async def test_merges_are_listed_and_undone_over_the_table() -> None:
    exchange = Exchange()
    await exchange.send(adt("A01", pid("1"), pv1("V1")))
    await exchange.send(adt("A01", pid("2"), pv1("V2")))
    await exchange.send(adt("A40", pid("1"), "MRG|2^^^HOSP^MR"))
    listed = await ask(exchange, "GET", "merges")
    assert len(listed) == 1
    done = await ask(exchange, "POST", f"merges/{listed[0]['_id']}/undo")
    assert done["restored"] == listed[0]["retired"]
    with pytest.raises(Refusal):
        await ask(exchange, "POST", f"merges/{listed[0]['_id']}/undo")
    with pytest.raises(Refusal):
        await ask(exchange, "POST", "merges/none/undo")
