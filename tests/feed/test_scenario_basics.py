"""Messages through the whole feed: recognised again, answered, kept."""

import asyncio
from typing import Any

import pytest

from conformance.outcome import unavailable
from fhir_server.feed import later, worker
from fhir_server.feed.receipt import SEPARATOR
from mappers.v2.message import parse
from tests.feed.exchange import Exchange, adt, msh, obr, obx, oru, pid, pv1


async def test_an_admission_and_a_result_meet_on_one_patient_and_one_visit() -> None:
    exchange = Exchange()
    assert await exchange.send(adt("A01", pid(), pv1())) == "AA"
    assert await exchange.send(oru(pv1(), obr(), obx("K", "5.1"), obx("NA", "140"))) == "AA"
    assert exchange.one("Patient")["name"][0]["family"] == "SMITH"
    assert exchange.one("Encounter")["status"] == "in-progress"
    report = exchange.one("DiagnosticReport")
    assert len(report["result"]) == len(exchange.all("Observation")) == 2
    assert {res["subject"]["reference"] for res in exchange.all("Observation")} == {f"Patient/{exchange.one('Patient')['id']}"}


async def test_a_resend_of_an_accepted_message_gets_the_stored_answer_and_writes_nothing() -> None:
    exchange = Exchange()
    message = oru(obr(), obx("K", "5.1"))
    first = await exchange.answer(message)
    versions = exchange.store.versions()
    later = message.replace("20240101", "20240101", 1).replace("||ORU", "||ORU").encode()
    again = later.replace(b"|EXCHANGE|HERE|2024", b"|EXCHANGE|HERE|2025", 1) + b"\n"
    assert await exchange.answer(again) == first
    assert exchange.store.versions() == versions
    assert len(exchange.inbox.entries()) == 1


async def test_the_same_control_id_with_another_body_is_processed_and_flagged() -> None:
    exchange = Exchange()
    await exchange.send(oru(obr(), obx("K", "5.1"), control="X1"))
    assert await exchange.send(oru(obr(), obx("K", "5.2"), control="X1")) == "AA"
    assert exchange.one("Observation")["valueString"] == "5.2"
    assert [entry.flags for entry in exchange.inbox.entries()] == [(), ("control-id-reused",)]
    assert exchange.inbox.entries()[1].status == "warning"


async def test_repeating_everything_under_new_control_ids_makes_no_new_version() -> None:
    exchange = Exchange()
    messages = [adt("A01", pid(), pv1(), at="20240101120000"), oru(pv1(), obr(), obx("K", "5.1"), at="20240101130000")]
    for message in messages:
        await exchange.send(message)
    versions = exchange.store.versions()
    for message in messages:
        control = message.split("|")[9]
        assert await exchange.send(message.replace(f"|{control}|", f"|AGAIN{control}|", 1)) == "AA"
    assert exchange.store.versions() == versions


async def test_what_cannot_be_read_is_rejected_and_kept() -> None:
    exchange = Exchange()
    assert await exchange.send("this is no message") == "AR"
    header, _ = msh("ADT^A01", control=" ")
    assert await exchange.send(header + "\r" + pid() + "\r") == "AR"
    assert await exchange.send(msh("ZZZ^Z99")[0] + "\r") == "AR"
    assert await exchange.send(msh("")[0] + "\r") == "AR"
    assert [entry.status for entry in exchange.inbox.entries()] == ["parse-error", "parse-error", "mapping-error", "parse-error"]
    assert exchange.inbox.entries()[0].raw == b"this is no message"
    assert exchange.all("Patient") == []


async def test_an_answer_is_never_answered() -> None:
    exchange = Exchange()
    assert await exchange.answer(msh("ACK^A01")[0] + "\rMSA|AA|1\r") is None
    assert exchange.inbox.entries() == []


async def test_test_messages_are_kept_out_of_production() -> None:
    exchange = Exchange()
    for processing in "TD":
        assert await exchange.send(adt("A01", pid(), pv1()).replace("|P|2.5.1", f"|{processing}|2.5.1")) == "AA"
    assert [entry.status for entry in exchange.inbox.entries()] == ["excluded", "excluded"]
    assert exchange.all("Patient") == []


async def test_unknown_senders_follow_the_policy() -> None:
    for policy, code in (("defer", "AE"), ("refuse", "AR"), ("default", "AA"), ("own", "AA")):
        exchange = Exchange({"unknown": policy})
        assert await exchange.send(adt("A01", pid(), pv1())) == code
        assert [entry.status for entry in exchange.inbox.entries()] == ["deferred" if code != "AA" else "processed"]


async def test_the_same_number_of_two_hospitals_is_two_people_and_namespace_and_oid_are_one() -> None:
    exchange = Exchange()
    await exchange.send(adt("A01", "PID|1||12345||SMITH^JOHN||1970|M", pv1("1"), sender="ADT|NORTH"))
    await exchange.send(adt("A01", "PID|1||12345||SMITH^JOHN||1970|M", pv1("2"), sender="ADT|SOUTH"))
    assert len(exchange.all("Patient")) == 2
    await exchange.send(adt("A08", "PID|1||777^^^HOSP&1.2.3&ISO^MR||LEE^ANN||1980|F"))
    await exchange.send(adt("A08", "PID|1||777^^^HOSP^MR||LEE^ANN||1980|F"))
    await exchange.send(adt("A08", "PID|1||777^^^&1.2.3&ISO^MR||LEE^ANN||1980|F"))
    assert len(exchange.all("Patient")) == 3


async def test_shared_numbers_never_identify() -> None:
    exchange = Exchange()
    await exchange.send(adt("A08", "PID|1||1^^^HOSP^MR~900^^^SSA^SS~F9^^^INS^HC||SMITH^JOHN||1970|M|||||||||A77"))
    await exchange.send(adt("A08", "PID|1||2^^^HOSP^MR~900^^^SSA^SS~F9^^^INS^HC||SMITH^ANNA||1971|F|||||||||A77"))
    assert len(exchange.all("Patient")) == 2


async def test_a_match_whose_demographics_disagree_is_deferred_and_not_written() -> None:
    exchange = Exchange()
    await exchange.send(adt("A01", pid("100", "SMITH^JOHN", "19700102", "M"), pv1()))
    before = exchange.store.versions()
    answer = await exchange.answer(adt("A08", pid("100", "GARCIA^MARIA", "19880505", "F")))
    assert parse(answer).get("MSA-1") == "AE"
    assert b"GARCIA" not in answer
    assert parse(answer).get("ERR-2.1") == "PID"
    assert exchange.store.versions() == before
    assert exchange.inbox.entries()[-1].status == "deferred"
    assert await exchange.send(adt("A08", pid("100", "SMITH-JONES^JOHN", "19700102", "M"))) == "AA"
    trusting = Exchange({"sources": [{"name": "adt", "senders": ["ADT|HOSP"], "conflict": "accept"}]})
    await trusting.send(adt("A01", pid("100", "SMITH^JOHN", "19700102", "M"), pv1()))
    assert await trusting.send(adt("A08", pid("100", "GARCIA^MARIA", "19880505", "F"))) == "AA"


async def test_identifiers_of_two_stored_patients_in_one_message_are_deferred() -> None:
    exchange = Exchange()
    await exchange.send(adt("A08", pid("1")))
    await exchange.send(adt("A08", pid("2", "LEE^ANN", "1980", "F")))
    assert await exchange.send(adt("A08", "PID|1||1^^^HOSP^MR~2^^^HOSP^MR||SMITH^JOHN||19700102|M")) == "AE"


async def test_doctors_places_and_organisations_are_recognised_again() -> None:
    exchange = Exchange()
    doctor = "|||77^WELBY^MARCUS^^^^^^HOSP"
    for visit in ("V1", "V2", "V3"):
        await exchange.send(adt("A01", pid(), f"PV1|1|I|W^R1^B1{doctor.replace('|||', '||||')}" + "|" * 12 + f"{visit}^^^HOSP^VN"))
    assert len(exchange.all("Practitioner")) == 1
    assert len(exchange.all("Location")) == 3
    assert len(exchange.all("Encounter")) == 3
    assert all(res["meta"]["versionId"] == "1" for res in [*exchange.all("Location"), *exchange.all("Practitioner")])


async def test_a_batch_is_answered_by_a_batch() -> None:
    exchange = Exchange()
    body = "FHS|^~\\&|A\rBHS|^~\\&|LAB|HOSP|X|Y|20240101||||B7\r" + adt("A08", pid("1")) + adt("A08", pid("2")) + "BTS|2\rFTS|1\r"
    answer = (await exchange.answer(body)).decode()
    assert [line[:3] for line in answer.split("\r") if line[:3] not in ("MSH", "MSA")] == ["FHS", "BHS", "BTS", "FTS", ""]
    assert answer.count("MSA|AA") == 2
    assert "BTS|2\r" in answer
    assert "BHS|^~\\&|X|Y|LAB|HOSP|" in answer
    assert len(exchange.all("Patient")) == 2


async def test_enhanced_mode_says_ca_at_once_and_the_application_answer_later() -> None:
    exchange = Exchange()
    pushed: list[tuple[str, bytes]] = []

    async def push(connection: str, block: bytes) -> bool:
        pushed.append((connection, block))
        return True

    message = adt("A01", pid(), pv1(), msh_rest="|||AL|AL")
    answer = await exchange.answer(message, connection="c1")
    assert parse(answer).get("MSA-1") == "CA"
    assert exchange.all("Patient") == []
    assert await exchange.answer(message, connection="c1") == answer
    assert await worker.work_once(exchange.feed) == 1
    assert len(exchange.all("Patient")) == 1
    answers = later.Later(exchange.feed, push)
    assert await answers.step() == 1
    assert pushed[0][0] == "c1"
    assert parse(pushed[0][1]).get("MSA-1") == "AA"
    assert await answers.step() == 0
    assert await exchange.answer(message, connection="c2") == answer
    assert await answers.step() == 1
    assert pushed[1] == ("c2", pushed[0][1]), "who sends again waits for both answers"
    assert await answers.step() == 0
    quiet = adt("A08", pid(), msh_rest="|||AL|NE")
    assert parse(await exchange.answer(quiet)).get("MSA-1") == "CA"
    await worker.work_once(exchange.feed)
    assert await answers.step() == 0


async def test_2_9_3_conditions_of_msh_15_and_16_decide_what_is_said() -> None:
    """Enhanced mode holds as soon as one of the two is valued; the other, left empty, asks for nothing."""
    exchange = Exchange()
    good, bad = adt("A08", pid(), msh_rest="|||{}|{}"), msh("ZZZ^Z99", rest="|||{}|{}")[0] + "\r"
    said = {
        ("NE", "AL"): ("AA", "AR"),
        ("NE", "ER"): ("", "AR"),
        ("NE", "SU"): ("AA", ""),
        ("NE", "NE"): ("", ""),
        ("", ""): ("AA", "AR"),
        ("SU", "NE"): ("CA", "CA"),
        ("ER", "NE"): ("", ""),
        ("AL", ""): ("CA", "CA"),
        ("AL", "AL"): ("CA", "CA"),
        ("NE", ""): ("", ""),
        ("", "NE"): ("", ""),
        ("", "AL"): ("AA", "AR"),
        ("", "SU"): ("AA", ""),
        ('""', ""): ("AA", "AR"),
        ("XX", ""): ("AA", "AR"),
    }
    for number, (asked, codes) in enumerate(said.items()):
        for message, code in zip((good, bad), codes):
            assert await exchange.send(message.format(*asked).replace("|M0", f"|{number}M0", 1)) == code, asked


async def test_every_message_is_tied_to_its_resources_by_provenance() -> None:
    exchange = Exchange()
    await exchange.send(adt("A01", pid(), pv1()))
    entry = exchange.inbox.entries()[0]
    record = exchange.one("Provenance")
    assert record["entity"][0]["what"]["identifier"]["value"] == entry.id
    assert [target["reference"] for target in record["target"]] == list(entry.refs[:-1])
    assert entry.key.split(SEPARATOR)[3] == entry.control_id


async def test_a_message_that_fails_unforeseen_does_not_hold_up_those_after_it() -> None:
    exchange = Exchange()
    good = exchange.feed.convert

    def fails(message: object, source: object) -> None:
        raise KeyError("unforeseen")

    exchange.feed.convert = fails
    with pytest.raises(KeyError):
        await exchange.send(adt("A01", pid(), pv1()))
    assert [entry.status for entry in exchange.inbox.entries()] == ["store-error"]
    exchange.feed.convert = good
    assert await exchange.send(adt("A08", pid())) == "AA"


async def test_work_that_is_cancelled_is_given_back() -> None:
    exchange = Exchange()

    def cancelled(message: object, source: object) -> None:
        raise asyncio.CancelledError

    exchange.feed.convert = cancelled
    with pytest.raises(asyncio.CancelledError):
        await exchange.send(adt("A01", pid(), pv1()))
    entry = exchange.inbox.entries()[0]
    assert (entry.status, entry.owner, entry.until) == ("received", "", None)


async def test_a_message_that_was_taken_is_tried_again_until_the_store_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fhir_server.feed.intake.PUT_OFF_SECONDS", 0.0)
    exchange = Exchange()
    transact, away = exchange.store.transact, [True] * 4

    async def failing(body: Any) -> Any:
        if away:
            away.pop()
            raise unavailable("the database cannot be reached now")
        return await transact(body)

    exchange.store.transact = failing  # type: ignore[method-assign]
    assert await exchange.send(adt("A01", pid(), pv1(), msh_rest="|||AL|NE")) == "CA"
    for _ in range(4):
        await worker.work_once(exchange.feed)
        assert exchange.inbox.entries()[-1].status == "received"
    await worker.work_once(exchange.feed)
    assert exchange.inbox.entries()[-1].status == "processed"
    assert len(exchange.all("Patient")) == 1


NUMBERED = (("HOSP", "HOSP&1.2.3&ISO"), ("HOSP&1.2.3&ISO", "HOSP"), ("&1.2.3&ISO", "HOSP&1.2.3&ISO"), ("HOSP&1.2.3&ISO", "&1.2.3&ISO"))


@pytest.mark.parametrize(("first", "then"), NUMBERED)
async def test_a_namespace_and_its_oid_name_one_visit_account_and_doctor_in_any_order(first: str, then: str) -> None:
    exchange = Exchange()
    for authority in (first, then, first, then):
        visit = f"PV1|1|I|||||77^WELBY^MARCUS^^^^^^{authority}" + "|" * 12 + f"V1^^^{authority}^VN"
        await exchange.send(adt("A08", pid(authority=authority, rest="||||||||||" + f"A1^^^{authority}^AN"), visit))
    for rtype in ("Patient", "Encounter", "Account", "Practitioner"):
        assert [one["system"] for one in exchange.one(rtype)["identifier"]] == ["urn:oid:1.2.3"], rtype


@pytest.mark.parametrize(("first", "then"), [("CPOE", "CPOE^1.2.8^ISO"), ("CPOE^1.2.8^ISO", "CPOE")])
async def test_an_order_is_cancelled_by_its_number_under_namespace_or_oid(first: str, then: str) -> None:
    exchange = Exchange()
    for control, authority in (("NW", first), ("CA", then)):
        header, _ = msh("ORM^O01", "CPOE|HOSP")
        await exchange.send("\r".join([header, pid(), f"ORC|{control}|P1^{authority}", f"OBR|1|P1^{authority}||CBC^Count^L"]))
    assert exchange.one("ServiceRequest")["status"] == "revoked"


@pytest.mark.parametrize("other", ["2.9.9", "9.9.9"])  # the second is no OID, and yet another authority
async def test_one_namespace_under_two_oids_is_two_hospitals(other: str) -> None:
    exchange = Exchange()
    for oid, name in (("1.2.3", "SMITH^JOHN"), (other, "SMITH^JIM"), ("1.2.3", "SMITH^JOHN")):
        assert await exchange.send(adt("A08", pid("5", name, authority=f"MRN&{oid}&ISO"))) == "AA"
    assert {one["name"][0]["given"][0]: one["identifier"][0]["system"] for one in exchange.all("Patient")} == {
        "JOHN": "urn:oid:1.2.3",
        "JIM": "urn:oid:2.9.9" if other == "2.9.9" else "urn:id:MRN",
    }
    assert await exchange.send(adt("A08", pid("5", "SMITH^JOHN", authority="MRN"))) == "AE"  # which of the two, a person must say
