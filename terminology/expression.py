"""SNOMED CT compositional grammar: the text of a post-coordinated expression -> its concept references, or where it is wrong.

https://confluence.ihtsdotools.org/display/DOCSCG/5.1+Normative+Specification (long and brief symbols of definition status, focus concepts, refinements,
attribute groups, nested expressions, concrete values); in a Coding: https://hl7.org/fhir/R4/snomedct.html#4.3.1.0.3
"""

import re
from dataclasses import dataclass

from terminology.scanner import BadText, Scanner

MAX_LENGTH, MAX_DEPTH = 10_000, 20
COMPOSED = re.compile(r"[:+={}()|<]")
_BLANK = re.compile(r"[ \t\r\n]*")
_CODE = re.compile(r"[1-9][0-9]{5,17}(?![0-9])")
_TERM = re.compile(r"\|[ \t]*([^|]*?)[ \t]*\|")
_STATUS = re.compile(r"===|<<<")
_STRING = re.compile(r'"(?:[^"\\]|\\["\\])+"')
_NUMBER = re.compile(r"#[+-]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?![0-9.])")
_BOOLEAN = re.compile(r"(?:true|false)(?![a-z])", re.IGNORECASE)


class BadExpression(BadText):
    """Not an expression; the text says at which character and what is expected there."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A concept in an expression: part is focus, attribute or value; term '' where none is written."""

    code: str
    term: str
    part: str


class _Reader(Scanner):
    """Recursive descent; `found` collects the references."""

    BLANK, ERROR = _BLANK, BadExpression

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.found: list[Reference] = []

    def reference(self, part: str) -> None:
        """conceptReference: an identifier, and a term between bars."""
        code = self.take(_CODE)
        if code is None:
            raise self.wrong("a concept identifier is expected")
        term = self.take(_TERM)
        if term is None and self.text.startswith("|", self.at):
            raise self.wrong("a term between two bars is expected")
        if term is not None and not term.group(1):
            raise self.wrong("a term between the bars before it is expected")
        self.found.append(Reference(code.group(), term.group(1) if term is not None else "", part))

    def expression(self, depth: int) -> None:
        """subExpression: focus concepts, and a refinement behind a colon."""
        if depth > MAX_DEPTH:
            raise self.wrong("the expression is nested too deeply")
        self.reference("focus" if depth == 0 else "value")
        while self.sign("+"):
            self.reference("focus" if depth == 0 else "value")
        if self.sign(":"):
            self.refinement(depth)

    def refinement(self, depth: int) -> None:
        """Attributes, then groups; a comma between groups may be left out."""
        if not self.text.startswith("{", self.at):
            self.attribute(depth)
            while self.sign(","):
                if self.text.startswith("{", self.at):
                    break
                self.attribute(depth)
        while self.sign("{"):
            self.attribute(depth)
            while self.sign(","):
                self.attribute(depth)
            self.need("}")
            if self.sign(",") and not self.text.startswith("{", self.at):
                raise self.wrong("'{' is expected")

    def attribute(self, depth: int) -> None:
        """name = value, which is a concept, an expression in parentheses, or a concrete value."""
        self.reference("attribute")
        self.need("=")
        if self.sign("("):
            self.expression(depth + 1)
            self.need(")")
        elif not any(self.take(pattern) for pattern in (_STRING, _NUMBER, _BOOLEAN)):
            self.reference("value")


def read(text: str) -> list[Reference]:
    """The references of an expression in the order of the text. Raises BadExpression."""
    if len(text) > MAX_LENGTH:
        raise BadExpression(f"an expression has at most {MAX_LENGTH} characters")
    reader = _Reader(text)
    reader.take(_STATUS)
    reader.expression(0)
    reader.end()
    return reader.found
