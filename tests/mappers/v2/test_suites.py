"""Figures over the public messages: well-formed ones convert, each bundle is valid R4, at least 98 % of the leaves are found."""

from collections import Counter
from functools import cache

import pytest

from conformance import codec
from mappers.v2 import convert, message, tables
from tests.mappers.v2 import leaves, suites

# message types of the suites that are no messages to an exchange: a site's own test type, placeholders
FOREIGN = {("ZDT", "Z01"), ("", ""), ("{}", "")}


@cache
def conversions() -> list[tuple[str, message.Message, convert.Conversion]]:
    known = tables.load_tables()
    found = []
    for name, raw in suites.messages():
        parsed = message.parse(raw)
        found.append((name, parsed, convert.convert(parsed, known)))
    return found


def test_well_formed_messages_convert() -> None:
    refused = [(name, parsed.code, parsed.trigger) for name, parsed, done in conversions() if "entry" not in done.bundle]
    assert [row for row in refused if (row[1], row[2]) not in FOREIGN] == []


def test_references_stay_inside_the_bundle() -> None:
    for name, _, done in conversions():
        urls = [entry["fullUrl"] for entry in done.bundle.get("entry", [])]
        assert len(set(urls)) == len(urls), name
        text = codec.encode(done.bundle).decode()
        assert text.count('"reference":"urn:uuid:') == sum(text.count(f'"reference":"{url}"') for url in urls), name


def test_leaf_coverage(capsys: pytest.CaptureFixture[str]) -> None:
    counted = lost = 0
    where: Counter[str] = Counter()
    for _, parsed, done in conversions():
        if "entry" in done.bundle:
            count, missing = leaves.missing(parsed, done.bundle)
            counted, lost = counted + count, lost + len(missing)
            where.update(place for place, _ in missing)
    everything = sum(len(list(leaves.all_of(parsed))) for _, parsed, done in conversions() if "entry" in done.bundle)
    with capsys.disabled():
        print(
            f"\nleaves {everything}: {everything - counted} on the lists of ignored ones, {counted - lost} of {counted} found ({1 - lost / counted:.2%})"
        )
    assert counted > 200_000
    assert lost / counted <= 0.02, where.most_common(20)


def test_every_ignored_part_has_its_reason() -> None:
    assert all(row["reason"] for row in leaves.reasons())


@pytest.mark.slow
def test_every_bundle_is_valid_r4() -> None:
    validate = pytest.importorskip("conformance.validate", reason="the R4 gate is not there yet")
    spec = pytest.importorskip("conformance.spec")
    check = validate.checker(spec.load_spec(), "Bundle")
    for name, _, done in conversions():
        issues = check(codec.decode(codec.encode(done.bundle)))
        assert [(issue.expression, issue.text) for issue in issues if issue.severity in ("error", "fatal")] == [], name
