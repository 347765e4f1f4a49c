"""Codes judged on ingest: check digits, existence, policy, bindings."""

import pytest

from terminology import digits
from terminology.ingest import code_checker, codings_judge, translator
from terminology.policy import Policy, read_rows
from terminology.service import Terms, open_terms

SNOMED, LOINC, UCUM = "http://snomed.info/sct", "http://loinc.org", "http://unitsofmeasure.org"
GENDER = "http://hl7.org/fhir/administrative-gender"


@pytest.fixture(scope="module")
def terms() -> Terms:
    return open_terms()


@pytest.mark.parametrize("code", ["73211009", "404684003", "22298006", "138875005", "900000000000003001"])
def test_sctid_check_digit_right(code: str) -> None:
    assert digits.sctid(code) == ""


@pytest.mark.parametrize("code", ["73211008", "5", "073211009", "73211090", "1234567890123456789", "7321100x", "754736016"])
def test_sctid_check_digit_or_partition_wrong(code: str) -> None:
    assert digits.sctid(code) != ""


LETTERED = ["LP14449-0", "LP7786-9", "LA6576-8", "LA33-6", "LA18976-3", "LA18977-1", "LL1162-8", "LL358-3", "LG51018-6", "LG51017-8"]


@pytest.mark.parametrize("code", ["718-7", "2345-7", "85354-9", *LETTERED])
def test_loinc_check_digit_right(code: str) -> None:
    assert digits.loinc(code) == ""


@pytest.mark.parametrize("code", ["718-8", "718", "LP14449-1", "LA18976-4", "LG51018-5", "XX33-6", "", "718-77"])
def test_loinc_check_digit_wrong(code: str) -> None:
    assert digits.loinc(code) != ""


@pytest.mark.parametrize(
    ("system", "code", "display", "finding"),
    [
        (GENDER, "male", "Male", "ok"),
        (GENDER, "male", None, "ok"),
        (GENDER, "male", "Mann", "wrong-display"),
        (GENDER, "martian", None, "unknown-code"),
        ("http://example.org/local", "x", None, "unknown-system"),
        ("", "x", None, "unknown-system"),
        (LOINC, "718-7", None, "unknown-system"),
        (LOINC, "718-8", None, "malformed"),
        (SNOMED, "73211009", None, "unknown-system"),
        (SNOMED, "73211008", None, "malformed"),
        (UCUM, "mg/dL", None, "ok"),
        (UCUM, "mg%%", None, "malformed"),
    ],
)
def test_verdicts_with_nothing_loaded(terms: Terms, system: str, code: str, display: str | None, finding: str) -> None:
    assert terms.check(system, code, display).finding == finding


def test_terms_can_be_a_key() -> None:
    made = open_terms()
    assert {made: 1}[made] == 1


def test_maps_translate_local_codes() -> None:
    target = {"code": "male", "equivalence": "equivalent"}
    group = {"source": "http://example.org/sex", "target": GENDER, "element": [{"code": "M", "target": [target]}]}
    made = open_terms().with_resources([{"resourceType": "ConceptMap", "url": "http://example.org/map", "status": "active", "group": [group]}])
    assert made.translate("http://example.org/sex", "M") == [{"system": GENDER, "code": "male"}]
    assert made.translate("http://example.org/sex", "X") == []


def test_inactive_code_names_its_replacement() -> None:
    res = {
        "resourceType": "CodeSystem",
        "url": "http://example.org/cs",
        "status": "active",
        "content": "complete",
        "concept": [
            {"code": "a", "property": [{"code": "inactive", "valueBoolean": True}, {"code": "replacedBy", "valueCode": "b"}]},
            {"code": "b"},
        ],
    }
    verdict = open_terms().with_resources([res]).check("http://example.org/cs", "a")
    assert (verdict.finding, verdict.replacement) == ("inactive", "b")


def test_every_coding_of_a_resource_is_judged_and_named(terms: Terms) -> None:
    res = {
        "resourceType": "Observation",
        "code": {"coding": [{"system": LOINC, "code": "718-8"}, {"system": "http://example.org/lab", "code": "HB"}]},
        "valueQuantity": {"value": 1, "system": UCUM, "code": "furlongs"},
    }
    issues = codings_judge(terms, "lab1")(res)
    assert sorted((i.severity, i.expression, i.details) for i in issues) == [
        ("warning", "Observation.code.coding[0]", "malformed"),
        ("warning", "Observation.valueQuantity", "malformed"),
    ]
    assert terms.take_unknown() == {("lab1", "http://example.org/lab", "HB"): (1, "")}
    assert terms.take_unknown() == {}


def test_policy_rejects_for_fhir_and_flags_for_hl7_v2() -> None:
    rows = read_rows(["system,source,malformed\n", f"{LOINC},lab1,reject\n"])
    base = open_terms()
    strict = Terms([base.library], Policy((*rows, *base.policy.rows)))
    res = {"resourceType": "Observation", "code": {"coding": [{"system": LOINC, "code": "718-8"}]}}
    assert [i.severity for i in codings_judge(strict, "lab1")(res)] == ["error"]
    assert [i.severity for i in codings_judge(strict, "lab1", flag_only=True)(res)] == ["warning"]
    assert [i.severity for i in codings_judge(strict, "lab2")(res)] == ["warning"]


def test_an_empty_cell_of_the_policy_leaves_it_to_the_next_row() -> None:
    made = Policy(read_rows(["system,source,malformed,translate\n", "s,lab,reject,\n", "s,*,off,on\n", "*,*,warn,off\n"]))
    assert [made.action("malformed", "s", source) for source in ("lab", "other")] == ["reject", "off"]
    assert made.action("malformed", "t", "lab") == "warn"
    assert (made.translates("s", "lab"), made.translates("t", "lab"), made.translating) == (True, False, True)
    assert made.action("inactive", "s", "lab") == "warn"


def test_local_codes_are_translated_where_the_policy_says_so() -> None:
    local = "http://example.org/lab"
    element = [{"code": "HB", "target": [{"code": "718-7", "display": "Hemoglobin", "equivalence": "equivalent"}]}]
    element += [{"code": "GLU", "target": [{"code": "2345-7", "equivalence": "narrower"}]}]
    group = {"source": local, "target": LOINC, "element": element}
    library = open_terms().library.with_resources(
        [{"resourceType": "ConceptMap", "url": "http://example.org/m", "status": "active", "group": [group]}]
    )
    terms = Terms([library], Policy(read_rows(["system,source,translate\n", f"{local},lab1,on\n"])))
    hb = {"coding": [{"system": local, "code": "HB"}], "text": "Hb"}
    res = {"resourceType": "Observation", "code": hb, "component": [{"code": {"coding": [{"system": local, "code": "GLU"}]}}]}
    made = translator(terms, "lab1")(res)
    assert made["code"] == {"coding": [{"system": local, "code": "HB"}, {"system": LOINC, "code": "718-7", "display": "Hemoglobin"}], "text": "Hb"}
    assert made["component"] is res["component"]
    assert len(hb["coding"]) == 1
    assert translator(terms, "lab1")(made) is made
    assert translator(terms, "lab2")(res) is res


def test_the_version_of_a_coding_chooses_the_code_system() -> None:
    def release(version: str, code: str) -> dict[str, object]:
        head = {"resourceType": "CodeSystem", "url": "http://example.org/cs", "status": "active", "content": "complete", "version": version}
        return head | {"concept": [{"code": code}]}

    terms = open_terms().with_resources([release("1", "old"), release("2", "new")])
    assert [terms.check("http://example.org/cs", "old", None, version).finding for version in ("1", "2", None, "7")] == [
        "ok",
        "unknown-code",
        "unknown-code",
        "unknown-code",
    ]


def test_policy_table_with_an_unknown_action_is_refused() -> None:
    with pytest.raises(ValueError, match="line 2"):
        read_rows(["system,source,malformed\n", "*,*,explode\n"])
    with pytest.raises(ValueError, match="no column 'malfromed'"):
        read_rows(["system,source,malfromed\n", "*,*,warn\n"])


def test_bindings_ask_the_value_set(terms: Terms) -> None:
    check_code = code_checker(terms)
    url = "http://hl7.org/fhir/ValueSet/administrative-gender"
    assert check_code(GENDER, "male", None, url, "required") == []
    assert [i.severity for i in check_code(GENDER, "martian", None, url, "required")] == ["error"]
    assert [i.severity for i in check_code(GENDER, "martian", None, url, "extensible")] == ["warning"]
    assert check_code(GENDER, "martian", None, "http://example.org/ValueSet/unknown", "required") == []


def test_members_of_a_value_set_up_to_a_limit(terms: Terms) -> None:
    url = "http://hl7.org/fhir/ValueSet/administrative-gender"
    assert terms.members({"url": url}, 10) == [(GENDER, code) for code in ("male", "female", "other", "unknown")]
    assert len(terms.members({"url": url}, 2) or ()) == 2
    assert terms.members({"url": "http://example.org/unknown"}, 2) is None


def test_hostile_codings_are_judged_without_being_kept(terms: Terms) -> None:
    long = "x" * 100_000
    hostile = [{"system": LOINC, "code": "718-7", "display": {"a": [1]}, "version": 7}, {"system": long, "code": long, "display": long}]
    terms.forget()
    codings_judge(terms, "lab1")({"resourceType": "Observation", "code": {"coding": hostile}})
    assert sum(len(part or "") for key in terms.seen for part in key) < 1000
    assert all(len(part) <= 500 for key in terms.take_unknown() for part in key)
    deep: dict[str, object] = {"system": LOINC, "code": "718-8"}
    for _ in range(5000):
        deep = {"extension": [deep]}
    assert [i.details for i in codings_judge(terms)({"resourceType": "Basic", "extension": [deep]})] == ["malformed"]
