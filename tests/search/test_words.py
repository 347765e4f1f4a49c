"""The words of texts, as `_text` and `_content` compare them, and where they are kept."""

import re
import string

from hypothesis import given
from hypothesis import strategies as st

from conformance.spec import load_spec
from fhir_server.search import fold
from fhir_server.search.extract import extractor

EXTRACT = extractor(load_spec(), None, "http://test/fhir")


@given(st.text(string.printable, max_size=300))
def test_the_words_of_a_plain_text_are_those_that_any_text_would_have(text: str) -> None:
    assert fold.words(text) == tuple(dict.fromkeys(word[: fold.MAX_WORD] for word in re.findall(r"\w+", text.casefold())))
    assert fold.words(text + " \u00e9")[:-1] == fold.words(text) or "e" in fold.words(text)


def test_a_long_text_is_not_kept_in_memory() -> None:
    before = fold._words_kept.cache_info().currsize
    assert fold.words("a narrative of one patient " * 10)[:3] == ("a", "narrative", "of")
    assert fold._words_kept.cache_info().currsize == before


def test_a_word_of_the_narrative_is_not_stored_again_for_the_rest() -> None:
    res = {
        "resourceType": "Basic",
        "id": "1",
        "text": {"status": "additional", "div": "<div>low Potassium</div>"},
        "code": {"text": "potassium high"},
    }
    assert EXTRACT(res)["t"][-3:] == ["n~low", "n~potassium", "c~high"]
    del res["text"]
    assert EXTRACT(res)["t"][-2:] == ["c~potassium", "c~high"]


def test_the_first_patient_stands_apart_and_others_make_members() -> None:
    subject, other = {"reference": "Patient/1"}, {"reference": "Patient/2"}
    res = {"resourceType": "Observation", "id": "1", "subject": subject, "performer": [other, subject, other], "effectiveDateTime": "2024-05-01"}
    index = EXTRACT(res)
    assert index["p"] == "Patient/1"
    assert [key for key in index["k"] if "Patient" in key] == ["performer=Patient/2", "performer=Patient/1", "@Patient/2"]
    assert index["d"] == index["r"][0]["l"]
