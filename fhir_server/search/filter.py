"""`_filter`: its grammar and what its operators mean. https://hl7.org/fhir/R4/search_filter.html

filter = term { (and | or) term }   ('and' and 'or' in one group need parentheses, as the standard says they have equal rank: left to right)
term = [not] '(' filter ')' | path op value          path = param { '.' param } | param '[' filter ']' '.' param
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from conformance.outcome import Refusal, bad_request, not_supported, too_costly
from fhir_server.query.clauses import NOTHING, Clause, Contains, Prefix, both, either, negated
from fhir_server.search.asked import Asked
from fhir_server.search.condition import OWN, Reading, ask, condition, missing, presence, restrict, short, valued
from fhir_server.search.plan import AllOf, AnyOf, Chain, Node, NotOf
from fhir_server.search.schema import schema
from fhir_server.search.types import date, reference, string

TOKEN = re.compile(r'\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<mark>[()\[\]])|(?P<word>[^\s()\[\]"]+))')
MAX_TOKENS, MAX_DEPTH = 400, 20
OPERATORS = ("eq", "ne", "co", "sw", "ew", "gt", "lt", "ge", "le", "ap", "sa", "eb", "pr", "po", "ss", "sb", "in", "ni", "re")
SYSTEMS = {
    "loinc": "http://loinc.org",
    "snomed": "http://snomed.info/sct",
    "rxnorm": "http://www.nlm.nih.gov/research/umls/rxnorm",
    "ucum": "http://unitsofmeasure.org",
}
COMPARED = ("gt", "lt", "ge", "le", "ap", "sa", "eb")


def filter_node(reading: Reading, rtype: str, text: str) -> Node:
    """The condition of a filter expression. Raises Refusal 400."""
    words = _words(text)
    parser = Parser(reading, words)
    node = parser.group(rtype, 0)
    if parser.at != len(words):
        raise malformed("something follows the end of the expression")
    return node


def malformed(what: str) -> Refusal:
    """400 naming `_filter`."""
    return bad_request(f"search parameter '_filter': {what}")


def terms_named(text: str) -> list[str]:
    """The value sets and code systems that the operators of a filter ask the terminology service for; [] if it is malformed."""
    try:
        words = _words(text)
    except Refusal:
        return []
    values = [_named_system(_unquoted(value)) for operator, value in pairwise(words) if operator in ("in", "ni", "ss", "sb")]
    return [value.partition("|")[0] for value in values]


def _words(text: str) -> list[str]:
    words, at, text = [], 0, text.rstrip()
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None:
            raise malformed("a quote is not closed")
        words.append(found.group(str(found.lastgroup)))
        at = found.end()
        if len(words) > MAX_TOKENS:
            raise too_costly(f"search parameter '_filter': more than {MAX_TOKENS} words are not answered")
    if not words:
        raise malformed("the expression is empty")
    return words


@dataclass(slots=True)
class Parser:
    """A recursive descent over the words of one filter."""

    reading: Reading
    words: list[str]
    at: int = 0

    def _next(self) -> str:
        if self.at >= len(self.words):
            raise malformed("the expression ends too early")
        self.at += 1
        return self.words[self.at - 1]

    def _peek(self) -> str:
        return self.words[self.at] if self.at < len(self.words) else ""

    def group(self, rtype: str, depth: int) -> Node:
        """Terms joined by 'and' and 'or', left to right."""
        node = self.term(rtype, depth)
        while self._peek() in ("and", "or"):
            joiner = self._next()
            other = self.term(rtype, depth)
            node = _and(node, other) if joiner == "and" else _or(node, other)
        return node

    def term(self, rtype: str, depth: int) -> Node:
        """One comparison, group or negation."""
        if depth > MAX_DEPTH:
            raise too_costly(f"search parameter '_filter': more than {MAX_DEPTH} levels are not answered")
        word = self._next()
        if word == "not":
            return _not(self.term(rtype, depth + 1))
        if word == "(":
            node = self.group(rtype, depth + 1)
            if self._next() != ")":
                raise malformed("a parenthesis is not closed")
            return node
        if self._peek() == "[":
            return self._selected(rtype, word, depth)
        return self._comparison(rtype, word, depth)

    def _selected(self, rtype: str, head: str, depth: int) -> Node:
        """`param[filter].param op value`: a chain whose target also meets the filter."""
        self._next()
        start = self.at
        asked = ask(self.reading, rtype, head)
        if asked.field.type != "reference":
            raise malformed(f"'{short(head)}' is not a reference")
        nodes: list[Node] = []
        end = start
        for target in reference.allowed(self.reading.spec, asked.field):
            made = self._selected_target(target, start, depth)
            if made is not None:
                nodes.append(Chain(rtype, asked.field, target, made[0]))
                end = made[1]
        if not nodes:
            raise malformed(f"nothing that '{short(head)}' may point at has these parameters")
        self.at = end
        return AnyOf(tuple(nodes))

    def _selected_target(self, target: str, start: int, depth: int) -> tuple[Node, int] | None:
        inner = Parser(self.reading, self.words, start)
        self.reading.budget.step("_filter")
        try:
            condition_inside = inner.group(target, depth + 1)
            if inner._next() != "]":
                raise malformed("a bracket is not closed")
            path = inner._next().removeprefix(".")
            return _and(condition_inside, inner._comparison(target, path, depth + 1)), inner.at
        except Refusal as refusal:
            if "is not known for" in str(refusal):  # this target lacks a parameter; another may have it
                return None
            raise

    def _comparison(self, rtype: str, path: str, depth: int) -> Node:
        operator = self._next()
        if operator not in OPERATORS:
            raise malformed(f"'{short(operator)}' is not an operator")
        value = _unquoted(self._next())
        return compared(self.reading, rtype, path, operator, value, depth)


def _unquoted(word: str) -> str:
    return re.sub(r"\\(.)", r"\1", word[1:-1]) if word.startswith('"') else word


def compared(reading: Reading, rtype: str, path: str, operator: str, value: str, depth: int) -> Node:
    """`path op value`; the path may go through references."""
    head, _, rest = path.partition(".")
    if rest:
        return _through(reading, rtype, head, rest, operator, value, depth)
    asked = ask(reading, rtype, path)
    if operator == "pr":
        if value not in ("true", "false"):
            raise malformed("'pr' needs true or false")
        return missing(restrict(asked, "missing"), "false" if value == "true" else "true")
    if asked.field.type == "token":
        value = _named_system(value)
    escaped = value.replace("\\", "\\\\").replace(",", "\\,")
    if operator in ("eq", "ne", *COMPARED) and asked.field.type in ("date", "number", "quantity"):
        return condition(reading, rtype, path, operator + escaped)
    if operator == "eq":
        return _equal(reading, rtype, asked, escaped)
    if operator == "ne":
        unequal = _not(_equal(reading, rtype, asked, escaped))
        return unequal if asked.field.type in ("composite", "special") else _and(presence(asked), unequal)
    return _special(asked, operator, value)


def _named_system(value: str) -> str:
    """A token with one of the short names that filters may use instead of a system."""
    name, mark, code = value.partition("|")
    return SYSTEMS[name] + mark + code if mark and name in SYSTEMS else value


def _through(reading: Reading, rtype: str, head: str, rest: str, operator: str, value: str, depth: int) -> Node:
    asked = ask(reading, rtype, head)
    if asked.field.type != "reference" or depth > reading.limits.depth:
        raise malformed(f"'{short(head)}' cannot be followed further")
    first = rest.split(".", 1)[0].split(":", 1)[0]
    targets = [one for one in reference.allowed(reading.spec, asked.field) if asked.modifier in ("", one)]
    known = [one for one in targets if first in OWN or first in schema(reading.spec, one).fields]
    if not known:
        raise not_supported(f"search parameter '_filter': '{short(first)}' is not known behind '{short(head)}'")
    steps = []
    for one in known:
        reading.budget.step("_filter")
        steps.append(Chain(rtype, asked.field, one, compared(reading, one, rest, operator, value, depth + 1)))
    return AnyOf(tuple(steps))


def _equal(reading: Reading, rtype: str, asked: Asked, escaped: str) -> Node:
    """`eq` on strings is the whole text, folded."""
    if asked.field.type == "string" and asked.field.code not in OWN:
        folded = valued(asked, escaped.replace("\\,", ","))
        return _whole(folded)
    return condition(reading, rtype, asked.name, escaped)


def _whole(clause: Clause) -> Clause:
    """Prefixes of folded texts made whole: up to the stop."""
    if isinstance(clause, Prefix):
        return Prefix(clause.text + string.STOP)
    return either(*(_whole(part) for part in clause.parts)) if hasattr(clause, "parts") else clause


def _special(asked: Asked, operator: str, value: str) -> Node:
    kind = asked.field.type
    made = _OPERATORS.get((kind, operator))
    if made is None:
        raise not_supported(f"search parameter '_filter': '{operator}' is not supported for '{short(asked.name)}', a {kind}")
    return made(asked, value)


def _contained_text(asked: Asked, value: str, *, ends: bool) -> Clause:
    found = valued(asked, value.replace("\\", "\\\\").replace(",", "\\,").replace("|", "\\|"))
    prefixes = [part.text for part in (found.parts if hasattr(found, "parts") else (found,)) if isinstance(part, Prefix)]
    pairs = [text.split("~", 1) for text in prefixes]
    return either(*(Contains(f"{name}~", text, string.STOP, ends) for name, text in pairs)) if pairs else NOTHING


def _uri_part(asked: Asked, value: str) -> Clause:
    return either(*(Prefix(f"{name}={value}") for name in asked.field.names))


def _uri_contains(asked: Asked, value: str, *, ends: bool) -> Clause:
    if not value:
        raise asked.wrong("the value is empty")
    return either(*(Contains(f"{name}=", value, string.STOP, False) for name in asked.field.names)) if not ends else NOTHING


def _subsumes(asked: Asked, value: str) -> Clause:
    """`ss`: the value subsumes what the resource has."""
    return valued(restrict(asked, "below"), value)


def _subsumed(asked: Asked, value: str) -> Clause:
    """`sb`: what the resource has subsumes the value."""
    return valued(restrict(asked, "above"), value)


def _overlaps(asked: Asked, value: str) -> Clause:
    """`po`: a period of the resource overlaps that of the value."""
    low, high = date.bare(asked, value)
    return date.of(asked.field, (date.Bounds(low_lt=high, high_gt=low),))


def _period_contains(asked: Asked, value: str) -> Clause:
    """`co`: a period of the resource includes that of the value."""
    low, high = date.bare(asked, value)
    return date.of(asked.field, (date.Bounds(low_lt=low + date.MILLISECOND, high_gt=high - date.MILLISECOND),))


def _in(asked: Asked, value: str) -> Clause:
    return valued(restrict(asked, "in"), value)


def _refers(asked: Asked, value: str) -> Clause:
    return valued(asked, value)


_OPERATORS: dict[tuple[str, str], Callable[[Asked, str], Clause]] = {
    ("string", "co"): lambda asked, value: _contained_text(asked, value, ends=False),
    ("string", "sw"): lambda asked, value: valued(asked, value.replace(",", "\\,")),
    ("string", "ew"): lambda asked, value: _contained_text(asked, value, ends=True),
    ("date", "po"): _overlaps,
    ("date", "co"): _period_contains,
    ("uri", "sw"): _uri_part,
    ("uri", "co"): lambda asked, value: _uri_contains(asked, value, ends=False),
    ("uri", "ss"): lambda asked, value: valued(restrict(asked, "below"), value),
    ("uri", "sb"): lambda asked, value: valued(restrict(asked, "above"), value),
    ("token", "sb"): _subsumed,
    ("token", "ss"): _subsumes,
    ("token", "in"): _in,
    ("token", "ni"): lambda asked, value: negated(_in(asked, value)),
    ("reference", "re"): _refers,
}


def _and(left: Node, right: Node) -> Node:
    return both(left, right) if isinstance(left, Clause) and isinstance(right, Clause) else AllOf((left, right))


def _or(left: Node, right: Node) -> Node:
    return either(left, right) if isinstance(left, Clause) and isinstance(right, Clause) else AnyOf((left, right))


def _not(node: Node) -> Node:
    return negated(node) if isinstance(node, Clause) else NotOf(node)
