"""State across messages: demographics, visits and results, in order and out of it."""

import itertools
import random

import pytest

from fhir_server.feed import desk, worker
from mappers.v2.message import parse
from mappers.v2.problem import Problem
from tests.feed.exchange import Exchange, adt, obr, obx, oru, pid, pv1

FULL = pid(rest="|||1 Main St^^Town^ST^12345||555-1^PRN^PH|555-2^WPN^PH")


async def test_a_sparse_message_leaves_full_demographics_alone() -> None:
    exchange = Exchange()
    await exchange.send(adt("A01", FULL, pv1()))
    await exchange.send(oru(obr(), obx("K", "5"), patient=pid()))
    patient = exchange.one("Patient")
    assert patient["address"][0]["city"] == "Town"
    assert {row["value"] for row in patient["telecom"]} == {"555-1", "555-2"}


async def test_two_quotes_delete_and_a_value_replaces() -> None:
    exchange = Exchange()
    await exchange.send(adt("A01", FULL, pv1()))
    await exchange.send(adt("A08", pid(rest='|||2 New St^^Town||""|555-3^WPN^PH')))
    patient = exchange.one("Patient")
    assert [row["value"] for row in patient["telecom"]] == ["555-3"]
    assert [row["line"] for row in patient["address"]] == [["2 New St"]]
    await exchange.send(adt("A08", pid(sex='""', rest='|||""')))
    patient = exchange.one("Patient")
    assert "gender" not in patient
    assert "address" not in patient


async def test_one_source_cannot_wipe_what_another_gave() -> None:
    exchange = Exchange()
    await exchange.send(adt("A01", FULL, pv1()))
    await exchange.send(oru(obr(), obx("K", "5"), patient=pid(rest='|||""||""|""')))
    patient = exchange.one("Patient")
    assert patient["address"][0]["city"] == "Town"
    assert len(patient["telecom"]) == 2
    await exchange.send(oru(obr("F2"), obx("K", "5"), patient=pid(rest="|||||555-9^PRN^PH")))
    assert {row["value"] for row in exchange.one("Patient")["telecom"]} == {"555-1", "555-2", "555-9"}


async def test_an_older_event_never_overwrites_a_newer_one() -> None:
    exchange = Exchange()
    await exchange.send(adt("A08", pid(name="NEW^JOHN"), evn="20240105120000"))
    await exchange.send(adt("A08", pid(name="OLD^JOHN", rest="|||9 Old St"), evn="20240101120000"))
    patient = exchange.one("Patient")
    assert [row["family"] for row in patient["name"]] == ["NEW"]
    assert patient["address"][0]["line"] == ["9 Old St"], "a gap is filled by the older event"


STAY = [
    ("A05", pv1(place="X^1^1"), "20240101080000"),
    ("A01", pv1(place="A^1^1"), "20240102080000"),
    ("A02", pv1(place="B^1^1"), "20240103080000"),
    ("A12", pv1(place="A^1^1"), "20240103090000"),
    ("A08", pv1(place="A^1^1"), "20240103100000"),
    ("A03", pv1(place="A^1^1"), "20240104080000"),
    ("A13", pv1(place="A^1^1"), "20240104090000"),
]


async def test_a_visit_lives_through_admission_transfer_cancel_discharge_and_cancel() -> None:
    exchange = Exchange()
    seen = []
    for event, visit, at in STAY:
        assert await exchange.send(adt(event, pid(), visit, at=at)) == "AA"
        seen.append(exchange.one("Encounter")["status"])
    assert seen == ["planned", "in-progress", "in-progress", "in-progress", "in-progress", "finished", "in-progress"]
    encounter = exchange.one("Encounter")
    assert "end" not in encounter.get("period", {})
    assert [row["status"] for row in encounter["statusHistory"]] == ["planned"]
    places = {res["id"]: res for res in exchange.all("Location")}
    current = [places[row["location"]["reference"].split("/")[1]] for row in encounter["location"] if row["status"] == "active"]
    assert [res["identifier"][0]["value"].split("/")[-3:] for res in current] == [["A", "1", "1"]]


async def test_a_cancelled_admission_becomes_what_it_was_before() -> None:
    exchange = Exchange()
    await exchange.send(adt("A05", pid(), pv1()))
    await exchange.send(adt("A01", pid(), pv1()))
    await exchange.send(adt("A11", pid(), pv1()))
    assert exchange.one("Encounter")["status"] == "planned"
    await exchange.send(adt("A38", pid(), pv1()))
    assert exchange.one("Encounter")["status"] == "cancelled"


async def test_a_class_change_goes_to_the_history() -> None:
    exchange = Exchange()
    await exchange.send(adt("A04", pid(), pv1(klass="O")))
    await exchange.send(adt("A06", pid(), pv1(klass="I")))
    encounter = exchange.one("Encounter")
    assert encounter["class"]["code"] == "IMP"
    assert [row["class"]["code"] for row in encounter["classHistory"]] == ["AMB"]


async def test_a_result_message_does_not_touch_the_status_of_a_visit() -> None:
    exchange = Exchange()
    await exchange.send(adt("A01", pid(), pv1()))
    await exchange.send(adt("A03", pid(), pv1()))
    await exchange.send(oru(pv1(), obr(), obx("K", "5")))
    assert exchange.one("Encounter")["status"] == "finished"


async def test_shuffled_visits_and_demographics_end_the_same() -> None:
    orders = list(itertools.permutations(range(len(STAY))))
    ends = []
    for order in [tuple(range(len(STAY))), *random.Random(5).sample(orders, 12)]:
        exchange = Exchange()
        for place in order:
            event, visit, at = STAY[place]
            await exchange.send(adt(event, pid(name=f"SMITH^J{place}"), visit, at=at))
        ends.append((exchange.one("Patient"), exchange.one("Encounter")))
    for patient, encounter in ends[1:]:
        assert patient["name"] == ends[0][0]["name"]
        for name in ("status", "class", "period", "statusHistory"):
            assert encounter.get(name) == ends[0][1].get(name), name
        assert len(encounter["location"]) == len(ends[0][1]["location"])


REPORTS = [
    ("P", "20240101100000", [("K", "5.0", "P"), ("NA", "140", "P")]),
    ("F", "20240101110000", [("K", "5.1", "F"), ("NA", "140", "F"), ("CL", "100", "F")]),
    ("C", "20240101120000", [("K", "4.1", "C")]),
]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_results_grow_from_preliminary_to_corrected_in_any_order(order: tuple[int, ...]) -> None:
    exchange = Exchange()
    for place in order:
        status, at, rows = REPORTS[place]
        await exchange.send(oru(obr(status=status, reported=at), *(obx(code, value, state) for code, value, state in rows)))
    found = {res["code"]["coding"][0]["code"]: (res["valueString"], res["status"]) for res in exchange.all("Observation")}
    assert found == {"K": ("4.1", "corrected"), "NA": ("140", "final"), "CL": ("100", "final")}
    report = exchange.one("DiagnosticReport")
    assert report["status"] == "corrected"
    assert len(report["result"]) == 3


async def test_withdrawn_results_stay_on_their_resource() -> None:
    exchange = Exchange()
    await exchange.send(oru(obr(), obx("K", "5.1"), obx("NA", "140")))
    await exchange.send(oru(obr(status="C"), obx("K", "", "W")))
    found = {res["code"]["coding"][0]["code"]: res for res in exchange.all("Observation")}
    assert found["K"]["status"] == "entered-in-error"
    assert found["K"]["valueString"] == "5.1"
    assert found["NA"]["status"] == "final"


async def test_lines_of_text_are_superseded_as_a_whole() -> None:
    exchange = Exchange()
    await exchange.send(oru(obr(status="P"), *(obx("TXT", line, "P", kind="TX") for line in ("a", "b", "c"))))
    await exchange.send(oru(obr(status="F"), *(obx("TXT", line, "F", kind="TX") for line in ("a", "c"))))
    valid = [res["valueString"] for res in exchange.all("Observation") if res["status"] != "entered-in-error"]
    report = exchange.one("DiagnosticReport")
    if len(valid) == 1:  # the mapper joins lines of one text
        assert valid[0].split() == ["a", "c"]
    else:
        assert sorted(valid) == ["a", "c"]
        assert len(report["result"]) == 2


async def test_a_correction_for_the_right_patient_withdraws_the_wrong_one_s_results() -> None:
    exchange = Exchange()
    await exchange.send(oru(obr(), obx("K", "9.9"), patient=pid("1")))
    assert await exchange.send(oru(obr(status="C"), obx("K", "9.9", "C"), patient=pid("2", "LEE^ANN", "1980", "F"))) == "AA"
    by_patient = {res["subject"]["reference"]: res["status"] for res in exchange.all("Observation")}
    assert by_patient == {f"Patient/{exchange.patient('1')['id']}": "entered-in-error", f"Patient/{exchange.patient('2')['id']}": "corrected"}
    reports = {res["subject"]["reference"]: res["status"] for res in exchange.all("DiagnosticReport")}
    assert reports[f"Patient/{exchange.patient('1')['id']}"] == "entered-in-error"
    assert exchange.inbox.entries()[-1].status == "warning"


async def test_a_reused_order_number_of_another_patient_withdraws_nothing() -> None:
    exchange = Exchange()
    await exchange.send(oru(obr(collected="20230101080000"), obx("K", "4.4"), patient=pid("1")))
    await exchange.send(oru(obr(collected="20240101080000"), obx("K", "5.5"), patient=pid("2", "LEE^ANN", "1980", "F")))
    assert {res["status"] for res in exchange.all("Observation")} == {"final"}
    await exchange.send(oru(obr(collected="20230101080000", status="C"), obx("K", "4.5", "C"), patient=pid("1")))
    mine = [res for res in exchange.all("Observation") if res["subject"]["reference"] == f"Patient/{exchange.patient('1')['id']}"]
    assert [(res["valueString"], res["status"]) for res in mine] == [("4.5", "corrected")]


async def test_snapshot_sources_withdraw_what_they_no_longer_report() -> None:
    for snapshots, left in ((False, 2), (True, 1)):
        exchange = Exchange({"sources": [{"name": "lab", "senders": ["LAB|HOSP"], "snapshots": snapshots}]})
        await exchange.send(oru(obr(), obx("K", "5.1"), obx("NA", "140")))
        await exchange.send(oru(obr(), obx("K", "5.1")))
        assert len([res for res in exchange.all("Observation") if res["status"] == "final"]) == left


async def test_orders_of_several_patients_stay_apart_and_two_orders_of_one_patient_too() -> None:
    exchange = Exchange()
    await exchange.send(oru(obr("F1"), obx("K", "1")))
    await exchange.send(oru(obr("F2"), obx("K", "2")))
    await exchange.send(oru(obr("F1", "XYZ"), obx("K", "3")))
    assert sorted(res["valueString"] for res in exchange.all("Observation")) == ["1", "2", "3"]
    assert len(exchange.all("DiagnosticReport")) == 3


async def test_what_an_application_wrote_is_recognised_by_its_identifier() -> None:
    from fhir_server.store import Change

    exchange = Exchange()
    mine = {"resourceType": "Patient", "id": "app1", "identifier": [{"system": "urn:id:HOSP", "value": "100"}], "name": [{"family": "SMITH"}]}
    await exchange.store.transact(lambda tx: tx.put([Change("Patient", "app1", mine, {}, None, "POST")]))
    await exchange.send(adt("A01", pid(), pv1()))
    assert exchange.one("Patient")["id"] == "app1"
    assert exchange.one("Patient")["gender"] == "male"


async def test_susceptibilities_are_derived_from_the_culture_s_result() -> None:
    exchange = Exchange()
    culture = obx("ORG", "E. coli", sub="1")
    child = obr("F2", "SUSC", rest="|ORG^ORG^L&1&E. coli".replace("&", "^", 0)).split("|")
    child += [""] * (30 - len(child))
    child[26], child[29] = "ORG&Organism&L^1", "^F1&LAB"
    assert await exchange.send(oru(obr("F1", "CULT"), culture, "|".join(child), obx("AMP", "R"))) == "AA"
    found = {res["code"]["coding"][0]["code"]: res for res in exchange.all("Observation")}
    assert found["AMP"]["derivedFrom"] == [{"reference": f"Observation/{found['ORG']['id']}"}]
    child[3] = "F3^LAB"
    await exchange.send(oru("|".join(child), obx("CIP", "S")))
    found = {res["code"]["coding"][0]["code"]: res for res in exchange.all("Observation")}
    assert found["CIP"]["derivedFrom"] == [{"reference": f"Observation/{found['ORG']['id']}"}]


def susceptibility(filler: str = "F2", parent: str = "F1", value: str = "R") -> tuple[str, str]:
    """A child order of a culture (OBR-26, OBR-29) and its result."""
    child = obr(filler, "SUSC").split("|")
    child += [""] * (30 - len(child))
    child[26], child[29] = "ORG&Organism&L^1", f"^{parent}&LAB"
    return "|".join(child), obx("AMP", value)


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (1, 0, 1), (1, 1, 0)])
async def test_a_child_result_finds_its_parent_in_either_order(order: tuple[int, ...]) -> None:
    exchange = Exchange()
    messages = [(obr("F1", "CULT"), obx("ORG", "E. coli", sub="1")), susceptibility()]
    for place in order:
        assert await exchange.send(oru(*messages[place])) == "AA"
    found = {res["code"]["coding"][0]["code"]: res for res in exchange.all("Observation")}
    assert found["AMP"]["derivedFrom"] == [{"reference": f"Observation/{found['ORG']['id']}"}]
    assert len(found) == 2


async def test_a_child_before_its_parent_in_one_message_and_of_another_patient() -> None:
    exchange = Exchange()
    assert await exchange.send(oru(*susceptibility(), obr("F1", "CULT"), obx("ORG", "E. coli", sub="1"))) == "AA"
    found = {res["code"]["coding"][0]["code"]: res for res in exchange.all("Observation")}
    assert found["AMP"]["derivedFrom"] == [{"reference": f"Observation/{found['ORG']['id']}"}]
    await exchange.send(oru(*susceptibility("G2", "G1"), patient=pid("7")))
    await exchange.send(oru(obr("G1", "CULT"), obx("ORG", "S. aureus", sub="1"), patient=pid("8")))
    seven = exchange.patient("7")["id"]
    (orphan,) = [res for res in exchange.all("Observation") if res["subject"]["reference"] == f"Patient/{seven}"]
    assert "derivedFrom" not in orphan, "another patient's order of the same number is no parent"


async def test_the_sequence_number_protocol_refuses_gaps_and_says_what_is_expected() -> None:
    exchange = Exchange(NUMBERED)
    said = []
    for number in ("1", "2", "4", "3", "0", "-1", "9"):
        answer = parse(await exchange.answer(adt("A08", pid(), msh_rest=f"|{number}")))
        said.append((answer.get("MSA-1"), answer.get("MSA-4")))
    assert said == [("AA", "2"), ("AA", "3"), ("AE", "3"), ("AA", "4"), ("AA", "4"), ("AA", "1"), ("AA", "10")]


NUMBERED = {"sources": [{"name": "adt", "senders": ["ADT|HOSP"], "sequence": True}]}


@pytest.mark.parametrize("header", ["||^|O1|P|2.1|0\r", "||ADT^A08^ADT_A01|O1|P|2.7|0\r", "||^|O1|P|2.5|-1|||AL|AL\r"])
async def test_a_link_is_opened_by_a_message_without_content(header: str) -> None:
    exchange = Exchange(NUMBERED)
    exchange.feed.unsupported = lambda message, source: Problem("E", "MSH^1^9", "200", "the message type has no mapping")
    answer = parse(await exchange.answer(f"MSH|^~\\&|ADT|HOSP|X|Y|20240101{header}") or b"")
    while await worker.work_once(exchange.feed):
        answer = parse(exchange.inbox.entries()[0].answer)
    assert (answer.get("MSA-1"), answer.get("MSA-4"), list(answer.all("ERR"))) == ("AA", "1", [])
    assert exchange.inbox.entries()[0].status == "processed"
    other = parse(await exchange.answer(f"MSH|^~\\&|NO|LINK|X|Y|20240101{header}") or b"")
    assert other.get("MSA-1") in ("AR", "AE", "CR"), "elsewhere such a message says nothing"


async def test_the_messages_of_a_numbered_link_are_worked_on_in_order_whoever_they_are_about() -> None:
    exchange = Exchange(NUMBERED)
    for number in range(1, 13):
        assert await exchange.send(adt("A08", pid(str(number)), msh_rest=f"|{number}||AL|AL")) == "CA"
    while await worker.work_once(exchange.feed):
        pass
    assert [entry.status for entry in exchange.inbox.entries()] == ["processed"] * 12


async def test_a_test_message_takes_its_number_of_the_link_too() -> None:
    exchange = Exchange(NUMBERED)
    said = []
    for number, processing in ((1, "P"), (2, "T"), (3, "P")):
        answer = await exchange.answer(adt("A08", pid("1"), msh_rest=f"|{number}").replace("|P|2.5.1", f"|{processing}|2.5.1"))
        said.append((parse(answer or b"").get("MSA-1"), parse(answer or b"").get("MSA-4")))
    assert said == [("AA", "2"), ("AA", "3"), ("AA", "4")]
    assert [entry.status for entry in exchange.inbox.entries()] == ["processed", "excluded", "processed"]


async def test_what_an_operator_replays_or_sends_again_has_had_its_turn_on_the_link() -> None:
    exchange = Exchange(NUMBERED)
    for number in (1, 2, 4, 3):
        await exchange.send(adt("A08", pid(str(number)), msh_rest=f"|{number}"))
    assert [entry.status for entry in exchange.inbox.entries()] == ["processed", "processed", "store-error", "processed"]
    assert [row["status"] for row in await desk.replay(exchange.feed, {"source": "adt"})] == ["processed"] * 3
    assert (await desk.resubmit(exchange.feed, exchange.inbox.entries()[2].id))["status"] == "processed"
    assert await exchange.send(adt("A08", pid("4"), msh_rest="|4")) == "AA", "the link goes on where it stood"


async def test_an_embedded_document_is_kept_once_and_not_in_the_feed_s_own_state() -> None:
    exchange = Exchange()
    document = "OBX|1|ED|PDF^Report^L||^AP^^Base64^" + "QUJD" * 5000 + "||||||F"
    for status in "PF":
        assert await exchange.send(oru(obr(status=status), document)) == "AA"
    assert len(exchange.all("Binary")) == 1
    assert all("QUJDQUJD" not in str(row) for row in exchange.store.tables.of("feed").values())


async def test_an_order_does_not_refer_to_results_that_are_older_than_what_is_stored() -> None:
    """Found by mutated frames: the older report's results are not taken, so the order that carries them must not name them."""
    exchange = Exchange()
    for reported, values in (("20240105", ["1"]), ("20240102", ["2", "3"])):
        rows = [obx("K", value) for value in values]
        raw = oru(obr(reported=reported), *rows, at=f"{reported}0800").replace("ORU^R01^ORU_R01", "ORM^O01^ORM_O01")
        raw = raw.replace("\rOBR", "\rORC|NW||F1^LAB\rOBR")
        assert await exchange.send(raw) == "AA"
    assert "urn:uuid:" not in str([res for rtype in ("ServiceRequest", "DiagnosticReport", "Observation") for res in exchange.all(rtype)])


async def test_a_field_that_is_sent_replaces_all_its_repetitions_whatever_their_use() -> None:
    exchange = Exchange()
    whole = "PID|1||100^^^HOSP^MR||SMITH^JOHN^Q^^^^L~SMITTY^JOHN^^^^^N||19700102|M|AL^IAS||1 Main^^Town^^^^H~2 Work^^Town^^^^B||555-1^PRN^PH~555-2^ORN^CP|555-3^WPN^PH"
    await exchange.send(adt("A01", whole, pv1()))
    await exchange.send(adt("A08", "PID|1||100^^^HOSP^MR||SMITH^JON||19700102|M|||3 New^^Town||555-4^PRN^PH"))
    patient = exchange.one("Patient")
    assert [(row["family"], row["given"]) for row in patient["name"]] == [("SMITH", ["JON"]), ("AL", ["IAS"])]
    assert [row["line"] for row in patient["address"]] == [["3 New"]]
    assert {row["value"] for row in patient["telecom"]} == {"555-4", "555-3"}


async def test_two_quotes_delete_only_what_their_field_gave() -> None:
    exchange = Exchange()
    full = "PID|1|E7|100^^^HOSP^MR|A9|SMITH^JOHN|MAID^EN|19700102|M|AL^IAS|2106-3^White^HL70005|||555-1^PRN^PH|555-3^WPN^PH|||CAT^Catholic^HL70006"
    await exchange.send(adt("A01", full, "PV1|1|I|W||||1^At^Tend|2^Re^Fer||||||||||||V1"))
    before = exchange.one("Patient")
    await exchange.send(adt("A08", 'PID|1||100^^^HOSP^MR|""|SMITH^JOHN||19700102|M|""|""|||""', 'PV1|1|I|W||||""|||||||||||||V1'))
    patient = exchange.one("Patient")
    assert [row["family"] for row in patient["name"]] == ["SMITH"]
    assert [row["value"] for row in patient["telecom"]] == ["555-3"]
    assert {row["value"] for row in before["identifier"]} - {row["value"] for row in patient["identifier"]} == {"A9"}
    urls = [{row["url"].rpartition("/")[2] for row in one["extension"]} for one in (before, patient)]
    assert urls[0] - urls[1] == {"urn:hl7-org:v2xml:PID.10"}
    assert {"patient-mothersMaidenName", "patient-religion"} <= urls[1]
    (participant,) = exchange.one("Encounter")["participant"]
    assert participant["type"][0]["coding"][0]["code"] == "REF"


async def test_what_was_kept_by_use_before_fields_told_it_apart_is_replaced_by_its_field() -> None:
    exchange = Exchange()
    await exchange.send(adt("A01", FULL, pv1()))
    (name, state), *_ = [(key, row) for key, row in exchange.store.tables.of("feed").items() if str(row["_id"]).startswith("Patient/")]
    slots = next(iter(state["sources"].values()))
    slots["telecom@home"] = slots.pop("telecom@PID.13")
    exchange.store.tables.of("feed")[name] = state
    await exchange.send(adt("A08", pid(rest="|||||555-9^PRN^PH")))
    assert {row["value"] for row in exchange.one("Patient")["telecom"]} == {"555-9", "555-2"}


async def test_a_transfer_that_is_told_later_counts_from_when_it_happened_as_precisely_as_it_says() -> None:
    exchange = Exchange()
    await exchange.send(adt("A01", pid(), pv1(), evn="20240101"))
    await exchange.send(adt("A02", pid(), pv1(place="ICU^1^1"), evn="20240102100000||||20240102083000"))
    visit = exchange.one("Encounter")
    assert visit["period"] == {"start": "2024-01-01"}
    assert [row["period"] for row in visit["location"]] == [
        {"start": "2024-01-01", "end": "2024-01-02T08:30:00+00:00"},
        {"start": "2024-01-02T08:30:00+00:00"},
    ]


WRONG = (
    ("1", "SMITH^JOHN", "20240101090000", "F", "4.1"),
    ("2", "LEE^ANN", "20240101100000", "C", "4.1"),
    ("1", "SMITH^JOHN", "20240101083000", "F", "4.0"),
)


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 1, 2), (2, 0, 1), (1, 2, 0)])
async def test_an_older_message_does_not_give_corrected_results_back_to_the_wrong_patient(order: tuple[int, ...]) -> None:
    exchange = Exchange()
    for place in order:
        number, name, at, status, value = WRONG[place]
        who = pid(number, name, "1970" if number == "1" else "1980", "M" if number == "1" else "F")
        assert await exchange.send(oru(obr(status=status, reported=at), obx("K", value, status), patient=who)) == "AA"
    right, wrong = (f"Patient/{exchange.patient(number)['id']}" for number in ("2", "1"))
    for rtype in ("Observation", "DiagnosticReport"):
        states = [(one["subject"]["reference"], one["status"]) for one in exchange.all(rtype)]
        assert (right, "corrected") in states
        assert {status for subject, status in states if subject == wrong} == {"entered-in-error"}
    versions = exchange.store.versions()
    for place in order:
        number, name, at, status, value = WRONG[place]
        who = pid(number, name, "1970" if number == "1" else "1980", "M" if number == "1" else "F")
        await exchange.send(oru(obr(status=status, reported=at), obx("K", value, status), patient=who))
    assert exchange.store.versions() == versions


def report_with_document(status: str, at: str, data: str, patient: str = "") -> str:
    return oru(obr(status=status, reported=at), f"OBX|1|ED|PDF^Report^L||^application^pdf^Base64^{data}||||||{status}", patient=patient)


async def test_the_document_of_a_result_is_one_that_points_to_what_was_sent_last() -> None:
    exchange = Exchange()
    for status, at, data in (
        ("P", "20240101090000", "QUJD"),
        ("F", "20240101100000", "REVG"),
        ("P", "20240101090000", "QUJD"),
        ("F", "20240101100000", "REVG"),
    ):
        assert await exchange.send(report_with_document(status, at, data)) == "AA"
    document, report = exchange.one("DocumentReference"), exchange.one("DiagnosticReport")
    stored = {f"Binary/{one['id']}": one["data"] for one in exchange.all("Binary")}
    (content,) = document["content"]
    assert stored[content["attachment"]["url"]] == "REVG"
    assert [stored[one["url"]] for one in report["presentedForm"]] == ["REVG"]
    assert len(stored) == 2


async def test_the_document_of_a_result_is_withdrawn_from_the_wrong_patient() -> None:
    exchange = Exchange()
    await exchange.send(report_with_document("F", "20240101090000", "QUJD", pid("1")))
    await exchange.send(report_with_document("C", "20240101100000", "QUJD", pid("2", "LEE^ANN", "1980", "F")))
    states = {one["subject"]["reference"]: one["status"] for one in exchange.all("DocumentReference")}
    assert states == {f"Patient/{exchange.patient('1')['id']}": "entered-in-error", f"Patient/{exchange.patient('2')['id']}": "current"}


async def test_the_document_of_a_withdrawn_result_is_entered_in_error() -> None:
    exchange = Exchange()
    await exchange.send(report_with_document("F", "20240101090000", "QUJD"))
    await exchange.send(report_with_document("W", "20240101100000", "QUJD"))
    assert exchange.one("DocumentReference")["status"] == "entered-in-error"
