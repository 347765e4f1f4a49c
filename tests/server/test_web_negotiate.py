"""Content negotiation. https://hl7.org/fhir/R4/http.html#mime-type"""

import pytest

from conformance.outcome import Refusal
from fhir_server.web import negotiate
from fhir_server.web.negotiate import JSON, OTHER, XML


@pytest.mark.parametrize(
    ("format_param", "accept", "expected"),
    [
        ("", "", JSON),
        ("", "application/fhir+xml", XML),
        ("", "application/fhir+json;q=0.5, application/fhir+xml", XML),
        ("", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", JSON),
        ("", "application/fhir+xml;q=0, application/json", JSON),
        ("xml", "application/fhir+json", XML),
        ("json", "application/fhir+xml", JSON),
        ("application/fhir xml", "", XML),  # a '+' that the client did not percent-encode arrives as a blank
        ("text/xml", "", XML),
        ("", "application/fhir+json; fhirVersion=4.0", JSON),
        ("", "application/fhir+json; fhirVersion=3.0, application/fhir+xml; fhirVersion=4.0", XML),
    ],
)
def test_format_parameter_wins_over_accept_and_quality_orders(format_param: str, accept: str, expected: str) -> None:
    assert negotiate.wanted(format_param, accept).format == expected


@pytest.mark.parametrize(
    ("format_param", "accept"), [("turtle", ""), ("", "application/fhir+json;fhirVersion=3.0"), ("application/fhir+json;fhirVersion=5.0", "")]
)
def test_no_representation_both_sides_know_is_406(format_param: str, accept: str) -> None:
    with pytest.raises(Refusal) as caught:
        negotiate.wanted(format_param, accept)
    assert caught.value.status == 406


@pytest.mark.parametrize("accept", ["text/turtle", "image/png", "application/fhir+turtle", "nonsense", "image/png, application/fhir+json;q=0"])
def test_a_client_that_takes_no_format_of_fhir_can_only_have_binary_content(accept: str) -> None:
    want = negotiate.wanted("", accept)
    assert (want.raw, want.acceptable) == (True, False)


@pytest.mark.parametrize(
    ("accept", "raw"),
    [
        ("", True),
        ("*/*", True),
        ("application/*", True),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("image/png, application/fhir+json", True),
        ("application/fhir+json, image/png", False),
        ("application/fhir+xml", False),
        ("application/json", False),
        ("application/fhir+json, */*;q=0.1", False),
    ],
)
def test_a_binary_is_shown_as_itself_unless_a_format_of_fhir_is_named_first(accept: str, raw: bool) -> None:
    want = negotiate.wanted("", accept)
    assert (want.raw, want.acceptable) == (raw, True)
    assert not negotiate.wanted("json", accept).raw


def test_a_range_does_not_stand_for_what_has_quality_zero() -> None:
    assert negotiate.wanted("", "application/fhir+json;q=0, */*").format == XML


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/fhir+json; charset=UTF-8", JSON),
        ("application/json", JSON),
        ("application/fhir+xml;fhirVersion=4.0", XML),
        ("image/png", OTHER),
        ("", OTHER),
        ("*/*", OTHER),
    ],
)
def test_body_format(content_type: str, expected: str) -> None:
    assert negotiate.body_format(content_type) == expected


@pytest.mark.parametrize("content_type", ["application/fhir+json;charset=latin-1", "application/fhir+json;fhirVersion=3.0"])
def test_a_charset_or_version_we_do_not_read_is_415(content_type: str) -> None:
    with pytest.raises(Refusal) as caught:
        negotiate.body_format(content_type)
    assert caught.value.status == 415


def test_a_patch_in_another_charset_is_415() -> None:
    negotiate.check_charset("application/json-patch+json; charset=utf-8")
    with pytest.raises(Refusal) as caught:
        negotiate.check_charset("application/json-patch+json; charset=iso-8859-1")
    assert caught.value.status == 415


def test_prefer_keeps_what_fhir_names_and_ignores_the_rest() -> None:
    assert dict(negotiate.prefer("return=minimal; handling=lenient, respond-async, wait=10")) == {
        "return": "minimal",
        "handling": "lenient",
        "respond-async": "true",
    }
    assert dict(negotiate.prefer("return=everything")) == {}


def test_pretty_must_be_a_boolean() -> None:
    assert negotiate.pretty(["true"])
    assert not negotiate.pretty([])
    with pytest.raises(Refusal):
        negotiate.pretty(["yes"])
