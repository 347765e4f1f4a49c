"""The parameter `date`: the definitions as they were then, or an error where that cannot be said."""

from datetime import UTC, datetime
from typing import Any

import pytest

from terminology.dated import since
from terminology.load.icd10cm import in_force
from terminology.load.rxnorm import released
from terminology.operations import call
from terminology.service import Terms, open_terms

NOW = datetime(2026, 1, 1, tzinfo=UTC)
URL, VALUES, NEVER = "http://example.org/cs", "http://example.org/vs", "http://example.org/undated"


def system(version: str, date: str, *codes: str, url: str = URL) -> dict[str, Any]:
    head = {"resourceType": "CodeSystem", "url": url, "version": version, "status": "active", "content": "complete"}
    return head | ({"date": date} if date else {}) | {"concept": [{"code": each, "display": f"{each} of {version}"} for each in codes]}


def values(version: str, date: str, *codes: str) -> dict[str, Any]:
    include = {"system": URL, "concept": [{"code": each} for each in codes]}
    return {"resourceType": "ValueSet", "url": VALUES, "version": version, "status": "active", "date": date, "compose": {"include": [include]}}


@pytest.fixture(scope="module")
def terms() -> Terms:
    return open_terms().with_resources(
        [
            system("1", "2018-03", "a", "b"),
            system("2", "2022-01-01T00:00:00Z", "a", "b", "c"),
            system("1", "", "a", url=NEVER),
            values("1", "2019", "a"),
            values("2", "2023-05-05", "a", "b"),
        ]
    )


def ask(terms: Terms, operation: str, **given: Any) -> tuple[int, dict[str, Any]]:
    kinds = {"date": "valueDateTime", "validation": "resource"}
    rows = [{"name": name.replace("_", "-"), kinds.get(name, "valueString"): value} for name, value in given.items()]
    return call(terms, operation, {"resourceType": "Parameters", "parameter": rows}, now=NOW)


def named(res: dict[str, Any], name: str) -> Any:
    return next((value for row in res["parameter"] if row["name"] == name for key, value in row.items() if key != "name"), None)


@pytest.mark.parametrize(
    ("date", "version"),
    [
        ("2018-03-01", "1"),
        ("2018", "1"),
        ("2021-12-31", "1"),
        ("2021-12-31T23:59:59Z", "1"),
        ("2022", "2"),
        ("2026-01-01", "2"),
        ("2099", "2"),
        ("", "2"),
    ],
)
def test_the_version_in_force_then(terms: Terms, date: str, version: str) -> None:
    status, res = ask(terms, "CodeSystem/$lookup", system=URL, code="a", date=date)
    assert (status, named(res, "version"), named(res, "display")) == (200, version, f"a of {version}")
    status, res = ask(terms, "CodeSystem/$validate-code", url=URL, code="c", date=date)
    assert (status, named(res, "result")) == (200, version == "2")


def test_value_sets_and_what_they_include(terms: Terms) -> None:
    status, res = ask(terms, "ValueSet/$expand", url=VALUES, date="2020-02-02")
    assert status == 200
    assert [each["display"] for each in res["expansion"]["contains"]] == ["a of 1"]
    assert {"name": "date", "valueDateTime": "2020-02-02"} in res["expansion"]["parameter"]
    status, res = ask(terms, "ValueSet/$expand", url=VALUES)
    assert [each["display"] for each in res["expansion"]["contains"]] == ["a of 2", "b of 2"]
    status, res = ask(terms, "ValueSet/$validate-code", url=VALUES, system=URL, code="b", date="2020-02-02")
    assert named(res, "result") is False
    status, res = ask(terms, "ValueSet/$validate-code", url=f"{VALUES}|2", system=URL, code="b", date="2020-02-02")
    assert named(res, "result") is True  # a version that is named is taken


def test_what_cannot_be_said_is_an_error(terms: Terms) -> None:
    for operation, given in (
        ("CodeSystem/$lookup", {"system": URL, "code": "a"}),
        ("CodeSystem/$validate-code", {"url": URL, "code": "a"}),
        ("ValueSet/$expand", {"url": VALUES}),
        ("CodeSystem/$lookup", {"system": NEVER, "code": "a"}),
    ):
        status, res = ask(terms, operation, **given, date="2017-01-01")
        assert (status, res["issue"][0]["code"]) == (422, "not-found"), operation
        assert "2017-01-01" in res["issue"][0]["details"]["text"]
    assert ask(terms, "CodeSystem/$lookup", system=URL, code="a", version="2", date="2017-01-01")[0] == 200
    status, res = ask(terms, "CodeSystem/$lookup", system=URL, code="a", date="yesterday")
    assert (status, res["issue"][0]["severity"]) == (400, "error")
    assert ask(terms, "CodeSystem/$lookup", system="urn:unknown", code="a", date="2017-01-01")[0] == 404
    assert ask(terms, "CodeSystem/$lookup", system="http://unitsofmeasure.org", code="mg", date="2017-01-01")[0] == 200


def test_each_of_a_batch_has_its_own_date(terms: Terms) -> None:
    rows = [{"name": "url", "valueUri": VALUES}, {"name": "system", "valueUri": URL}, {"name": "code", "valueCode": "b"}]
    dates = ("2020-01-01", "2001-01-01", "2024-01-01")
    each = [{"resourceType": "Parameters", "parameter": [*rows, {"name": "date", "valueDateTime": date}]} for date in dates]
    body = {"resourceType": "Parameters", "parameter": [{"name": "validation", "resource": one} for one in each]}
    status, res = call(terms, "ValueSet/$batch-validate-code", body, now=NOW)
    assert status == 200
    first, second, third = (row["resource"] for row in res["parameter"])
    assert (named(first, "result"), second["resourceType"], named(third, "result")) == (False, "OperationOutcome", True)


def test_dates_in_versions() -> None:
    assert since("", "http://snomed.info/sct/900000000000207008/version/20240101") == datetime(2024, 1, 1, tzinfo=UTC)
    assert since("", "2018-08-12") == datetime(2018, 8, 12, tzinfo=UTC)
    assert since("nonsense", "20180812") == datetime(2018, 8, 12, tzinfo=UTC)
    assert since("", "2.77") is None
    assert since("", "20189999") is None
    assert (in_force("2024"), in_force("x")) == ("2023-10-01", "")
    assert (released("20AA_240304F"), released("03042024"), released("")) == ("2024-03-04", "2024-03-04", "")
