"""Whatever JSON comes, the gate answers with issues and never throws."""

import copy
from decimal import Decimal

import pytest

from conformance.spec import load_spec
from conformance.validate import checker, validate
from tests.conformance.sound import SOUND

SPEC = load_spec()
JUNK = [
    None,
    True,
    7,
    -1,
    Decimal("1.5"),
    "",
    " ",
    "x",
    "#",
    "a/b",
    "http://",
    "urn:uuid:1",
    [],
    {},
    [None],
    [[]],
    [{}],
    ["x", None],
    [1],
    {"x": 1},
    {"id": 1},
]


def places(value, trail=()):
    """The trail to every value inside."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in pairs:
        yield (*trail, key)
        yield from places(each, (*trail, key))


def put(res, trail, value):
    for step in trail[:-1]:
        res = res[step]
    res[trail[-1]] = value


@pytest.mark.parametrize("rtype", sorted(SOUND))
def test_junk_at_any_place_gives_issues(rtype):
    sound = {"resourceType": rtype, **SOUND[rtype]}
    check = checker(SPEC, rtype)
    for trail in places(sound):
        if trail == ("resourceType",):
            continue
        for junk in JUNK:
            res = copy.deepcopy(sound)
            put(res, trail, junk)
            for issue in check(res):
                assert issue.expression.startswith(rtype), (trail, junk)


@pytest.mark.parametrize("res", [{}, {"resourceType": None}, {"resourceType": "Nope"}, {"resourceType": ["Patient"]}, {"resourceType": "Resource"}])
def test_what_is_no_resource_of_r4_is_refused(res):
    assert [issue.code for issue in validate(SPEC, res)] == ["structure"]


def test_a_bundle_of_many_errors_stops_counting_but_still_answers():
    res = {"resourceType": "Bundle", "type": "collection", "entry": [{"x": 1}] * 5000}
    assert len(checker(SPEC, "Bundle")(res)) == 1000


def test_names_that_could_be_data_do_not_reach_a_text():
    issues = checker(SPEC, "Patient")({"resourceType": "Patient", "Ann Low, 1970": 1})
    assert not any("Ann" in issue.text + issue.expression for issue in issues)
    assert issues
