"""Every setting is documented where users look, and read from its own variable."""

from dataclasses import fields
from pathlib import Path

import pytest

from fhir_server import settings

ROOT = Path(__file__).resolve().parents[2]


def test_every_setting_names_a_variable_and_says_what_it_does() -> None:
    variables = [one.metadata["variable"] for one in fields(settings.Settings)]
    assert len(set(variables)) == len(variables)
    assert all(one.metadata["variable"].startswith("FHIR_") and len(one.metadata["doc"]) > 15 for one in fields(settings.Settings))


def test_every_setting_stands_in_the_settings_page() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == settings.page(), "run `python -m fhir_server.settings > docs/settings.md`"


def test_variables_are_read_and_flags_win() -> None:
    read = settings.from_environment({"FHIR_PORT": "9000", "FHIR_HOST": "0.0.0.0"}, port=9001)
    assert (read.host, read.port) == ("0.0.0.0", 9001)


def test_a_wrong_value_is_refused_by_the_name_of_its_variable() -> None:
    with pytest.raises(ValueError, match="FHIR_PORT"):
        settings.from_environment({"FHIR_PORT": "eighty"})
