"""Conditions of a mapping row, text -> closure over a Place.

Grammar (the guide's, spelling variants included):
  cond  := either ; either := both {OR both} ; both := test {AND test} ; test := [IF] [NOT] '(' either ')' | [IF] ref {AND|OR ref} predicate
  ref   := PID-3.4 (field of this segment, or of the message's first such segment) | CX.4.2 (component of this data type) | ORC (a segment) | NOTHING
  predicate := [IS|ARE] [NOT] VALUED|EMPTY|EXISTS | EQUALS|=|IS x | NOT EQUALS|<>|IS NOT x | [NOT] IN (x, ...) | COUNT op n | LENGTH op n | STARTS x
`EQUALS` ignores case. A reference that is absent is ''. Raises ValueError for a text that does not parse.
"""

import re
from collections.abc import Callable
from typing import Protocol

from mappers.v2.place import DATATYPES


class Fields(Protocol):
    """A segment as a condition sees it: its name, its raw fields by number."""

    name: str

    @property
    def fields(self) -> list[str]:
        """Raw fields."""


class Place(Protocol):
    """What a condition may ask: the raw first repetition of fields and components where the row stands, and the message."""

    @property
    def segment(self) -> Fields:
        """The segment where the row stands."""

    @property
    def parts(self) -> list[str] | None:
        """Raw components of the data type at hand, None where the row stands in a field."""

    @property
    def raw(self) -> str:
        """Raw text of the repetition of the field at hand, '' where there is none."""

    def value(self, name: str, number: int, component: int) -> str:
        """Decoded text of field or component `number`[.component]; `name` as written, '' for this place's own."""

    def count(self, name: str, number: int) -> int:
        """Repetitions of a field."""

    def has_segment(self, name: str) -> bool:
        """True if the message has such a segment."""


Condition = Callable[[Place], bool]
_TOKEN = re.compile(r"""\s*(?:("[^"]*"|'[^']*')|([()\[\],])|(<=|>=|<>|!=|=|<|>)|(\d+(?=[\s),]|$))|([A-Za-z][A-Za-z0-9_]*(?:[-.:]\d+)*)|(\S))""")
_REF = re.compile(r"([A-Z][A-Z0-9]{1,2})(?:[-.](\d+))?(?:\.(\d+))?$")
_WORDS = {
    "AND",
    "OR",
    "NOT",
    "IF",
    "IS",
    "ARE",
    "IN",
    "VALUED",
    "VALUE",
    "EMPTY",
    "EXISTS",
    "EXIST",
    "EQUALS",
    "EQUAL",
    "COUNT",
    "LENGTH",
    "LST",
    "GREATER",
    "LESS",
    "THAN",
    "TO",
    "DOES",
    "STARTS",
    "WITH",
}
_OPERATORS: dict[str, Callable[[int, int], bool]] = {
    "=": lambda a, b: a == b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    "<>": lambda a, b: a != b,
}


def compile_condition(text: str) -> Condition:
    """A closure for a condition's text; '' is always true."""
    if not text.strip():
        return lambda place: True
    parser = _Parser(_tokens(text), text)
    found = parser.either()
    if parser.at < len(parser.tokens):
        raise ValueError(f"condition not understood at {parser.tokens[parser.at]!r}: {text}")
    return found


def _tokens(text: str) -> list[str]:
    out = []
    for match in _TOKEN.finditer(re.sub(r"\bLST\.COUNT\b", "COUNT", text, flags=re.IGNORECASE).strip()):
        quoted, mark, operator, number, word, other = match.groups()
        if other:
            raise ValueError(f"condition not understood at {other!r}: {text}")
        if quoted:
            out.append('"' + quoted[1:-1])
        elif word and word.upper() in _WORDS:
            out.append(word.upper())
        else:
            out.append(mark or operator or number or word)
    return out


class _Parser:
    def __init__(self, tokens: list[str], text: str) -> None:
        self.tokens = tokens
        self.text = text
        self.at = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, *words: str) -> bool:
        """Take the next tokens if they are these."""
        if self.tokens[self.at : self.at + len(words)] == list(words):
            self.at += len(words)
            return True
        return False

    def either(self) -> Condition:
        tests = [self.both()]
        while self.take("OR"):
            tests.append(self.both())
        return _folded(tests, all_of=False)

    def both(self) -> Condition:
        tests = [self.test()]
        while self.take("AND"):
            tests.append(self.test())
        return _folded(tests, all_of=True)

    def test(self) -> Condition:
        self.take("IF")
        if self.take("NOT"):
            inner = self.test()
            return lambda place: not inner(place)
        if self.take("("):
            found = self.either()
            if not self.take(")"):
                raise ValueError(f"a parenthesis is not closed: {self.text}")
            return found
        return self.comparison()

    def comparison(self) -> Condition:
        refs, any_of = [self.ref()], False
        while self.peek() in ("AND", "OR") and _REF.match(self.tokens[self.at + 1] if self.at + 1 < len(self.tokens) else "") and self._shared():
            any_of = self.peek() == "OR"
            self.at += 1
            refs.append(self.ref())
        test = self.predicate()
        if len(refs) == 1:
            return _quick(refs[0], test)
        fold = any if any_of else all
        return lambda place: fold(test(place, ref) for ref in refs)

    def _shared(self) -> bool:
        """True if the reference after this AND has no predicate before the next one: `PID-1 AND PID-2 VALUED`."""
        last = self.tokens[self.at - 1]
        return bool(_REF.match(last)) and last not in _WORDS

    def ref(self) -> tuple[str, int, int]:
        token = self.peek()
        match = _REF.match(token)
        if not match or token in _WORDS:
            raise ValueError(f"a field was expected at {token!r}: {self.text}")
        self.at += 1
        return match[1], int(match[2] or 0), int(match[3] or 0)

    def predicate(self) -> Callable[[Place, tuple[str, int, int]], bool]:
        negated = self._negation()
        if self.take("VALUED") or self.take("VALUE") or self.take("EXISTS") or self.take("EXIST"):
            return _negate(_valued, negated)
        if self.take("EMPTY"):
            return _negate(_valued, not negated)
        if self.take("IN"):
            return _negate(_one_of(self.values()), negated)
        if self.take("COUNT"):
            return _sized(_count, *self.size())
        if self.take("LENGTH"):
            return _sized(_length, *self.size())
        if self.take("STARTS", "WITH") or self.take("STARTS"):
            return _negate(_starts(self.literal()), negated)
        if self.take("<>") or self.take("!="):
            negated = not negated
        elif not (self.take("EQUALS") or self.take("EQUAL", "TO") or self.take("EQUAL") or self.take("=")) and not self.peek().startswith('"'):
            raise ValueError(f"a predicate was expected at {self.peek()!r}: {self.text}")
        return _negate(_one_of({self.literal()}), negated)

    def _negation(self) -> bool:
        negated = False
        while self.peek() in ("IS", "ARE", "DOES", "NOT"):
            negated ^= self.peek() == "NOT"
            self.at += 1
        return negated

    def literal(self) -> str:
        token = self.peek()
        if not token.startswith('"') and not token.isdecimal():
            raise ValueError(f"a quoted value was expected at {token!r}: {self.text}")
        self.at += 1
        return token.lstrip('"').casefold()

    def values(self) -> set[str]:
        if not self.take("("):
            raise ValueError(f"a list was expected: {self.text}")
        found = {self.literal()}
        while self.take(","):
            found.add(self.literal())
        if not self.take(")"):
            raise ValueError(f"a list is not closed: {self.text}")
        return found

    def size(self) -> tuple[Callable[[int, int], bool], int]:
        words = {"EQUALS": "=", "GREATER": ">", "LESS": "<"}
        token = self.peek()
        self.at += 1
        name = words.get(token, token)
        self.take("THAN")
        if self.take("OR", "EQUALS") or self.take("OR", "EQUAL"):
            name += "="
        if name not in _OPERATORS:
            raise ValueError(f"a comparison was expected at {token!r}: {self.text}")
        return _OPERATORS[name], int(self.literal())


def _folded(tests: list[Condition], *, all_of: bool) -> Condition:
    """All of the tests, or any; two of them, the commonest case, without a loop."""
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        one, other = tests
        return (lambda place: one(place) and other(place)) if all_of else (lambda place: one(place) or other(place))
    fold = all if all_of else any
    return lambda place: fold(test(place) for test in tests)


def _quick(ref: tuple[str, int, int], test: Callable[[Place, tuple[str, int, int]], bool]) -> Condition:
    """The test of one reference; what a plain field of the own segment says is worked out once per text."""
    name, number, component = ref
    if not number or component > 1:
        return lambda place: test(place, ref)
    if test in (_valued, _absent):
        wanted = test is _valued
        return _part_present(ref, wanted=wanted) if name in DATATYPES else _present(ref, wanted=wanted)
    known: dict[str, bool] = {}

    def holds(place: Place) -> bool:
        segment = place.segment
        if segment.name != name:
            return test(place, ref)
        fields = segment.fields
        raw = fields[number] if number < len(fields) else ""
        if raw in known:
            return known[raw]
        found = test(place, ref)
        if (not raw or raw.isalnum()) and len(known) < 64 and len(raw) < 8:
            known[raw] = found
        return found

    return holds


def _present(ref: tuple[str, int, int], *, wanted: bool) -> Condition:
    """Whether a field of the own segment has a value: mostly its first character tells."""
    name, number, _ = ref

    def holds(place: Place) -> bool:
        segment = place.segment
        if segment.name != name:
            return _valued(place, ref) is wanted
        fields = segment.fields
        raw = fields[number] if number < len(fields) else ""
        if not raw:
            return not wanted
        here = place.raw
        return ((raw[0].isalnum() and (not here or here[0].isalnum())) or _valued(place, ref)) is wanted

    return holds


def _part_present(ref: tuple[str, int, int], *, wanted: bool) -> Condition:
    """Whether a component of the data type at hand has a value: mostly its text alone tells."""
    name, number, _ = ref

    def holds(place: Place) -> bool:
        parts = place.parts
        if parts is None or place.segment.name == name:
            return _valued(place, ref) is wanted
        raw = parts[number - 1] if number <= len(parts) else ""
        if not raw:
            return not wanted
        return (raw[0].isalnum() or _valued(place, ref)) is wanted

    return holds


def _absent(place: Place, ref: tuple[str, int, int]) -> bool:
    return not _valued(place, ref)


def _valued(place: Place, ref: tuple[str, int, int]) -> bool:
    name, number, component = ref
    return bool(place.value(name, number, component)) if number else place.has_segment(name)


def _one_of(values: set[str]) -> Callable[[Place, tuple[str, int, int]], bool]:
    return lambda place, ref: place.value(*ref).casefold() in values


def _starts(value: str) -> Callable[[Place, tuple[str, int, int]], bool]:
    return lambda place, ref: place.value(*ref).casefold().startswith(value)


def _count(place: Place, ref: tuple[str, int, int]) -> int:
    return place.count(ref[0], ref[1])


def _length(place: Place, ref: tuple[str, int, int]) -> int:
    return len(place.value(*ref))


def _sized(
    size: Callable[[Place, tuple[str, int, int]], int], compare: Callable[[int, int], bool], limit: int
) -> Callable[[Place, tuple[str, int, int]], bool]:
    return lambda place, ref: compare(size(place, ref), limit)


def _negate(test: Callable[[Place, tuple[str, int, int]], bool], negated: bool) -> Callable[[Place, tuple[str, int, int]], bool]:
    if negated and test is _valued:
        return _absent
    return (lambda place, ref: not test(place, ref)) if negated else test
