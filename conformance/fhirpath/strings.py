"""Functions on text. https://hl7.org/fhirpath/N1/#string-manipulation; regular expressions run in RE2, which never backtracks."""

import base64
import binascii
import html
import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import re2

from conformance.fhirpath.context import MAX_TEXT, Apply, Ctx, Expr
from conformance.fhirpath.errors import ExecutionProblem
from conformance.fhirpath.operators import answer
from conformance.fhirpath.values import Node, single, text

MAX_PATTERN = 2000
MAX_MEMORY = 1 << 20  # bytes of one compiled expression


def subject(items: list[Any], what: str) -> str | None:
    """The only item as text; None for none. Raises ExecutionProblem for several, and for what is no text."""
    value = single(items, what)
    if value is None or isinstance(value, str):
        return value
    if items and isinstance(items[0], Node) and isinstance(items[0].value, str):
        return items[0].value  # a date of a resource is text to these functions
    raise ExecutionProblem(f"{what} needs text")


def _text_function(what: str, compute: Callable[..., list[Any]], arguments: int = 0) -> tuple[int, int, Callable[..., Apply]]:
    """A function of a text and so many texts: empty if any of them is empty."""

    def make(args: list[Expr]) -> Apply:
        def run(ctx: Ctx, items: list[Any]) -> list[Any]:
            value = subject(items, what)
            others = [subject(arg(ctx), what) for arg in args]
            if value is None or None in others:
                return []
            ctx.env.spend(1 + len(value) // 10)
            return compute(value, *others)

        return run

    return arguments, arguments, make


def _substring(args: list[Expr]) -> Apply:
    def run(ctx: Ctx, items: list[Any]) -> list[Any]:
        value = subject(items, "substring()")
        numbers = [single(arg(ctx), "substring()") for arg in args]
        if value is None or numbers[0] is None:
            return []
        if any(number is not None and type(number) is not int for number in numbers):
            raise ExecutionProblem("substring() needs integers")
        start = numbers[0]
        if not 0 <= start < len(value):
            return []
        return [value[start : start + max(numbers[1], 0)]] if len(numbers) > 1 and numbers[1] is not None else [value[start:]]

    return run


@lru_cache(maxsize=256)
def pattern(source: str, whole: bool) -> Any:
    """A compiled RE2 expression in which `.` matches line ends. Raises ExecutionProblem if RE2 refuses it."""
    if len(source) > MAX_PATTERN:
        raise ExecutionProblem(f"a regular expression is longer than {MAX_PATTERN} characters")
    options = re2.Options()
    options.log_errors = False
    options.dot_nl = True
    options.max_mem = MAX_MEMORY
    try:
        return re2.compile(f"^(?:{source})$" if whole else source, options)  # type: ignore[no-untyped-call]
    except re2.error as error:
        raise ExecutionProblem("a regular expression cannot be used") from error


def _matches(value: str, source: str) -> list[Any]:
    return answer(pattern(source, False).search(value) is not None)


def _matches_full(value: str, source: str) -> list[Any]:
    return answer(pattern(source, True).search(value) is not None)


def _replace_matches(value: str, source: str, substitution: str) -> list[Any]:
    if not source:
        return [value]
    parts, end, size = [], 0, 0
    for found in pattern(source, False).finditer(value):
        groups = (found.group(0), *found.groups())
        parts += [value[end : found.start()], _expand(substitution, groups)]
        end = found.end()
        size += len(parts[-1])
        if size > MAX_TEXT:
            raise ExecutionProblem(f"the expression builds a text of more than {MAX_TEXT} characters")
    return ["".join(parts) + value[end:]]


def _expand(substitution: str, groups: tuple[Any, ...]) -> str:
    """`$1` stands for the first group."""
    if "$" not in substitution:
        return substitution
    found, place = "", 0
    while place < len(substitution):
        sign = substitution[place]
        following = substitution[place + 1 : place + 2]
        if sign == "$" and following.isdigit() and following.isascii() and int(following) < len(groups):
            found += groups[int(following)] or ""
            place += 2
        else:
            found += sign
            place += 1
    return found


def _replace(value: str, old: str, new: str) -> list[Any]:
    if len(value) + (value.count(old) if old else len(value) + 1) * len(new) > MAX_TEXT:
        raise ExecutionProblem(f"the expression builds a text of more than {MAX_TEXT} characters")
    return [value.replace(old, new)]


def _encode(value: str, form: str) -> list[Any]:
    data = value.encode()
    if form == "hex":
        return [data.hex()]
    if form == "base64":
        return [base64.b64encode(data).decode()]
    return [base64.urlsafe_b64encode(data).decode()] if form == "urlbase64" else []


def _decode(value: str, form: str) -> list[Any]:
    try:
        if form == "hex":
            return [bytes.fromhex(value).decode()]
        if form == "base64":
            return [base64.b64decode(value, validate=True).decode()]
        return [base64.urlsafe_b64decode(value).decode()] if form == "urlbase64" else []
    except (ValueError, binascii.Error) as error:
        raise ExecutionProblem("decode() found text that is not encoded so") from error


def _escape(value: str, form: str) -> list[Any]:
    if form == "html":
        return [html.escape(value, quote=True).replace("&#x27;", "&#39;")]
    return [json.dumps(value, ensure_ascii=False)[1:-1]] if form == "json" else []


def _unescape(value: str, form: str) -> list[Any]:
    if form == "html":
        return [html.unescape(value)]
    if form != "json":
        return []
    try:
        return [json.loads('"' + value.replace('"', '\\"').replace('\\\\"', '\\"') + '"')]
    except ValueError as error:
        raise ExecutionProblem("unescape() found text that is not escaped so") from error


def _split(value: str, separator: str) -> list[Any]:
    return list(value.split(separator)) if separator else list(value)


def _join(args: list[Expr]) -> Apply:
    def run(ctx: Ctx, items: list[Any]) -> list[Any]:
        separator = (subject(args[0](ctx), "join()") if args else "") or ""
        parts = [text(item) for item in items]
        if any(part is None for part in parts):
            raise ExecutionProblem("join() needs text")
        joined = separator.join(part for part in parts if part is not None)
        if len(joined) > MAX_TEXT:
            raise ExecutionProblem(f"the expression builds a text of more than {MAX_TEXT} characters")
        return [joined] if items else []

    return run


TABLE: dict[str, tuple[int, int, Callable[..., Apply]]] = {
    "indexOf": _text_function("indexOf()", lambda value, part: [value.find(part)], 1),
    "lastIndexOf": _text_function("lastIndexOf()", lambda value, part: [value.rfind(part)], 1),
    "substring": (1, 2, _substring),
    "startsWith": _text_function("startsWith()", lambda value, part: answer(value.startswith(part)), 1),
    "endsWith": _text_function("endsWith()", lambda value, part: answer(value.endswith(part)), 1),
    "contains": _text_function("contains()", lambda value, part: answer(part in value), 1),
    "upper": _text_function("upper()", lambda value: [value.upper()]),
    "lower": _text_function("lower()", lambda value: [value.lower()]),
    "replace": _text_function("replace()", _replace, 2),
    "matches": _text_function("matches()", _matches, 1),
    "matchesFull": _text_function("matchesFull()", _matches_full, 1),
    "replaceMatches": _text_function("replaceMatches()", _replace_matches, 2),
    "length": _text_function("length()", lambda value: [len(value)]),
    "toChars": _text_function("toChars()", lambda value: list(value)),
    "trim": _text_function("trim()", lambda value: [value.strip()]),
    "split": _text_function("split()", _split, 1),
    "join": (0, 1, _join),
    "encode": _text_function("encode()", _encode, 1),
    "decode": _text_function("decode()", _decode, 1),
    "escape": _text_function("escape()", _escape, 1),
    "unescape": _text_function("unescape()", _unescape, 1),
}
