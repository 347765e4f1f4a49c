"""Entity tags and dates. https://hl7.org/fhir/R4/http.html#concurrency, RFC 9110 section 13"""

from datetime import UTC, datetime

import pytest

from conformance.outcome import Refusal
from fhir_server.interactions.headers import ANY, check_if_match, check_if_none_match, http_date, tags, unchanged
from fhir_server.interactions.steps import new_id
from fhir_server.interactions.validity import level_of
from fhir_server.store import Stored

AT = datetime(2024, 2, 29, 12, 0, 0, 987000, UTC)
LIVE = Stored("Patient", "a", 3, AT, {"resourceType": "Patient", "id": "a"})
DEAD = Stored("Patient", "a", 4, AT, None, "DELETE")


@pytest.mark.parametrize(
    ("text", "found"), [('W/"3"', {"3"}), ('"3"', {"3"}), ('W/"3", "x-1"', {"3", "x-1"}), ("*", ANY), ('W/""', {""}), (' W/"3" ,W/"4"', {"3", "4"})]
)
def test_tags_are_read(text: str, found: set[str]) -> None:
    assert tags(text, "If-Match") == found


@pytest.mark.parametrize("text", ["", "3", "W/3", 'W/"3', 'w/"3"', 'W/"3";', 'W/"a b"', '"3" "4"', "**", 'W/ "3"'])
def test_malformed_tags_are_refused(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        tags(text, "If-Match")
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("text", "current", "passes"),
    [('W/"3"', LIVE, True), ('W/"2"', LIVE, False), ("*", LIVE, True), ("*", None, False), ("*", DEAD, False), ('W/"4"', DEAD, False)],
)
def test_if_match(text: str, current: Stored | None, passes: bool) -> None:
    if passes:
        check_if_match({"if-match": text}, current)
        return
    with pytest.raises(Refusal) as refused:
        check_if_match({"if-match": text}, current)
    assert refused.value.status == 412


@pytest.mark.parametrize(
    ("text", "current", "passes"), [("*", LIVE, False), ("*", None, True), ("*", DEAD, True), ('W/"3"', LIVE, False), ('W/"2"', LIVE, True)]
)
def test_if_none_match(text: str, current: Stored | None, passes: bool) -> None:
    if passes:
        check_if_none_match({"if-none-match": text}, current)
        return
    with pytest.raises(Refusal) as refused:
        check_if_none_match({"if-none-match": text}, current)
    assert refused.value.status == 412


def test_no_header_no_condition() -> None:
    check_if_match({}, None)
    check_if_none_match({}, LIVE)
    assert not unchanged({}, LIVE)


@pytest.mark.parametrize(
    ("since", "answer"),
    [
        ("Thu, 29 Feb 2024 12:00:00 GMT", True),
        ("Thu, 29 Feb 2024 11:59:59 GMT", False),
        ("2024-02-29T12:00:00Z", True),
        ("2024-02-29T11:00:00+00:00", False),
        ("nonsense", False),
    ],
)
def test_if_modified_since_compares_whole_seconds(since: str, answer: bool) -> None:
    assert unchanged({"if-modified-since": since}, LIVE) is answer


def test_last_modified_is_an_http_date() -> None:
    assert http_date(AT) == "Thu, 29 Feb 2024 12:00:00 GMT"


def test_new_ids_are_distinct_version_7_and_in_order_of_time() -> None:
    made = [new_id() for _ in range(2000)]
    assert len(set(made)) == 2000
    assert {rid[14] for rid in made} == {"7"}
    assert {rid[19] for rid in made} <= set("89ab")
    assert [rid[:8] for rid in made] == sorted(rid[:8] for rid in made)


def test_the_level_of_the_gate_may_differ_by_source() -> None:
    assert level_of("enforce", "x") == "enforce"
    assert level_of("enforce,lab1=warn", "lab1") == "warn"
    assert level_of("enforce,lab1=warn", "lab2") == "enforce"
    assert level_of("warn,a=off", "a") == "off"
    with pytest.raises(ValueError, match="a level is one of"):
        level_of("loud", "x")
