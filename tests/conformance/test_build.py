"""The generated tables are what the official packages say."""

import pytest

from conformance import build
from tests.packages import npm_package


@pytest.mark.slow
def test_rebuilding_the_tables_gives_what_is_in_the_repository():
    examples, expansions = npm_package("hl7.fhir.r4.examples@4.0.1"), npm_package("hl7.fhir.r4.expansions@4.0.1")
    assert build.main([str(examples), str(expansions), "--check"]) == 0


def test_prose_is_stripped_but_fixed_and_pattern_values_are_kept_whole():
    element = {"path": "X.y", "short": "prose", "patternCodeableConcept": {"text": "kept"}, "fixedDate": "2020"}
    assert build.strip(element) == {"path": "X.y", "patternCodeableConcept": {"text": "kept"}, "fixedDate": "2020"}
