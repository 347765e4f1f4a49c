"""FHIRPath text -> abstract syntax, by precedence climbing. https://hl7.org/fhirpath/N1/#operator-precedence"""

from decimal import Decimal
from functools import lru_cache

from conformance.fhirpath import syntax as ast
from conformance.fhirpath.errors import SyntaxProblem
from conformance.fhirpath.quantity import CALENDAR, Quantity
from conformance.fhirpath.temporal import Temporal

MAX_NESTING = 60
MAX_CHAIN = 200  # operators or dots in a row: each becomes a level of the tree
MAX_DIGITS = 400
LEVELS: dict[str, int] = {
    "implies": 1, "or": 2, "xor": 2, "and": 3, "in": 4, "contains": 4, "=": 5, "~": 5, "!=": 5, "!~": 5,
    "<": 6, "<=": 6, ">": 6, ">=": 6, "|": 7, "is": 8, "as": 8, "+": 9, "-": 9, "&": 9, "*": 10, "/": 10, "div": 10, "mod": 10,
}  # fmt: skip
_WORDS = frozenset(("and", "or", "xor", "implies", "in", "contains", "div", "mod", "is", "as", "true", "false"))
_NAMES = frozenset(("as", "is", "contains", "in"))  # keywords that may also name an element or function


def parse(text: str) -> ast.Node:
    """The syntax tree of an expression. Raises SyntaxProblem."""
    return _remembered(text) if len(text) < 1000 else _parse(text)


def _parse(text: str) -> ast.Node:
    reader = _Reader(text)
    tree = reader.expression(0, 0)
    reader.expect("end", "")
    return tree


_remembered = lru_cache(maxsize=1024)(_parse)


class _Reader:
    """A cursor over the tokens; each method reads one production."""

    def __init__(self, text: str) -> None:
        self.tokens = list(ast.tokens(text))
        self.at = 0

    @property
    def token(self) -> ast.Token:
        return self.tokens[self.at]

    def take(self) -> ast.Token:
        token = self.tokens[self.at]
        self.at += token.kind != "end"
        return token

    def accept(self, text: str) -> bool:
        if self.token.kind in ("op", "name") and self.token.text == text:
            self.at += 1
            return True
        return False

    def expect(self, kind: str, text: str) -> ast.Token:
        if self.token.kind != kind or (text and self.token.text != text):
            raise SyntaxProblem(f"the expression is not FHIRPath at character {self.token.offset + 1}: expected {text or kind}")
        return self.take() if kind != "end" else self.token

    def expression(self, least: int, depth: int) -> ast.Node:
        if depth > MAX_NESTING:
            raise SyntaxProblem(f"the expression is nested deeper than {MAX_NESTING}")
        left = self.unary(depth)
        chain = 0
        while self.token.kind in ("op", "name") and LEVELS.get(self.token.text, 0) > least:
            op = self.take().text
            chain = self.longer(chain)
            if op in ("is", "as"):
                left = ast.TypeTest(op, left, self.type_name())
            else:
                left = ast.Binary(op, left, self.expression(LEVELS[op], depth + 1))
        return left

    def unary(self, depth: int) -> ast.Node:
        if self.token.kind == "op" and self.token.text in ("+", "-"):
            if depth > MAX_NESTING:
                raise SyntaxProblem(f"the expression is nested deeper than {MAX_NESTING}")
            return ast.Sign(self.take().text, self.unary(depth + 1))
        return self.postfix(depth)

    def longer(self, chain: int) -> int:
        if chain >= MAX_CHAIN:
            raise SyntaxProblem(f"the expression has more than {MAX_CHAIN} steps in a row")
        return chain + 1

    def postfix(self, depth: int) -> ast.Node:
        left = self.term(depth)
        chain = 0
        while True:
            chain = self.longer(chain)
            if self.accept("."):
                left = ast.Dot(left, self.invocation(depth, dotted=True))
            elif self.accept("["):
                left = ast.At(left, self.expression(0, depth + 1))
                self.expect("op", "]")
            else:
                return left

    def invocation(self, depth: int, *, dotted: bool = False) -> ast.Name | ast.Call:
        """A name or call; after a dot every word is a name (`text.div`, as R4's own patch cases write it)."""
        token = self.take()
        if token.kind not in ("name", "quoted") or (token.kind == "name" and not dotted and token.text in _WORDS - _NAMES):
            raise SyntaxProblem(f"the expression is not FHIRPath at character {token.offset + 1}: expected a name")
        if self.accept("("):
            return ast.Call(token.text, self.arguments(depth))
        return ast.Name(token.text)

    def arguments(self, depth: int) -> tuple[ast.Node, ...]:
        if self.accept(")"):
            return ()
        found = [self.expression(0, depth + 1)]
        while self.accept(","):
            found.append(self.expression(0, depth + 1))
        self.expect("op", ")")
        return tuple(found)

    def term(self, depth: int) -> ast.Node:
        token = self.token
        if token.kind == "op":
            return self.bracket(depth)
        if token.kind == "dollar":
            return ast.Dollar(self.take().text)
        if token.kind == "name" and token.text in ("true", "false"):
            return ast.Literal((self.take().text == "true",))
        if token.kind in ("name", "quoted"):
            return self.invocation(depth)
        return self.literal()

    def bracket(self, depth: int) -> ast.Node:
        if self.accept("("):
            inner = self.expression(0, depth + 1)
            self.expect("op", ")")
            return inner
        if self.accept("{"):
            self.expect("op", "}")
            return ast.Literal(())
        if self.accept("%"):
            while self.accept("%"):  # a template's escaped percent sign in some published search parameters: `%%resource`
                continue
            token = self.take()
            if token.kind not in ("name", "quoted", "string"):
                raise SyntaxProblem(f"the expression is not FHIRPath at character {token.offset + 1}: expected a variable")
            return ast.Variable(token.text)
        raise SyntaxProblem(f"the expression is not FHIRPath at character {self.token.offset + 1}")

    def literal(self) -> ast.Node:
        token = self.take()
        if token.kind == "string":
            return ast.Literal((token.text,))
        if token.kind == "number":
            return ast.Literal((self.number(token.text),))
        if token.kind in ("date", "datetime", "time"):
            try:
                return ast.Literal((Temporal.literal(token.kind, token.text[1:]),))
            except ValueError as error:
                raise SyntaxProblem(f"the expression holds no date or time at character {token.offset + 1}") from error
        raise SyntaxProblem(
            "the expression ends too early" if token.kind == "end" else f"the expression is not FHIRPath at character {token.offset + 1}"
        )

    def number(self, text: str) -> int | Decimal | Quantity:
        if len(text) > MAX_DIGITS:
            raise SyntaxProblem(f"a number of the expression has more than {MAX_DIGITS} digits")
        value = Decimal(text)
        unit = self.token
        if unit.kind == "string":
            return Quantity(value, self.take().text)
        if unit.kind == "name" and unit.text in CALENDAR:
            return Quantity(value, self.take().text, calendar=True)
        return value if "." in text else int(text)

    def type_name(self) -> str:
        parts = [self.take()]
        while self.accept("."):
            parts.append(self.take())
        if any(part.kind not in ("name", "quoted") for part in parts):
            raise SyntaxProblem("the expression lacks the name of a type after 'is' or 'as'")
        return ".".join(part.text for part in parts)
