"""Every rule of every StructureDefinition: broken copies of the official examples are refused, at the element that was broken."""

from collections import Counter

import pytest

from conformance.spec import load_spec
from conformance.validate import checker
from tests.conformance.mutations import mutations
from tests.conformance.official import resources
from tests.conformance.test_examples import ARGUED

SPEC = load_spec()
PARTS = 8
MAX_BYTES = 12_000  # larger examples repeat the same elements


def found(mutation):
    """True if an error stands at the broken element or below it."""
    issues = checker(SPEC, mutation.res["resourceType"], warnings=False)(mutation.res)
    return any(issue.expression == mutation.path or issue.expression.startswith((mutation.path + ".", mutation.path + "[")) for issue in issues)


def run(types, per_type, step):
    """(mutations made, missed ones by kind and path) over examples of these types; each kind at each path is tried once."""
    made, missed, seen, taken = Counter(), Counter(), set(), Counter()
    for name, res in resources(types=types):
        rtype = res["resourceType"]
        if name in ARGUED or taken[rtype] >= per_type or len(str(res)) > MAX_BYTES or rtype == "Bundle":
            continue
        taken[rtype] += 1
        for number, mutation in enumerate(mutations(SPEC, res)):
            key = (mutation.kind, "".join(each for each in mutation.path if not each.isdigit()))
            if key in seen or number % step:
                continue
            seen.add(key)
            made[mutation.kind] += 1
            if not found(mutation):
                missed[key] += 1
    return made, missed


def test_mutations_of_the_five_main_types_are_found():
    made, missed = run(("Patient", "Observation", "Encounter", "Condition", "MedicationRequest"), 4, 1)
    assert set(made) == {"drop", "exceed", "empty", "type", "form", "binding", "target", "choice", "unknown"}
    assert missed.total() <= 0.01 * made.total(), missed


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_99_percent_of_the_mutations_of_all_types_are_found(part, capsys):
    """Three examples a type; in parts, so that each is run whole on a small machine."""
    made, missed = run(sorted(SPEC.types)[part::PARTS], 3, 1)
    with capsys.disabled():
        print(f"\nmutations, part {part + 1} of {PARTS}: {made.total() - missed.total()} of {made.total()} found")
    assert made.total() > 500
    assert missed.total() <= 0.01 * made.total(), missed.most_common(40)
