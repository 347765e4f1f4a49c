"""The abstract syntax of FHIRPath and its tokens. https://hl7.org/fhirpath/N1/#syntax"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from conformance.fhirpath.errors import SyntaxProblem

MAX_LENGTH = 20_000


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant collection: () for `{}`, otherwise one system value."""

    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Name:
    """An element or type name that starts a path or follows a dot."""

    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """A function call."""

    name: str
    args: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Dot:
    """`left.right`: right is a Name or a Call."""

    left: "Node"
    right: "Name | Call"


@dataclass(frozen=True, slots=True)
class At:
    """`left[index]`."""

    left: "Node"
    index: "Node"


@dataclass(frozen=True, slots=True)
class Sign:
    """`-x` or `+x`."""

    op: str
    operand: "Node"


@dataclass(frozen=True, slots=True)
class Binary:
    """`left op right`."""

    op: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class TypeTest:
    """`left is Type` or `left as Type`; type is `Quantity`, `System.Quantity` or `FHIR.Quantity`."""

    op: str
    left: "Node"
    type: str


@dataclass(frozen=True, slots=True)
class Dollar:
    """`$this`, `$index` or `$total`."""

    name: str


@dataclass(frozen=True, slots=True)
class Variable:
    """`%name`."""

    name: str


Node = Literal | Name | Call | Dot | At | Sign | Binary | TypeTest | Dollar | Variable

_DATE = r"[0-9]{4}(?:-[0-9]{2}(?:-[0-9]{2})?)?"
_TIME = r"[0-9]{2}(?::[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?)?"
_TOKEN = re.compile(
    rf"""(?P<blank>[ \t\r\n\f\v\ufeff]+|//[^\n]*|/\*(?s:.*?)\*/)
    |(?P<datetime>@{_DATE}T(?:{_TIME}(?:Z|[+-][0-9]{{2}}:[0-9]{{2}})?)?)
    |(?P<time>@T{_TIME})
    |(?P<date>@{_DATE})
    |(?P<number>[0-9]+(?:\.[0-9]+)?)
    |(?P<string>'(?:[^'\\]|\\.)*')
    |(?P<quoted>`(?:[^`\\]|\\.)*`|"(?:[^"\\]|\\.)*")
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<dollar>\$(?:this|index|total))
    |(?P<op><=|>=|!=|!~|[.\[\]()+\-*/&|<>=~,%{{}}])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_LETTERS = {"f": "\f", "n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True)
class Token:
    """kind: a group name of the lexer or 'end'; text without quotes; offset into the expression."""

    kind: str
    text: str
    offset: int


def tokens(text: str) -> Iterator[Token]:
    """The tokens of an expression, ended by one of kind 'end'. Raises SyntaxProblem with the offset of what is no token."""
    if len(text) > MAX_LENGTH:
        raise SyntaxProblem(f"the expression is longer than {MAX_LENGTH} characters")
    offset = 0
    while offset < len(text):
        found = _TOKEN.match(text, offset)
        if found is None:
            raise SyntaxProblem(f"the expression cannot be read at character {offset + 1}")
        kind = found.lastgroup or ""
        if kind == "op" and found.group() == "/" and text.startswith("/*", offset):
            raise SyntaxProblem("a comment of the expression does not end")
        if kind in ("string", "quoted"):
            yield Token(kind, unescape(found.group()[1:-1]), offset)
        elif kind != "blank":
            yield Token(kind, found.group(), offset)
        offset = found.end()
    yield Token("end", "", offset)


def unescape(text: str) -> str:
    r"""The text of a string literal with `\'`, `\n`, `\u002a` ... replaced."""
    return _ESCAPE.sub(_letter, text) if "\\" in text else text


def _letter(found: re.Match[str]) -> str:
    sign = found.group(1)
    return chr(int(sign[1:], 16)) if len(sign) == 5 else _LETTERS.get(sign, sign)
