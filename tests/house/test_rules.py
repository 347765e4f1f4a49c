"""The house rules are part of the tests."""

from tests.house import rules


def test_house_rules_are_kept() -> None:
    assert rules.problems() == []
