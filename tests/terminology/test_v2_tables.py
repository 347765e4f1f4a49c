"""HL7 v2 code maps as ConceptMaps: what a message's conversion does, $translate answers; a sender's own table stands beside it."""

from datetime import UTC, datetime
from typing import Any

import pytest

from conformance.spec import load_spec
from conformance.validate import validate
from fhir_server.settings import Settings
from fhir_server.terms import MAP_URL, TABLE_URL, concept_maps, terms_of
from mappers.v2.tables import load_tables
from terminology.operations import call
from terminology.service import Terms

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SEX = f"{MAP_URL}administrativesex"
GENDER = "http://hl7.org/fhir/administrative-gender"


@pytest.fixture(scope="module")
def terms(tmp_path_factory: pytest.TempPathFactory) -> Terms:
    data = tmp_path_factory.mktemp("data")
    (data / "lab1" / "codes").mkdir(parents=True)
    (data / "lab1" / "codes" / "AdministrativeSex.csv").write_text(f"from,table,code,display,system\nQ,HL70001,other,Other,{GENDER}\nU,HL70001,-,,\n")
    return terms_of(Settings(data_dir=data), load_spec(), {"lab1": str(data / "lab1")})


def translate(terms: Terms, **given: str) -> tuple[bool, list[dict[str, Any]]]:
    rows = [{"name": name, "valueString": value} for name, value in given.items()]
    status, res = call(terms, "ConceptMap/$translate", {"resourceType": "Parameters", "parameter": rows}, now=NOW)
    assert status == 200, res
    matches = [
        {part["name"]: next(v for k, v in part.items() if k != "name") for part in row["part"]} for row in res["parameter"] if row["name"] == "match"
    ]
    return res["parameter"][0]["valueBoolean"], matches


def test_every_row_of_every_code_map_is_translated(terms: Terms) -> None:
    for name, rows in load_tables().codes.items():
        for row in rows.values():
            found, matches = translate(terms, url=MAP_URL + name, system=TABLE_URL + row["table"][-4:] if row["table"] else "", code=row["from"])
            assert found is bool(row["code"]), (name, row)
            if found:
                assert (matches[0]["concept"]["code"], matches[0]["concept"].get("system", "")) == (row["code"], row["system"])


def test_a_sender_has_its_own_map_and_nobody_else_meets_it(terms: Terms) -> None:
    assert translate(terms, url=f"{SEX}:lab1", system=f"{TABLE_URL}0001", code="Q")[0] is True
    assert translate(terms, url=f"{SEX}:lab1", system=f"{TABLE_URL}0001", code="M")[0] is True
    assert translate(terms, url=f"{SEX}:lab1", system=f"{TABLE_URL}0001", code="U")[0] is False
    assert translate(terms, url=SEX, system=f"{TABLE_URL}0001", code="Q")[0] is False
    matches = translate(terms, system=f"{TABLE_URL}0001", code="Q", targetsystem=GENDER)[1]
    assert matches == []


def test_reverse_translation_finds_the_codes_of_the_table(terms: Terms) -> None:
    found, matches = translate(terms, url=SEX, system=GENDER, code="female", reverse="true")
    assert found is True
    assert matches[0]["concept"] == {"system": f"{TABLE_URL}0001", "code": "F"}


def test_a_table_that_r4_does_not_publish_is_a_code_system(terms: Terms) -> None:
    assert terms.check(f"{TABLE_URL}0360", "MD").finding == "ok"
    assert terms.check(f"{TABLE_URL}0001", "F").finding == "ok"


def test_the_maps_are_valid_resources() -> None:
    spec = load_spec()
    for res in concept_maps(load_tables()):
        errors = [issue for issue in validate(spec, res) if issue.severity == "error"]
        assert errors == [], (res["url"], errors[:3])
