"""Merges, moves, links and changes of numbers: each event of the table does what it says, and later messages land where they belong."""

from typing import Any

import pytest

from conformance.outcome import Refusal
from fhir_server.feed import desk, worker
from fhir_server.feed.merge import EVENTS
from fhir_server.store import Change
from tests.feed.exchange import Exchange, adt, obr, obx, oru, pid, pv1


def mrg(number: str = "", account: str = "", visit: str = "") -> str:
    return f"MRG|{number and f'{number}^^^HOSP^MR'}||{account and f'{account}^^^HOSP^AN'}||{visit and f'{visit}^^^HOSP^VN'}"


async def two_patients() -> Exchange:
    """Patient 1 (survivor) and patient 2 (to be retired), each with a visit and a result."""
    exchange = Exchange()
    for number in "12":
        await exchange.send(adt("A01", pid(number), pv1(f"V{number}")))
        await exchange.send(oru(pv1(f"V{number}"), obr(f"F{number}"), obx("K", number), patient=pid(number)))
    return exchange


def subjects(exchange: Exchange) -> set[str]:
    return {res["subject"]["reference"] for rtype in ("Observation", "DiagnosticReport", "Encounter") for res in exchange.all(rtype)}


def by_number(exchange: Exchange, number: str) -> dict[str, Any]:
    found = [res for res in exchange.all("Patient") if res["identifier"][0]["value"] == number]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("event", ["A18", "A30", "A34", "A36", "A39", "A40"])
async def test_a_patient_merge_retires_one_record_and_moves_everything(event: str) -> None:
    exchange = await two_patients()
    account = "ACC2" if event == "A36" else ""
    assert await exchange.send(adt(event, pid("1", rest="|" * 10 + ("ACC1^^^HOSP^AN" if account else "")), mrg("2", account))) == "AA"
    survivor, retired = by_number(exchange, "1"), by_number(exchange, "2")
    assert retired["active"] is False
    assert [(link["other"]["reference"], link["type"]) for link in retired["link"]] == [(f"Patient/{survivor['id']}", "replaced-by")]
    assert [(link["other"]["reference"], link["type"]) for link in survivor["link"]] == [(f"Patient/{retired['id']}", "replaces")]
    assert {(one["value"], one.get("use")) for one in survivor["identifier"]} == {("1", None), ("2", "old")}
    assert subjects(exchange) == {f"Patient/{survivor['id']}"}
    await exchange.send(oru(obr("F3"), obx("NA", "140"), patient=pid("2")))
    assert subjects(exchange) == {f"Patient/{survivor['id']}"}
    assert len(exchange.all("Patient")) == 2


async def test_messages_under_either_number_leave_the_current_and_the_old_number_as_they_are() -> None:
    exchange = await two_patients()
    await exchange.send(adt("A40", pid("1"), mrg("2")))
    for number in "2121":
        assert await exchange.send(adt("A08", pid(number))) == "AA"
        assert [(one["value"], one.get("use")) for one in exchange.patient("1")["identifier"]] == [("1", None), ("2", "old")]


async def test_an_insurance_number_of_the_retired_patient_stays_current() -> None:
    exchange = await two_patients()
    await exchange.send(adt("A08", pid("2") + "|" * 11 + "123-45-6789"))
    await exchange.send(adt("A40", pid("1"), mrg("2")))
    assert {(one["value"], one.get("use")) for one in exchange.patient("1")["identifier"]} == {("1", None), ("2", "old"), ("123-45-6789", None)}


async def test_a_correction_of_a_moved_result_finds_it() -> None:
    exchange = await two_patients()
    await exchange.send(adt("A40", pid("1"), mrg("2")))
    await exchange.send(oru(obr("F2", status="C"), obx("K", "2.5", "C"), patient=pid("2")))
    assert sorted((res["valueString"], res["status"]) for res in exchange.all("Observation")) == [("1", "final"), ("2.5", "corrected")]


async def test_repeating_a_merge_changes_nothing_and_a_cycle_is_refused() -> None:
    exchange = await two_patients()
    await exchange.send(adt("A40", pid("1"), mrg("2")))
    before = {(res["id"], res["meta"]["versionId"]) for res in exchange.all("Patient")}
    assert await exchange.send(adt("A40", pid("1"), mrg("2"))) == "AA"
    assert {(res["id"], res["meta"]["versionId"]) for res in exchange.all("Patient")} == before
    assert await exchange.send(adt("A40", pid("2"), mrg("1"))) == "AE"
    assert by_number(exchange, "1").get("active") is not False


async def test_chains_are_compressed() -> None:
    exchange = await two_patients()
    await exchange.send(adt("A01", pid("3"), pv1("V3")))
    await exchange.send(adt("A40", pid("1"), mrg("2")))
    await exchange.send(adt("A40", pid("3"), mrg("1")))
    last = by_number(exchange, "3")
    assert subjects(exchange) == {f"Patient/{last['id']}"}
    for number in "12":
        links = by_number(exchange, number)["link"]
        assert (f"Patient/{last['id']}", "replaced-by") in [(link["other"]["reference"], link["type"]) for link in links]
        await exchange.send(oru(obr(f"G{number}"), obx("X", number), patient=pid(number)))
    assert subjects(exchange) == {f"Patient/{last['id']}"}
    aliases = {key: row["ref"] for key, row in exchange.store.tables.of("feed").items() if key.startswith("alias|")}
    assert set(aliases.values()) == {f"Patient/{last['id']}"}


async def test_an_unknown_retired_number_is_remembered() -> None:
    exchange = Exchange()
    assert await exchange.send(adt("A40", pid("1"), mrg("99"))) == "AA"
    await exchange.send(oru(obr(), obx("K", "5"), patient=pid("99")))
    assert len(exchange.all("Patient")) == 1


async def test_an_unknown_survivor_is_made() -> None:
    exchange = Exchange()
    await exchange.send(adt("A01", pid("2"), pv1()))
    assert await exchange.send(adt("A40", pid("1"), mrg("2"))) == "AA"
    assert by_number(exchange, "2")["active"] is False
    assert exchange.one("Encounter")["subject"]["reference"] == f"Patient/{by_number(exchange, '1')['id']}"


async def test_a_merge_with_many_references_is_finished_by_the_job_and_can_be_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fhir_server.feed.merge.REWRITE_AT_ONCE", 2)
    exchange = await two_patients()
    for number in range(10):
        await exchange.send(oru(obr(f"G{number}"), obx("K", "1"), patient=pid("2")))
    retired = by_number(exchange, "2")
    before = {
        res["id"]
        for rtype in ("Observation", "DiagnosticReport")
        for res in exchange.all(rtype)
        if res["subject"]["reference"].endswith(retired["id"])
    }
    await exchange.send(adt("A40", pid("1"), mrg("2")))
    survivor = by_number(exchange, "1")
    assert len(subjects(exchange)) == 2
    await exchange.rewrite()
    assert subjects(exchange) == {f"Patient/{survivor['id']}"}
    merge = next(iter(exchange.store.tables.of("merges").values()))
    assert merge["state"] == "done"
    done = await desk.undo_merge(exchange.feed, merge["_id"], "operator")
    assert done["restored"] == f"Patient/{retired['id']}"
    after = {
        res["id"]
        for rtype in ("Observation", "DiagnosticReport")
        for res in exchange.all(rtype)
        if res["subject"]["reference"].endswith(retired["id"])
    }
    assert after == before
    assert by_number(exchange, "2").get("active") is not False
    assert "link" not in by_number(exchange, "1")
    await exchange.send(oru(obr("H1"), obx("K", "1"), patient=pid("2")))
    mine = [res for res in exchange.all("Observation") if res["subject"]["reference"] == f"Patient/{retired['id']}"]
    assert len(mine) == 12


@pytest.mark.parametrize("seconds", [20.0, 0.0])
async def test_a_large_merge_is_undone_in_parts_by_whoever_is_there(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    exchange = await two_patients()
    for number in range(6):
        await exchange.send(oru(obr(f"G{number}"), obx("K", "1"), patient=pid("2")))
    retired = f"Patient/{by_number(exchange, '2')['id']}"
    mine = sorted(res["id"] for res in exchange.all("Observation") if res["subject"]["reference"] == retired)
    await exchange.send(adt("A40", pid("1"), mrg("2")))
    await exchange.rewrite()
    monkeypatch.setattr("fhir_server.feed.undo.AT_ONCE", 5)
    monkeypatch.setattr("fhir_server.feed.undo.WAIT_SECONDS", seconds)
    (merge,) = exchange.store.tables.of("merges").values()
    done = await desk.undo_merge(exchange.feed, merge["_id"], "operator")
    assert bool(done["left"]) is (seconds == 0)
    with pytest.raises(Refusal):
        await desk.undo_merge(exchange.feed, merge["_id"], "operator")
    for _ in range(20):
        if not await worker.rewrite_once(exchange.feed):
            break
    (merge,) = exchange.store.tables.of("merges").values()
    assert (merge["state"], merge["left"]) == ("undone", [])
    assert sorted(res["id"] for res in exchange.all("Observation") if res["subject"]["reference"] == retired) == mine


async def test_a_reference_written_to_a_retired_patient_after_the_merge_is_redirected(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = await two_patients()
    await exchange.send(adt("A40", pid("1"), mrg("2")))
    await exchange.rewrite()
    sweep = worker.Sweep()
    assert not await sweep.step(exchange.feed), "nothing refers to the retired patient"
    retired, survivor = by_number(exchange, "2")["id"], by_number(exchange, "1")["id"]
    late = {"resourceType": "Observation", "id": "late", "status": "final", "code": {"text": "x"}, "subject": {"reference": f"Patient/{retired}"}}
    await exchange.store.transact(lambda tx: tx.put([Change("Observation", "late", late, {}, None, "POST")]))
    monkeypatch.setattr(worker, "SWEEP_SECONDS", 0.0)
    sweep = worker.Sweep()
    assert await sweep.step(exchange.feed)
    while await worker.rewrite_once(exchange.feed):
        assert exchange.store.get("Observation/late")["subject"] == {"reference": f"Patient/{survivor}"}
    assert exchange.store.get("Observation/late")["subject"] == {"reference": f"Patient/{survivor}"}
    assert [merge["state"] for merge in exchange.store.tables.of("merges").values()] == ["done"]
    assert [await sweep.step(exchange.feed) for _ in range(3)] == [False, False, False]


async def test_provenance_of_old_versions_is_not_rewritten() -> None:
    exchange = await two_patients()
    retired = by_number(exchange, "2")
    before = [res for res in exchange.all("Provenance") if any(retired["id"] in row["reference"] for row in res["target"])]
    await exchange.send(adt("A40", pid("1"), mrg("2")))
    assert all(res in exchange.all("Provenance") for res in before)


@pytest.mark.parametrize("event", ["A46", "A47", "A48"])
async def test_a_changed_number_stays_on_the_same_patient(event: str) -> None:
    exchange = await two_patients()
    was = by_number(exchange, "2")["id"]
    assert await exchange.send(adt(event, pid("22"), mrg("2"))) == "AA"
    assert len(exchange.all("Patient")) == 2
    patient = next(res for res in exchange.all("Patient") if res["id"] == was)
    assert {(one["value"], one.get("use")) for one in patient["identifier"]} == {("2", "old"), ("22", None)}
    for number in ("2", "22"):
        await exchange.send(oru(obr(f"N{number}"), obx("K", "1"), patient=pid(number)))
    assert len(exchange.all("Patient")) == 2


async def test_a_number_that_belongs_to_another_patient_is_not_taken_by_a_change() -> None:
    exchange = await two_patients()
    assert await exchange.send(adt("A47", pid("1"), mrg("2"))) == "AE"
    assert exchange.inbox.entries()[-1].status == "deferred"


async def test_a_moved_number_goes_to_the_other_patient() -> None:
    exchange = Exchange()
    await exchange.send(adt("A08", "PID|1||2^^^HOSP^MR~22^^^HOSP^MR||SMITH^JOHN||19700102|M"))
    await exchange.send(adt("A08", pid("1")))
    assert await exchange.send(adt("A43", pid("1"), mrg("22"))) == "AA"
    await exchange.send(oru(obr(), obx("K", "1"), patient=pid("22")))
    assert exchange.one("Observation")["subject"]["reference"] == f"Patient/{by_number(exchange, '1')['id']}"
    assert {one["value"] for one in by_number(exchange, "2")["identifier"]} == {"2"}


async def test_linked_patients_refer_to_each_other_until_unlinked() -> None:
    exchange = await two_patients()
    assert await exchange.send(adt("A24", pid("1"), pid("2").replace("PID|1", "PID|2"))) == "AA"
    one, other = by_number(exchange, "1"), by_number(exchange, "2")
    assert [(link["other"]["reference"], link["type"]) for link in one["link"]] == [(f"Patient/{other['id']}", "seealso")]
    assert [(link["other"]["reference"], link["type"]) for link in other["link"]] == [(f"Patient/{one['id']}", "seealso")]
    assert await exchange.send(adt("A37", pid("1"), pid("2").replace("PID|1", "PID|2"))) == "AA"
    assert "link" not in by_number(exchange, "1")
    assert "link" not in by_number(exchange, "2")


async def test_a_visit_merge_moves_what_belongs_to_it() -> None:
    exchange = Exchange()
    await exchange.send(adt("A01", pid("1"), pv1("V1")))
    await exchange.send(adt("A01", pid("1"), pv1("V2")))
    await exchange.send(oru(pv1("V2"), obr(), obx("K", "1"), patient=pid("1")))
    assert await exchange.send(adt("A42", pid("1"), mrg("1", visit="V2"), pv1("V1"))) == "AA"
    visits = {res["identifier"][0]["value"]: res for res in exchange.all("Encounter")}
    assert visits["V2"]["status"] == "entered-in-error"
    assert exchange.one("Observation")["encounter"]["reference"] == f"Encounter/{visits['V1']['id']}"
    await exchange.send(oru(pv1("V2"), obr("F2"), obx("K", "1"), patient=pid("1")))
    assert {res["encounter"]["reference"] for res in exchange.all("Observation")} == {f"Encounter/{visits['V1']['id']}"}


async def test_a_moved_visit_takes_its_results_to_the_right_patient() -> None:
    exchange = await two_patients()
    await exchange.send(oru(obr("F9"), obx("K", "9"), patient=pid("2")))
    assert await exchange.send(adt("A45", pid("1"), mrg("2", visit="V2"), pv1("V2"))) == "AA"
    right, wrong = by_number(exchange, "1")["id"], by_number(exchange, "2")["id"]
    assert {res["subject"]["reference"] for res in exchange.all("Encounter")} == {f"Patient/{right}"}
    kept = [res for res in exchange.all("Observation") if res["subject"]["reference"] == f"Patient/{wrong}"]
    assert [res["valueString"] for res in kept] == ["9"], "what did not belong to the visit stays"
    await exchange.send(adt("A03", pid("1"), pv1("V2")))
    assert len(exchange.all("Encounter")) == 2


VISIT = (pv1("V2"), "DG1|1||I10^Hypertension^I10|||A")
REPORT = (pv1("V2"), obr(), obx("K", "1"))


@pytest.mark.parametrize(("event", "former"), [("A45", "2"), ("A42", "1")])
async def test_what_moved_with_a_visit_is_found_again_when_it_is_sent_again(event: str, former: str) -> None:
    """A diagnosis is not recorded twice, and a report sent again is no correction of a wrong patient."""
    exchange = Exchange()
    await exchange.send(adt("A01", pid("1"), pv1("V1")))
    await exchange.send(adt("A01", pid(former), *VISIT))
    await exchange.send(oru(*REPORT, patient=pid(former)))
    assert await exchange.send(adt(event, pid("1"), mrg(former, visit="V2"), pv1("V2" if event == "A45" else "V1"))) == "AA"
    await exchange.send(adt("A08", pid("1"), *VISIT))
    await exchange.send(oru(*REPORT, patient=pid("1")))
    right = f"Patient/{by_number(exchange, '1')['id']}"
    for rtype in ("Condition", "Observation", "DiagnosticReport"):
        assert exchange.one(rtype)["subject"]["reference"] == right
        assert exchange.one(rtype).get("status") != "entered-in-error"


@pytest.mark.parametrize("event", ["A50", "A51"])
async def test_a_changed_visit_number_stays_on_the_same_visit(event: str) -> None:
    exchange = Exchange()
    await exchange.send(adt("A01", pid("1"), pv1("V1")))
    old = "MRG|1^^^HOSP^MR||||" + ("V1^^^HOSP^VN" if event == "A50" else "|V1^^^HOSP^VN")
    assert await exchange.send(adt(event, pid("1"), old, pv1("V9"))) == "AA"
    assert exchange.one("Encounter")["status"] == "in-progress"
    await exchange.send(adt("A03", pid("1"), pv1("V9")))
    assert exchange.one("Encounter")["status"] == "finished"


@pytest.mark.parametrize("event", sorted(EVENTS))
async def test_every_event_of_the_table_without_its_mrg_or_second_patient_is_an_error(event: str) -> None:
    exchange = await two_patients()
    assert await exchange.send(adt(event, pid("1"))) == "AE"
    assert by_number(exchange, "1").get("active") is not False


async def test_several_groups_of_one_message_are_each_done_for_their_own_patient() -> None:
    exchange = await two_patients()
    await exchange.send(adt("A47", pid("11"), mrg("1"), pid("22"), mrg("2")))
    assert {one["value"] for one in exchange.patient("11")["identifier"]} == {"1", "11"}
    assert {one["value"] for one in exchange.patient("22")["identifier"]} == {"2", "22"}
    await exchange.send(adt("A01", pid("3"), pv1("V3")))
    assert await exchange.send(adt("A40", pid("3"), mrg("11"), pid("3"), mrg("22"))) == "AA"
    assert subjects(exchange) == {f"Patient/{exchange.patient('3')['id']}"}


async def test_a_merge_of_an_account_that_is_not_named_is_accepted_with_a_warning() -> None:
    exchange = await two_patients()
    assert await exchange.send(adt("A41", pid("1"), mrg("2"))) == "AA"
    assert exchange.inbox.entries()[-1].status == "warning"
    assert by_number(exchange, "2").get("active") is not False


async def stored_by_a_client(exchange: Exchange, rid: str, number: str) -> None:
    """A Patient that came over REST, which no message was about yet."""
    res = {"resourceType": "Patient", "id": rid, "active": True, "identifier": [{"system": "urn:id:HOSP", "value": number}]}
    await exchange.store.transact(lambda tx: tx.put([Change("Patient", rid, res, {}, None, "PUT")]))


async def test_a_patient_that_a_client_stored_is_merged_like_any_other() -> None:
    exchange = Exchange()
    await stored_by_a_client(exchange, "c2", "2")
    await exchange.send(adt("A08", pid("1")))
    assert await exchange.send(adt("A40", pid("1"), mrg("2"))) == "AA"
    retired = exchange.store.get("Patient/c2")
    assert (retired["active"], retired["link"][0]["type"]) == (False, "replaced-by")
    await exchange.send(oru(obr("F1"), obx("K", "4"), patient=pid("2")))
    assert subjects(exchange) == {f"Patient/{exchange.patient('1')['id']}"}


async def test_one_message_may_merge_several_patients() -> None:
    exchange = await two_patients()
    await exchange.send(adt("A01", pid("3"), pv1("V3")))
    assert await exchange.send(adt("A40", pid("1"), mrg("2"), pid("1"), mrg("3"))) == "AA"
    survivor = f"Patient/{by_number(exchange, '1')['id']}"
    assert subjects(exchange) == {survivor}
    assert {by_number(exchange, number)["active"] for number in "23"} == {False}
    aliases = [row for key, row in exchange.store.tables.of("feed").items() if key.startswith("alias|")]
    assert {row["ref"] for row in aliases} == {survivor}
    assert len({row["g"] for row in aliases}) == 2


BOTH = "2^^^HOSP^MR~{}^^^HOSP^MR"


@pytest.mark.parametrize("other", ["99", "1", "22"])
async def test_3_4_10_1_mrg_1_lists_numbers_of_one_patient(other: str) -> None:
    """One of them known and one not, one the survivor's own, or both of the retired patient: it is merged, and all its numbers lead to the survivor."""
    exchange = await two_patients()
    await exchange.send(adt("A08", pid("2").replace("2^^^HOSP^MR", BOTH.format("22"))))
    assert await exchange.send(adt("A40", pid("1"), f"MRG|{BOTH.format(other)}")) == "AA"
    survivor = by_number(exchange, "1")
    assert subjects(exchange) == {f"Patient/{survivor['id']}"}
    await exchange.send(oru(obr("F7"), obx("K", "7"), patient=pid(other)))
    assert subjects(exchange) == {f"Patient/{survivor['id']}"}
    assert len(exchange.all("Patient")) == 2


async def test_3_4_10_1_after_an_earlier_merge_mrg_1_may_still_list_its_number() -> None:
    exchange = await two_patients()
    await exchange.send(adt("A01", pid("3"), pv1("V3")))
    assert await exchange.send(adt("A40", pid("1"), mrg("2"))) == "AA"
    assert await exchange.send(adt("A40", pid("1"), f"MRG|{BOTH.format('3')}")) == "AA"
    assert subjects(exchange) == {f"Patient/{by_number(exchange, '1')['id']}"}


@pytest.mark.parametrize("stored", ["feed", "client"])
async def test_3_4_10_1_numbers_of_two_patients_in_one_mrg_wait_for_a_person(stored: str) -> None:
    """ "Only one old number can be merged with one new number in a transaction": which of the two charts is meant, nobody can tell. Two groups say it."""
    exchange = await two_patients()
    if stored == "client":
        await stored_by_a_client(exchange, "c3", "3")
    else:
        await exchange.send(adt("A01", pid("3"), pv1("V3")))
    before = exchange.state()
    assert await exchange.send(adt("A40", pid("1"), f"MRG|{BOTH.format('3')}")) == "AE"
    assert exchange.inbox.entries()[-1].status == "deferred"
    assert exchange.state() == before
    assert await exchange.send(adt("A40", pid("1"), mrg("2"), pid("1"), mrg("3"))) == "AA"


async def test_pid_3_of_a_merge_may_list_the_number_that_goes() -> None:
    exchange = await two_patients()
    both = pid("1").replace("1^^^HOSP^MR", "1^^^HOSP^MR~2^^^HOSP^MR")
    assert await exchange.send(adt("A40", both, mrg("2"))) == "AA"
    assert subjects(exchange) == {f"Patient/{exchange.patient('1')['id']}"}
    retired = [res for res in exchange.all("Patient") if not res["active"]]
    assert [link["type"] for link in retired[0]["link"]] == ["replaced-by"]


async def test_the_same_number_of_two_hospitals_is_two_people_before_and_after_a_merge() -> None:
    exchange = await two_patients()
    await exchange.send(adt("A08", pid("2", "OTHER^EVE", "19990909", "F", authority="CLINIC"), sender="ADT|CLINIC"))
    assert await exchange.send(adt("A40", pid("1"), mrg("2"))) == "AA"
    clinic = [res for res in exchange.all("Patient") if res["identifier"][0].get("system") == "urn:id:CLINIC"]
    assert [res.get("active") for res in clinic] != [False]
    await exchange.send(oru(obr("F9"), obx("K", "9"), patient=pid("2", "OTHER^EVE", "19990909", "F", authority="CLINIC"), sender="LAB|CLINIC"))
    assert len(subjects(exchange)) == 2


async def test_a_correction_for_the_wrong_patient_after_a_merge_withdraws_from_the_survivor() -> None:
    exchange = await two_patients()
    await exchange.send(adt("A40", pid("1"), mrg("2")))
    await exchange.send(adt("A08", pid("7", "SEVEN^SAM")))
    await exchange.send(oru(obr("F2", status="C"), obx("K", "2", "C"), patient=pid("7", "SEVEN^SAM")))
    seven = f"Patient/{exchange.patient('7')['id']}"
    live = [res for res in exchange.all("Observation") if res["status"] != "entered-in-error"]
    assert sorted(res["subject"]["reference"] == seven for res in live) == [False, True]
    assert [res["valueString"] for res in exchange.all("Observation") if res["status"] == "entered-in-error"] == ["2"]
