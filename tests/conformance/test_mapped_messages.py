"""Every mapped HL7 v2 message of the public suites, judged by the gate and by fhir.resources; each disagreement is explained in mapped_opinion.csv.

Judged is each resource of the Bundle that a message becomes, as it would be decoded from the wire.
"""

import csv
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from conformance import codec
from conformance.models import second_opinion
from conformance.spec import load_spec
from conformance.validate import checker
from mappers.v2 import convert, message, tables
from tests.mappers.v2 import suites

FILE = Path(__file__).parent / "mapped_opinion.csv"
Finding = tuple[str, str, str]
"""(who objects: gate or fhir.resources, type, place and kind of the finding)."""


def explained() -> dict[Finding, str]:
    with FILE.open(encoding="utf-8", newline="") as file:
        return {(row["side"], row["type"], row["finding"]): row["why"] for row in csv.DictReader(file)}


def opinions(res: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What the gate objects to, and what fhir.resources does: place and kind, without indexes."""
    rtype = res["resourceType"]
    issues = checker(load_spec(), rtype, warnings=False)(res)
    ours = [re.sub(r"\[\d+\]", "", issue.expression) + f": {issue.code}" for issue in issues]
    return ours, [re.sub(r"\b\d+\b", "N", each) for each in second_opinion(res)]


def disagreements(res: dict[str, Any]) -> list[Finding]:
    """Nothing if both find the resource good, or both find something wrong."""
    ours, theirs = opinions(res)
    if bool(ours) == bool(theirs):
        return []
    side = "gate" if ours else "fhir.resources"
    return [(side, res["resourceType"], each) for each in ours or theirs]


@pytest.mark.slow
def test_both_judge_every_mapped_message(capsys: pytest.CaptureFixture[str]) -> None:
    known, reasons = tables.load_tables(), explained()
    messages = resources = 0
    found: Counter[Finding] = Counter()
    for _, raw in suites.messages():
        messages += 1
        bundle = codec.decode(codec.encode(convert.convert(message.parse(raw), known).bundle))
        for entry in bundle.get("entry", ()):
            resources += 1
            found.update(set(disagreements(entry["resource"])))
    with capsys.disabled():
        print(f"\n{messages} messages, {resources} resources judged by both; disagreements: {sum(found.values())} of {len(found)} kinds")
    assert messages > 400
    assert {finding: count for finding, count in found.items() if finding not in reasons} == {}
    assert set(reasons) <= set(found), "an explanation of what is not found any more"


def test_each_explanation_says_why() -> None:
    assert all(len(why) > 20 for why in explained().values())


def test_a_disagreement_is_seen() -> None:
    assert disagreements({"resourceType": "Patient", "gender": "none"}) == [("gate", "Patient", "Patient.gender: code-invalid")]
    assert disagreements({"resourceType": "Patient", "gender": "male"}) == []
    assert disagreements({"resourceType": "Patient", "nothing": 1}) == []
