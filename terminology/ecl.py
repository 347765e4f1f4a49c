"""SNOMED CT Expression Constraint Language: text -> tree. https://confluence.ihtsdotools.org/display/DOCECL (brief syntax, ECL 2.2)

Hierarchy operators, member of, conjunction, disjunction, exclusion, refinement with groups, cardinality and reverse attributes, dotted attributes,
description filters (term, language, type, dialect), concept filters, member filters, a field of reference sets, history supplements.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

from terminology.scanner import BadText, Scanner

MAX_LENGTH = 10_000
MAX_DEPTH = 50
MANY = 2**31 - 1


class BadConstraint(BadText):
    """Not ECL, or a part of it that is not supported; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Focus:
    """A concept ('' for the wildcard), or an expression in parentheses."""

    code: str = ""
    inner: "Node | None" = None


@dataclass(frozen=True, slots=True)
class Filter:
    """One criterion of {{ }}. kind: 'D' (description), 'C' (concept) or 'M' (row of a reference set); values: texts, or the inner expression's node.

    The values of a dialect are (how it must favour the term: 'prefer', 'accept', 'prefer accept' or '' for either, alias or reference set).
    """

    kind: str
    name: str
    operator: str
    values: tuple[tuple[str, str], ...] = ()  # (match type, text)
    inner: "Node | None" = None


@dataclass(frozen=True, slots=True)
class Sub:
    """operator focus: '<<', '^' ...; filters: one tuple per {{ }}; history: '' or MIN, MOD, MAX; field: of the reference sets, in lower case."""

    operator: str
    member: bool
    focus: Focus
    filters: tuple[tuple[Filter, ...], ...] = ()
    history: str = ""
    field: str = ""


@dataclass(frozen=True, slots=True)
class Compound:
    """AND, OR or MINUS of expressions."""

    operator: str
    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Attribute:
    """[low..high] R name comparison value. value: a node, or ('#', number text), or ('"', text)."""

    name: "Node"
    comparison: str
    value: "Node | None"
    literal: tuple[str, str] = ("", "")
    low: int = 1
    high: int = MANY
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """[low..high] { attributes }."""

    inner: "Refinement"
    low: int = 1
    high: int = MANY


@dataclass(frozen=True, slots=True)
class Joined:
    """AND or OR of attributes, groups and joined ones."""

    operator: str
    parts: tuple["Refinement", ...]


@dataclass(frozen=True, slots=True)
class Refined:
    """focus : refinement."""

    focus: "Node"
    refinement: "Refinement"


@dataclass(frozen=True, slots=True)
class Dotted:
    """focus . attribute . attribute ..."""

    focus: "Node"
    attributes: tuple["Node", ...] = field(default=())


Node = Sub | Compound | Refined | Dotted
Refinement = Attribute | Group | Joined
Part = TypeVar("Part")

_BLANK = re.compile(r"(?:\s+|/\*.*?\*/)+", re.DOTALL)
_OPERATOR = re.compile(r"<<!|>>!|<!|>!|<<|>>|!!>|!!<|<|>")
_CODE = re.compile(r"[1-9][0-9]{5,17}")
_TERM = re.compile(r"\|[^|]*\|")
_WORD = re.compile(r"(and|or|minus)(?=[\s(<>^*\[{/]|[0-9]|$)", re.IGNORECASE)
_CARDINALITY = re.compile(r"\[\s*(\d+)\s*(?:\.\.|to)\s*(\d+|\*)\s*\]")
_COMPARISON = re.compile(r"<=|>=|!=|<>|=|<|>")
_NUMBER = re.compile(r"#([+-]?\d+(?:\.\d+)?)")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_BOOLEAN = re.compile(r"(true|false)\b", re.IGNORECASE)
_REVERSE = re.compile(r"(?:R|reverseOf)\s*(?=[\s\d<>*(^])")
_NAME = re.compile(r"[A-Za-z][A-Za-z]*")
_TEXTS = re.compile(r'\(?\s*(?:"|match|wild|exact)', re.IGNORECASE)
_ALIAS = re.compile(r"[A-Za-z]+(?:-[A-Za-z0-9]+)*")
_ACCEPTABILITY = re.compile(r"(?:prefer(?:red)?|accept(?:able)?)\b|900000000000548007|900000000000549004", re.IGNORECASE)
_HISTORY = re.compile(r"\{\{\s*\+\s*HISTORY(?:[-_]?(MIN|MOD|MAX))?\s*\}\}", re.IGNORECASE)


class _Reader(Scanner):
    """Recursive descent over one text."""

    BLANK, ERROR = _BLANK, BadConstraint

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0

    def peek(self) -> str:
        """The next character, '' at the end."""
        return self.text[self.at : self.at + 1]

    def expression(self) -> Node:
        """expressionConstraint."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.wrong("the expression is nested too deeply")
        node: Node = self.sub()
        if self.sign(":"):
            node = Refined(node, self.refinement())
        elif self.peek() == ".":
            attributes = []
            while self.sign("."):
                attributes.append(self.sub())
            node = Dotted(node, tuple(attributes))
        else:
            node = self.compound(node)
        self.depth -= 1
        return node

    def joint(self) -> str:
        """The word or comma between operands: AND, OR, MINUS, ''."""
        if self.peek() == ",":
            self.sign(",")
            return "AND"
        match = self.take(_WORD)
        return match.group(1).upper() if match is not None else ""

    def compound(self, first: Node) -> Node:
        """AND or OR of any number of operands, or one MINUS; different ones need parentheses."""
        start = self.at
        operator = self.joint()
        if not operator:
            return first
        parts = [first, self.sub()]
        while True:
            start = self.at
            following = self.joint()
            if not following:
                return Compound(operator, tuple(parts))
            if following != operator or operator == "MINUS":
                self.at = start
                raise self.wrong("different operators need parentheses")
            parts.append(self.sub())

    def sub(self) -> Sub:
        """subExpressionConstraint."""
        match = self.take(_OPERATOR)
        member = self.sign("^")
        field = self.field() if member else ""
        focus = self.focus()
        filters, history = [], ""
        while self.text.startswith("{{", self.at):
            found = self.take(_HISTORY)
            if found is not None:
                history = (found.group(1) or "MAX").upper()
            else:
                filters.append(self.filters())
                if filters[-1][0].kind == "M" and not member:
                    raise self.wrong("a member filter stands behind members of a reference set (^)")
        return Sub(match.group() if match is not None else "", member, focus, tuple(filters), history, field)

    def field(self) -> str:
        """[name] between ^ and the reference set: what stands in that field is meant. One field, since a set of concepts is the answer."""
        if not self.sign("["):
            return ""
        match = self.take(_NAME)
        if match is None or not self.sign("]"):
            raise self.wrong("the name of one field and ']' are expected")
        return match.group().lower()

    def focus(self) -> Focus:
        """A concept, the wildcard or parentheses."""
        if self.sign("("):
            inner = self.expression()
            self.need(")")
            return Focus(inner=inner)
        if self.sign("*"):
            return Focus()
        match = self.take(_CODE)
        if match is None:
            raise self.wrong("a concept, '*' or '(' is expected")
        self.take(_TERM)
        return Focus(match.group())

    def refinement(self) -> Refinement:
        """eclRefinement: attributes and groups."""
        return self.joined(self.refined)

    def joined(self, part: "Callable[[], Refinement]") -> Refinement:
        """Operands of one kind, joined by AND or by OR."""
        parts = [part()]
        operator = ""
        while True:
            start = self.at
            following = self.joint()
            if not following or following == "MINUS":
                self.at = start
                return parts[0] if len(parts) == 1 else Joined(operator, tuple(parts))
            if operator and following != operator:
                self.at = start
                raise self.wrong("AND and OR need parentheses")
            operator = following
            parts.append(part())

    def refined(self) -> Refinement:
        """A group, an attribute, or a refinement in parentheses."""
        start = self.at
        low, high = self.cardinality()
        if self.peek() == "{" and not self.text.startswith("{{", self.at):
            self.need("{")
            inner = self.joined(self.attribute)
            self.need("}")
            return Group(inner, low, high)
        self.at = start
        return self.attribute()

    def cardinality(self) -> tuple[int, int]:
        """[low..high], (1, many) if absent."""
        match = self.take(_CARDINALITY)
        if match is None:
            return 1, MANY
        return int(match.group(1)), MANY if match.group(2) == "*" else int(match.group(2))

    def attribute(self) -> Refinement:
        """[cardinality] [R] name comparison value; or attributes in parentheses."""
        start = self.at
        if self.peek() == "(":
            nested = self.nested()
            if nested is not None:
                return nested
            self.at = start
        low, high = self.cardinality()
        reverse = self.take(_REVERSE) is not None
        name = self.sub()
        match = self.take(_COMPARISON)
        if match is None:
            raise self.wrong("'=' or another comparison is expected")
        comparison = "!=" if match.group() == "<>" else match.group()
        for sign, pattern in (("#", _NUMBER), ('"', _STRING), ("b", _BOOLEAN)):
            literal = self.take(pattern)
            if literal is not None:
                return Attribute(name, comparison, None, (sign, literal.group(1)), low, high, reverse)
        if comparison not in ("=", "!="):
            raise self.wrong("a number is expected")
        return Attribute(name, comparison, self.sub(), ("", ""), low, high, reverse)

    def nested(self) -> Refinement | None:
        """A refinement in parentheses; None if the parentheses are those of an attribute name."""
        self.need("(")
        try:
            inner = self.joined(self.refined)
        except BadConstraint:
            return None
        if not self.sign(")") or self.peek() in ("=", "!", "<", ">"):
            return None
        return inner

    def filters(self) -> tuple[Filter, ...]:
        """The criteria of one {{ }}."""
        self.need("{{")
        kind = "D"
        match = re.compile(r"[DCMdcm](?=\s)").match(self.text, self.at)
        if match is not None:
            kind = match.group().upper()
            self.at = match.end()
            self.blank()
        found = [self.criterion(kind)]
        while self.sign(","):
            found.append(self.criterion(kind))
        self.need("}}")
        return tuple(found)

    def criterion(self, kind: str) -> Filter:
        """name comparison value."""
        match = self.take(_NAME)
        if match is None or (kind in NAMES and match.group().lower() not in NAMES[kind]):
            raise self.wrong(f"{'a description' if kind == 'D' else 'a concept'} filter of this name is not supported")
        name = match.group().lower()
        comparison = self.take(_COMPARISON)
        if comparison is None:
            raise self.wrong("a comparison is expected")
        operator = "!=" if comparison.group() == "<>" else comparison.group()
        if name in ("dialect", "dialectid") and self.peek() not in ("<", ">", "^", "*"):
            return Filter(kind, name, operator, self.dialects())
        if name in ("moduleid", "definitionstatusid", "typeid", "dialectid"):
            return Filter(kind, name, operator, inner=self.expression() if self.peek() != "(" else self.listed())
        if kind == "M" and name not in ("active", "effectivetime") and not _TEXTS.match(self.text, self.at):
            number = self.take(_NUMBER)
            if number is not None:
                return Filter(kind, name, operator, (("#", number.group(1)),))
            if self.take(_BOOLEAN) is None:
                return Filter(kind, name, operator, inner=self.expression() if self.peek() != "(" else self.listed())
            raise self.wrong("a concept, a number or a text is expected")
        return Filter(kind, name, operator, tuple(self.values()))

    def dialects(self) -> tuple[tuple[str, str], ...]:
        """One dialect, or several in parentheses, each with its acceptability; one behind the parentheses is for those that have none of their own."""
        many = self.sign("(")
        found: list[tuple[str, str]] = []
        while not found or (many and not self.sign(")")):
            match = self.take(_CODE) or self.take(_ALIAS)
            if match is None:
                raise self.wrong("a dialect is expected")
            self.take(_TERM)
            found.append((self.acceptability(), match.group().lower()))
        general = self.acceptability() if many else ""
        return tuple((own or general, name) for own, name in found)

    def acceptability(self) -> str:
        """'prefer', 'accept', 'prefer accept' or '': a set of words or of their concepts in parentheses, if there is one."""
        if self.peek() != "(":
            return ""
        self.need("(")
        found: set[str] = set()
        while not found or not self.sign(")"):
            match = self.take(_ACCEPTABILITY)
            if match is None:
                raise self.wrong("'prefer' or 'accept' is expected")
            self.take(_TERM)
            found.add("prefer" if match.group().lower().startswith(("p", "900000000000548007")) else "accept")
        return " ".join(sorted(found, reverse=True))

    def listed(self) -> Node:
        """A set of concepts '(a b c)', or an expression in parentheses."""
        start = self.at
        self.need("(")
        codes = []
        while (match := self.take(_CODE)) is not None:
            self.take(_TERM)
            codes.append(match.group())
        if len(codes) > 1 and self.sign(")"):
            return Compound("OR", tuple(Sub("", False, Focus(code)) for code in codes))
        self.at = start
        return self.expression()

    def values(self) -> Sequence[tuple[str, str]]:
        """One value, or several in parentheses; each with its match type."""
        many = self.sign("(")
        found = [self.value()]
        while many and not self.sign(")"):
            found.append(self.value())
        return found

    def value(self) -> tuple[str, str]:
        """match:"..", wild:"..", exact:"..", a bare string, number or word."""
        match = self.take(re.compile(r"(match|wild|exact)\s*:\s*", re.IGNORECASE))
        how = match.group(1).lower() if match is not None else "match"
        text = self.take(_STRING)
        if text is not None:
            return how, re.sub(r"\\(.)", r"\1", text.group(1))
        plain = self.take(re.compile(r"[A-Za-z0-9-]+"))
        if plain is None:
            raise self.wrong("a value is expected")
        return how, plain.group()


NAMES = {
    "D": frozenset({"term", "language", "type", "typeid", "dialect", "dialectid", "active"}),
    "C": frozenset({"definitionstatus", "definitionstatusid", "moduleid", "effectivetime", "active"}),
}


@lru_cache(maxsize=1024)
def parse(text: str) -> Node:
    """The tree of an expression constraint. Raises BadConstraint."""
    if len(text) > MAX_LENGTH:
        raise BadConstraint(f"an expression has at most {MAX_LENGTH} characters")
    reader = _Reader(text)
    node = reader.expression()
    reader.end()
    return node
