"""Reading a text from left to right: what the parsers of SNOMED CT's two languages (`ecl.py`, `expression.py`) share."""

import re
from typing import ClassVar


class BadText(ValueError):
    """The text is not of the language; it says at which character and why."""


class Scanner:
    """A place in a text; each reader moves it behind what it has read and the blanks there. Languages differ in their blanks and their error."""

    BLANK: ClassVar[re.Pattern[str]] = re.compile(r"\s*")
    ERROR: ClassVar[type[BadText]] = BadText

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.blank()

    def blank(self) -> None:
        """Skips blanks."""
        match = self.BLANK.match(self.text, self.at)
        if match is not None:
            self.at = match.end()

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Reads a pattern if it is there."""
        match = pattern.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
            self.blank()
        return match

    def sign(self, text: str) -> bool:
        """Reads a fixed text if it is there."""
        if not self.text.startswith(text, self.at):
            return False
        self.at += len(text)
        self.blank()
        return True

    def need(self, text: str) -> None:
        """Reads a fixed text. Raises ERROR."""
        if not self.sign(text):
            raise self.wrong(f"'{text}' is expected")

    def end(self) -> None:
        """Raises ERROR if anything is left."""
        if self.at < len(self.text):
            raise self.wrong("the end is expected")

    def wrong(self, why: str) -> BadText:
        """An error at this place."""
        return self.ERROR(f"character {self.at + 1}: {why}")
