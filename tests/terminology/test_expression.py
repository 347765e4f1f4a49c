"""Post-coordinated SNOMED CT expressions: the grammar's forms, what breaks it, and what is said of the concepts in them."""

import pytest

from terminology.expression import BadExpression, Reference, read
from terminology.library import Library
from terminology.service import open_terms
from terminology.verdict import judge

SNOMED = "http://snomed.info/sct"
RIGHT = {
    "73211009": ["73211009"],
    "73211009 | Diabetes mellitus |": ["73211009"],
    "421720008 + 7946007": ["421720008", "7946007"],
    "=== 46866001 + 428881005": ["46866001", "428881005"],
    "<<<73211009:363698007=113331007": ["73211009", "363698007", "113331007"],
    "83152002 |Oophorectomy|: 405815000 |Procedure device| = 122456005 |Laser device|": ["83152002", "405815000", "122456005"],
    "71388002:{260686004=129304002,405813007=15497006}": ["71388002", "260686004", "129304002", "405813007", "15497006"],
    "71388002 : { 260686004 = 129304002 } { 260686004 = 261519002 }": ["71388002", "260686004", "129304002", "260686004", "261519002"],
    "71388002:{260686004=129304002},{260686004=261519002}": ["71388002", "260686004", "129304002", "260686004", "261519002"],
    "71388002:363589002=71388002,{260686004=129304002}": ["71388002", "363589002", "71388002", "260686004", "129304002"],
    "71388002:363589002=71388002{260686004=129304002}": ["71388002", "363589002", "71388002", "260686004", "129304002"],
    "397956004:363704007=(24136001:272741003=7771000)": ["397956004", "363704007", "24136001", "272741003", "7771000"],
    "27658006:411116001=385049006,1142135004=#500": ["27658006", "411116001", "385049006", "1142135004"],
    "27658006:1142135004=#-0.25": ["27658006", "1142135004"],
    '27658006:1142135004="a \\"quoted\\" text"': ["27658006", "1142135004"],
    "27658006:1142135004=TRUE": ["27658006", "1142135004"],
}


@pytest.mark.parametrize("text", RIGHT)
def test_what_the_grammar_has(text: str) -> None:
    assert [each.code for each in read(text)] == RIGHT[text]


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "73211009:",
        "73211009+",
        "73211009:363698007",
        "73211009:363698007=",
        "73211009:363698007=113331007,",
        "73211009:{363698007=113331007",
        "73211009:{}",
        "73211009:{363698007=113331007},363698007=113331007",
        "73211009:363698007=(113331007",
        "73211009:363698007=113331007)",
        "73211009:363698007=#",
        "73211009:363698007=#1.",
        "73211009:363698007=#01",
        '73211009:363698007="open',
        "73211009 |Diabetes",
        "73211009 ||",
        "73211009 trailing",
        "==73211009",
        "12345",
        "0732110090",
        "73211009:" + "363698007=(73211009:" * 30 + "363698007=73211009" + ")" * 30,
        "7" * 20_000,
    ],
)
def test_what_it_has_not(text: str) -> None:
    with pytest.raises(BadExpression):
        read(text)


def test_references_know_their_part_and_term() -> None:
    assert read("83152002 |A|:405815000=(122456005 |B C|)") == [
        Reference("83152002", "A", "focus"),
        Reference("405815000", "", "attribute"),
        Reference("122456005", "B C", "value"),
    ]


SMALL = {
    "resourceType": "CodeSystem",
    "url": SNOMED,
    "status": "active",
    "content": "complete",
    "concept": [
        {"code": "73211009", "display": "Diabetes mellitus"},
        {"code": "363698007", "display": "Finding site"},
        {"code": "113331007", "display": "Structure of endocrine system"},
        {"code": "22298006", "property": [{"code": "inactive", "valueBoolean": True}, {"code": "sameAs", "valueCode": "73211009"}]},
    ],
}


@pytest.mark.parametrize(
    ("code", "finding"),
    [
        ("73211009:363698007=113331007", "ok"),
        ("73211009 |Diabetes mellitus|:363698007=113331007", "ok"),
        ("73211009 |Asthma|:363698007=113331007", "wrong-display"),
        ("73211008:363698007=113331007", "malformed"),
        ("73211009:363698007=113331006", "malformed"),
        ("73211009:363698007=", "malformed"),
        ("73211009:363698007=404684003", "unknown-code"),
        ("73211009:363698007=(113331007:363698007=404684003)", "unknown-code"),
        ("22298006:363698007=113331007", "inactive"),
    ],
)
def test_the_verdict_on_an_expression(code: str, finding: str) -> None:
    assert judge(Library().with_resources([SMALL]), SNOMED, code).finding == finding


def test_an_expression_with_nothing_loaded_is_only_parsed() -> None:
    terms = open_terms()
    assert terms.check(SNOMED, "73211009:363698007=113331007").finding == "unknown-system"
    assert terms.check(SNOMED, "73211009:363698007=").finding == "malformed"


def test_a_replacement_is_named_and_the_text_repeats_nothing_sent() -> None:
    library = Library().with_resources([SMALL])
    assert judge(library, SNOMED, "22298006").replacement == "73211009"
    assert "404684003" not in judge(library, SNOMED, "404684003:363698007=73211009").text
