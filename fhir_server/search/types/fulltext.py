"""`_text` and `_content`: words joined by AND, OR, NOT and parentheses. https://hl7.org/fhir/R4/search.html#text

expression = all { OR all }      all = part { [AND] part }      part = (NOT | '-') part | '(' expression ')' | word | "words"

AND and OR count in any case, as the standard's example has them; `not` is a word of many texts, so only NOT negates. A word with '*' behind it is a
start. Of words in quotes all must be there, wherever they stand: their order is not stored.
"""

import re
from dataclasses import dataclass

from fhir_server.query.clauses import Clause, Text, both, either, negated
from fhir_server.search.asked import Asked
from fhir_server.search.escape import unescape
from fhir_server.search.fold import words

TOKEN = re.compile(r'\s*(?:(?P<mark>[()]|-(?=[^\s()-]))|"(?P<quoted>[^"]*)"|(?P<word>[^\s()"]+))')
MOST_TERMS, MOST_DEPTH = 50, 20
HEADS = {"_text": ("n~",), "_content": ("n~", "c~")}


def text_search(asked: Asked, text: str) -> Clause:
    """The clause of an expression. Raises 400 for what is none."""
    parser = _Parser(asked, _tokens(asked, unescape(text).rstrip()))
    made = parser.any(0)
    if parser.at < len(parser.tokens):
        raise asked.wrong("a parenthesis is closed that was not opened")
    return made


def _tokens(asked: Asked, text: str) -> list[str]:
    """Marks, words, and quoted words with their first quote."""
    found, at = [], 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            raise asked.wrong("a quote is not closed")
        found.append(match["mark"] or match["word"] or f'"{match["quoted"]}')
        at = match.end()
    if not found or len(found) > MOST_TERMS:
        raise asked.wrong(f"the value must have 1 to {MOST_TERMS} words")
    return found


@dataclass(slots=True)
class _Parser:
    asked: Asked
    tokens: list[str]
    at: int = 0

    def _peek(self) -> str:
        found = self.tokens[self.at] if self.at < len(self.tokens) else ")"
        return found.upper() if found.upper() in ("AND", "OR") else found

    def any(self, depth: int) -> Clause:
        """Parts joined by OR."""
        found = [self._all(depth)]
        while self._peek() == "OR":
            self.at += 1
            found.append(self._all(depth))
        return either(*found)

    def _all(self, depth: int) -> Clause:
        found = [self._part(depth)]
        while self._peek() not in ("OR", ")"):
            self.at += self._peek() == "AND"
            found.append(self._part(depth))
        return both(*found)

    def _part(self, depth: int) -> Clause:
        found = self._peek()
        if found in (")", "AND", "OR") or depth > MOST_DEPTH:
            raise self.asked.wrong("a word is missing, or there are too many parentheses")
        self.at += 1
        if found in ("NOT", "-"):
            return negated(self._part(depth + 1))
        if found != "(":
            return _term(self.asked, found)
        made = self.any(depth + 1)
        if self.at >= len(self.tokens):
            raise self.asked.wrong("a parenthesis is not closed")
        self.at += 1
        return made


def _term(asked: Asked, term: str) -> Clause:
    found = words(term)
    if not found:
        raise asked.wrong("a word has no letter or digit")
    last = len(found) - 1
    heads = HEADS[asked.field.code]
    return both(*(either(*(Text(head + word, whole=not (term.endswith("*") and at == last)) for head in heads)) for at, word in enumerate(found)))
