"""Things that share an order number: panels of one accession number, doses of one prescription, shots of others."""

import pytest

from tests.feed.exchange import Exchange, msh, obx, oru, pid

CBC, BMP = "CBC^Blood count^L", "BMP^Metabolic panel^L"


def order(*codes: str, sender: str = "CPOE|HOSP", control: str = "NW", number: str = "P1^CPOE", patient: str = pid()) -> str:
    header, _ = msh("ORM^O01", sender)
    lines = [line for code in codes for line in (f"ORC|{control}|{number}", *([f"OBR|1|{number}||{code}"] if code else []))]
    return "\r".join([header, *([patient] if patient else []), *lines]) + "\r"


def codes(exchange: Exchange, rtype: str = "ServiceRequest", status: str = "") -> list[str]:
    return sorted(one["code"]["coding"][0]["code"] for one in exchange.all(rtype) if status in ("", one["status"]))


async def test_two_panels_of_one_accession_number_are_two_orders() -> None:
    exchange = Exchange()
    for _ in range(2):
        panels = [f"OBR|1|P1|A1^LAB|{code}|||20240101080000" for code in (CBC, BMP)]
        await exchange.send(oru(panels[0], obx("HGB", "13"), panels[1], obx("K", "4")))
    assert codes(exchange) == ["BMP", "CBC"]
    orders = {f"ServiceRequest/{one['id']}": one["code"] for one in exchange.all("ServiceRequest")}
    for report in exchange.all("DiagnosticReport"):
        assert orders[report["basedOn"][0]["reference"]] == report["code"]


async def test_panels_of_one_accession_number_in_messages_of_their_own_are_two_orders() -> None:
    exchange = Exchange()
    for code in (CBC, BMP, CBC):
        await exchange.send(oru(f"OBR|1|P1|A1^LAB|{code}|||20240101080000", obx("HGB", "13")))
    assert codes(exchange) == ["BMP", "CBC"]


async def test_an_order_is_the_same_under_the_code_of_the_laboratory() -> None:
    exchange = Exchange()
    await exchange.send(order(CBC))
    await exchange.send(oru("OBR|1|P1^CPOE|A1^LAB|58410-2^CBC^LN|||20240101080000", obx("HGB", "13")))
    assert codes(exchange) == ["58410-2"]
    await exchange.send(order(CBC, control="CA"))
    assert codes(exchange, status="revoked") == ["CBC"]


async def test_a_changed_order_is_the_same_and_one_without_its_code_too() -> None:
    exchange = Exchange()
    await exchange.send(order(CBC))
    await exchange.send(order(BMP, control="XO"))
    await exchange.send(order("", control="CA"))
    assert codes(exchange, status="revoked") == ["BMP"]
    assert len(exchange.all("ServiceRequest")) == 1


async def test_one_of_two_orders_of_a_number_is_cancelled_also_without_a_patient() -> None:
    exchange = Exchange()
    await exchange.send(order(CBC, BMP))
    await exchange.send(order(BMP, control="OC", patient=""))
    assert codes(exchange, status="revoked") == ["BMP"]
    assert codes(exchange, status="active") == ["CBC"]


DRUG = "0093^Amoxicillin^NDC"


def given(*times: str, action: str = "A", amount: str = "1") -> str:
    header, _ = msh("RAS^O17^RAS_O17", "WARD|HOSP")
    doses = [f"RXA|0|1|{time}|{time}|{DRUG}|{amount}|CAP|||||||||||||CP|{action}" for time in times]
    return "\r".join([header, pid(), "ORC|RE|RX1^CPOE|PH1^PHARM", f"RXE||{DRUG}|1||CAP", *doses, "RXR|PO"])


async def test_every_dose_of_a_prescription_is_an_administration_of_its_own() -> None:
    exchange = Exchange()
    for _ in range(2):
        await exchange.send(given("20240101080000"))
        await exchange.send(given("20240101200000"))
        await exchange.send(given("20240102080000", "20240102200000"))
    assert len(exchange.all("MedicationAdministration")) == 4
    await exchange.send(given("20240101200000", action="U", amount="2"))
    assert sorted(one["dosage"]["dose"]["value"] for one in exchange.all("MedicationAdministration")) == [1, 1, 1, 2]
    await exchange.send(given("20240101200000", action="D"))
    assert [one["status"] for one in exchange.all("MedicationAdministration")].count("entered-in-error") == 1


@pytest.mark.parametrize("number", ["", "RXN7"])
async def test_every_dispense_is_one_and_counts_within_its_order(number: str) -> None:
    exchange = Exchange()
    for _ in range(2):
        for placer, count, time in (("RX1", 1, "20240101"), ("RX1", 2, "20240201"), ("RX2", 1, "20240101")):
            header, _ = msh("RDS^O13^RDS_O13", "PHARM|HOSP")
            own = number and f"{number}{placer}"
            await exchange.send(
                "\r".join([header, pid(), f"ORC|RE|{placer}^CPOE", f"RXE||{DRUG}|1||CAP", f"RXD|{count}|{DRUG}|{time}|10|CAP||{own}"])
            )
    assert len(exchange.all("MedicationDispense")) == 3


async def test_shots_that_others_gave_are_told_apart_without_a_number_of_their_own() -> None:
    exchange = Exchange()
    for _ in range(2):
        header, _ = msh("VXU^V04^VXU_V04", "IIS|STATE")
        shots = [("20200101", "03^MMR^CVX"), ("20240101", "03^MMR^CVX"), ("20200101", "21^Varicella^CVX")]
        rows = [line for day, code in shots for line in ("ORC|RE||9999", f"RXA|0|1|{day}|{day}|{code}|999||||||||||||||CP|A")]
        await exchange.send("\r".join([header, pid(), *rows]))
    assert len(exchange.all("Immunization")) == 3


async def test_a_shot_with_a_number_is_the_same_when_its_vaccine_is_corrected() -> None:
    exchange = Exchange()
    for action, code in (("A", "03^MMR^CVX"), ("U", "94^MMRV^CVX")):
        header, _ = msh("VXU^V04^VXU_V04", "IIS|STATE")
        await exchange.send("\r".join([header, pid(), "ORC|RE||V1^IIS", f"RXA|0|1|20200101||{code}|999||||||||||||||CP|{action}"]))
    assert exchange.one("Immunization")["vaccineCode"]["coding"][0]["code"] == "94"


async def test_4a_4_6_1_every_prepared_dose_counts_within_its_order_and_is_none_that_was_given() -> None:
    exchange = Exchange()
    await exchange.send(given("20240101080000"))
    for _ in range(2):
        for order in ("RX1", "RX2"):
            for count in (1, 2):
                header, _at = msh("RGV^O15^RGV_O15", "PHARM|HOSP")
                await exchange.send("\r".join([header, pid(), f"ORC|RE|{order}^CPOE", f"RXG|{count}|1||{DRUG}|1||CAP"]))
    assert sorted(one["status"] for one in exchange.all("MedicationAdministration")) == ["completed", *["unknown"] * 4]
