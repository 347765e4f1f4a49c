"""Row coverage: one generated message per row of HL7's v2-to-FHIR segment maps; at least 97 % of those R4 can hold land where the row says.

Landing means: the value (or the row's constant) stands at the row's element, and the bundle is valid R4. The rest stands in
guide_deviations.csv with its reason and is printed by kind.
"""

import os
from collections import Counter
from pathlib import Path

import pytest

from conformance import codec, spec, validate
from mappers.v2 import tables
from tests.mappers.v2 import rows
from tests.packages import npm_package

KINDS = {"r4", "condition", "wrong", "contradiction"}


def guide() -> Path:
    folder = Path(os.environ.get("FHIR_SUITES", "")) / "v2-to-fhir"
    if not os.environ.get("FHIR_SUITES") or not folder.is_dir():
        pytest.skip("FHIR_SUITES does not name the folder of the public suites")
    return folder


@pytest.mark.slow
def test_rows_of_the_guide_land_where_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    known, listed = tables.load_tables(), rows.deviations()
    read = rows.guide_rows(guide(), npm_package("hl7.fhir.r4.examples@4.0.1"))
    check = validate.checker(spec.load_spec(), "Bundle")
    lost, invalid, landed, logical = [], [], 0, 0
    why: Counter[str] = Counter()
    used = set()
    for row in read.rows:
        found, deviation = rows.lands(row, known), rows.argued(row, listed)
        if found is None:
            lost += [] if deviation else [(row.map, row.field, row.target)]
            why[deviation["why"] if deviation else "lost"] += 1
            used.add(str(deviation))
            continue
        landed, logical = landed + 1, logical + found.logical
        issues = check(codec.decode(codec.encode(found.bundle)))
        invalid += [(row.map, row.field, issue.expression, issue.text) for issue in issues if issue.severity in ("error", "fatal")]
    impossible = why.pop("r4", 0)
    possible = len(read.rows) - impossible
    with capsys.disabled():
        print(f"\nrows with a target: {len(read.rows) + len(read.not_r4)}; R4 cannot hold {len(read.not_r4) + impossible}; of {possible}:")
        print(f"{landed} land ({landed / possible:.1%}, {logical} of them as logical references); otherwise for a reason: {dict(why)}")
        print("not in R4:", dict(Counter(text.split(":")[0][:60] for _, _, _, text in read.not_r4).most_common(12)))
    assert lost == []
    assert invalid == []
    assert landed / possible >= 0.97
    assert [one for one in listed if str(one) not in used] == [], "deviations that no row needs"


def test_each_deviation_is_argued() -> None:
    assert all(one["reason"] and one["why"] in KINDS for one in rows.deviations())
