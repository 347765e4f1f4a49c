"""Charges (DFT): what a transaction costs. HL7 v2.8 6.5.1; https://hl7.org/fhir/R4/chargeitem-definitions.html#ChargeItem.priceOverride"""

from decimal import Decimal

import pytest

from tests.mappers.v2.feeds import mapped, one, segment

PID = "PID|1||7^^^HOSP^MR||Doe^Jane||19700102|F"


@pytest.mark.parametrize(
    ("quantity", "extended", "unit", "total", "kept"),
    [
        ("2", "100.50&USD", "50.25&USD", "100.50", "50.25"),
        ("2", "100.50&USD", "", "100.50", ""),
        ("2", "", "50.25&USD", "", "50.25"),
        ("1", "", "50.25&USD", "50.25", ""),
        ("", "", "50.25&USD", "50.25", ""),
    ],
)
def test_6_5_1_11_the_price_of_a_charge_is_its_total(quantity: str, extended: str, unit: str, total: str, kept: str) -> None:
    sent = segment("FT1", {2: "T1", 4: "20240101", 6: "CG", 7: "X^Charge^L", 10: quantity, 11: extended, 12: unit})
    charge = one(mapped("DFT^P03", "EVN|P03|20240101", PID, sent), "ChargeItem")
    assert charge.get("priceOverride") == ({"value": Decimal(total), "currency": "USD"} if total else None)
    texts = [each["valueString"] for each in charge["extension"] if each["url"] == "urn:hl7-org:v2xml:FT1.12"]
    assert [kept in text for text in texts] == ([True] if kept else [])
