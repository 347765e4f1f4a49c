"""fhir.resources as a second opinion: every example is judged by both, and each disagreement is explained in second_opinion.csv."""

import csv
import re
from decimal import Decimal
from pathlib import Path

import pytest

from conformance.models import model_class, plain, second_opinion, typed
from conformance.spec import load_spec
from conformance.validate import checker
from tests.conformance.official import resources

SPEC = load_spec()
EXPLAINED = {
    (row["side"], row["type"]): row["finding"] for row in csv.DictReader((Path(__file__).parent / "second_opinion.csv").open(encoding="utf-8"))
}
TEXTS = {(row["type"], row["finding"]) for row in csv.DictReader((Path(__file__).parent / "second_opinion.csv").open(encoding="utf-8"))}
MAX_SIZE = 300_000


def disagreement(res):
    """None, or (side that finds something wrong, type, finding)."""
    rtype = res["resourceType"]
    theirs = second_opinion(res)
    ours = checker(SPEC, rtype, warnings=False)(res)
    if bool(theirs) == bool(ours):
        return None
    return ("fhir.resources", rtype, re.sub(r"\d+", "N", theirs[0])) if theirs else ("gate", rtype, ours[0].text)


def judged(types):
    wrong, count = [], 0
    for name, res in resources(types=types):
        if len(str(res)) > MAX_SIZE:
            continue
        try:
            found = disagreement(res)
        except KeyError:
            assert res["resourceType"] in WITHOUT_MODEL
            continue
        count += 1
        if found and ((found[0], found[1]) not in EXPLAINED or (found[0] == "fhir.resources" and (found[1], found[2]) not in TEXTS)):
            wrong.append((name, found))
    return count, wrong


WITHOUT_MODEL = frozenset(
    [
        "EffectEvidenceSynthesis",
        "MedicinalProduct",
        "MedicinalProductAuthorization",
        "MedicinalProductContraindication",
        "MedicinalProductIndication",
        "MedicinalProductIngredient",
        "MedicinalProductInteraction",
        "MedicinalProductManufactured",
        "MedicinalProductPackaged",
        "MedicinalProductPharmaceutical",
        "MedicinalProductUndesirableEffect",
        "RiskEvidenceSynthesis",
        "SubstanceNucleicAcid",
        "SubstancePolymer",
        "SubstanceProtein",
        "SubstanceReferenceInformation",
        "SubstanceSourceMaterial",
        "SubstanceSpecification",
    ]
)


def test_the_main_types_are_judged_by_both():
    count, wrong = judged(("Patient", "Observation", "Condition", "Encounter", "MedicationRequest"))
    assert count > 120
    assert wrong == []


@pytest.mark.slow
def test_every_example_is_judged_by_both():
    count, wrong = judged(())
    assert count > 5200
    assert wrong == []


def test_types_without_a_model_are_said_to_have_none():
    for rtype in sorted(SPEC.types):
        if rtype in WITHOUT_MODEL:
            with pytest.raises(KeyError):
                model_class(rtype)
    assert len(SPEC.types - WITHOUT_MODEL) == 128


def test_a_typed_patient_has_attributes_and_comes_back_plain():
    res = {"resourceType": "Patient", "name": [{"family": "Low", "given": ["Ann"]}], "birthDate": "1970-01-01"}
    model = typed(res)
    assert model.name[0].family == "Low"
    assert plain(model) == res


def test_a_second_opinion_names_places_and_no_values():
    told = second_opinion({"resourceType": "Patient", "name": "Ann Low", "birthDate": "yesterday"})
    assert told
    assert not any("Ann" in each or "yesterday" in each for each in told)


def test_decimals_stay_numbers():
    res = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "valueQuantity": {"value": Decimal("1.50")}}
    assert plain(typed(res))["valueQuantity"]["value"] == Decimal("1.5")
