"""A second opinion on search: raw resources, fhirpathpy for the expressions, comparisons of its own. It shares no code with `fhir_server.search`.

It knows plain parameters of all types with their modifiers and prefixes; not chains, includes or terminology. https://hl7.org/fhir/R4/search.html
"""

import calendar
import re
import unicodedata
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

from fhirpathpy import evaluate
from fhirpathpy.models import models

from terminology.units import canonical

MODEL = models["r4"]
PREFIXES = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
INFINITE = Decimal("Infinity")
RESOLVES = re.compile(r"\.where\(resolve\(\) is (\w+)\)")
AS = re.compile(r"(?:\.as\(|\s+as\s+)(\w+)\)?")
HAS = re.compile(r"hasExtension\(('[^']*')\)")
CASE_SENSITIVE = ("http://hl7.org/fhir/", "http://terminology.hl7.org/", "http://unitsofmeasure.org")
STROKES = dict(zip("øđðħıłŧæœþ", ["o", "d", "d", "h", "i", "l", "t", "ae", "oe", "th"], strict=True))
_cache: dict[tuple[int, str], list[Any]] = {}


def values(res: dict[str, Any], expression: str) -> list[Any]:
    """What an expression selects from a resource, by fhirpathpy; references restricted by `resolve() is` are told by their text."""
    key = (id(res), expression)
    if key not in _cache:
        found: list[Any] = []
        for branch in union(expression):
            branch = re.sub(r"^(Domain)?Resource\b", res["resourceType"], branch)
            kinds = RESOLVES.findall(branch)
            text = AS.sub(_of_type, RESOLVES.sub("", branch).replace("DateTime)", "dateTime)"))
            part = evaluate(res, HAS.sub(r"extension(\1).exists()", text), {}, MODEL)
            part = [raw(one) for one in part]
            if kinds:
                part = [one for one in part if f"{kinds[0]}/" in str(one.get("reference", "") if isinstance(one, dict) else one)]
            found += [one for one in part if one not in found]
        _cache[key] = found
    return _cache[key]


def _of_type(found: "re.Match[str]") -> str:
    """`as` on a list is refused by fhirpathpy, `ofType` means what search means by it."""
    return f".ofType({found[1]})" + ("" if found[0].startswith(".") else ")" * found[0].count(")"))


def union(expression: str) -> list[str]:
    """Branches at the top level."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(expression):
        depth += (char == "(") - (char == ")")
        if char == "|" and depth == 0:
            parts.append(expression[start:at].strip())
            start = at + 1
    return [*parts, expression[start:].strip()]


def raw(value: Any) -> Any:
    """JSON of what fhirpathpy gives; an extension's value."""
    value = getattr(value, "data", value)
    if isinstance(value, dict) and "url" in value and any(name.startswith("value") for name in value):
        return next(inner for name, inner in value.items() if name.startswith("value"))
    return value.asStr if hasattr(value, "asStr") else value


def matches(
    kind: str,
    found: list[Any],
    modifier: str,
    text: str,
    *,
    exact_codes: bool = False,
    now: datetime = LAST,
    targets: tuple[str, ...] = (),
    families: bool = False,
) -> bool:
    """Do the values of a parameter of this type match `text` (OR-values at commas) under the modifier? families: its values are family names."""
    if modifier == "missing":
        return bool(found) != (text == "true")
    texts = re.split(r"(?<!\\),", text)
    if kind == "string" and not modifier:
        found = [*found, *(part for value in found for part in family_parts(value, families))]
    if kind == "reference":
        return any(reference(value, plain(one), modifier, targets) for value in found for one in texts)
    if kind == "token" and modifier == "not":
        return not any(token(found, one, exact_codes) for one in texts)
    return any(_one(kind, found, modifier, one, exact_codes, now) for one in texts)


def _one(kind: str, found: list[Any], modifier: str, text: str, exact_codes: bool, now: datetime) -> bool:
    if kind == "token":
        return token_text(found, text) if modifier == "text" else of_type(found, text) if modifier == "of-type" else token(found, text, exact_codes)
    if kind == "string":
        return any(string(one, plain(text), modifier) for value in found for one in strings(value))
    if kind == "uri":
        return any(uri(str(value), plain(text), modifier) for value in found)
    prefix, rest = (text[:2], text[2:]) if text[:2] in PREFIXES else ("eq", text)
    if kind == "date":
        return any(date(span(value), span(rest), prefix, now) for value in found if span(value))
    if kind == "number":
        return any(number(bounds(value), rest, prefix) for value in found if bounds(value))
    return any(quantity(value, rest, prefix) for value in found)


def plain(text: str) -> str:
    return re.sub(r"\\([,|$\\])", r"\1", text)


def codings(value: Any) -> list[tuple[str, str]]:
    if isinstance(value, bool):
        return [("", "true" if value else "false")]
    if not isinstance(value, dict):
        return [("", str(value))]
    if "coding" in value:
        return [(one.get("system", ""), one["code"]) for one in value["coding"] if "code" in one]
    if "code" in value:
        return [(value.get("system", ""), value["code"])]
    if "value" in value and isinstance(value["value"], str):
        contact = value.get("system") in ("phone", "fax", "email", "pager", "url", "sms", "other")
        return [(value.get("use" if contact else "system", ""), value["value"])]
    return []


def token(found: list[Any], text: str, exact: bool) -> bool:
    pieces = [plain(one) for one in re.split(r"(?<!\\)\|", text, maxsplit=1)]
    for value in found:
        for system, code in codings(value):
            if len(pieces) == 1:
                if code == pieces[0] or (not exact and code.lower() == pieces[0].lower()):
                    return True
                continue
            loose = not exact and not system.startswith(CASE_SENSITIVE)
            same = code == pieces[1] or (loose and code.lower() == pieces[1].lower())
            if system == pieces[0] and (same or not pieces[1]):
                return True
    return False


def token_text(found: list[Any], text: str) -> bool:
    shown: list[str] = []
    for value in found:
        if isinstance(value, dict):
            kind = value.get("type")
            shown += [value.get("text", ""), value.get("display", ""), *(one.get("display", "") for one in value.get("coding", ()))]
            shown.append(kind.get("text", "") if isinstance(kind, dict) else "")
    return any(one and folded(one).startswith(folded(plain(text))) for one in shown)


def of_type(found: list[Any], text: str) -> bool:
    system, code, value = (plain(one) for one in re.split(r"(?<!\\)\|", text))
    return any(
        isinstance(one, dict)
        and one.get("value") == value
        and any(kind.get("system") == system and kind.get("code") == code for kind in one.get("type", {}).get("coding", ()))
        for one in found
    )


def folded(text: str) -> str:
    text = re.sub("[øđðħıłŧæœþ]", lambda found: STROKES[found[0]], text.casefold())
    loose = "".join(char for char in unicodedata.normalize("NFKD", text) if unicodedata.category(char)[0] in "LNSZ" or char.isspace())
    loose = re.sub(r"[$+<=>^`|~]", "", loose)
    return re.sub(r"\s+", " ", loose).strip()


def strings(value: Any) -> list[str]:
    if not isinstance(value, dict):
        return [str(value)]
    out: list[str] = []
    for name in (
        "text",
        "family",
        "given",
        "prefix",
        "suffix",
        "line",
        "city",
        "district",
        "state",
        "postalCode",
        "country",
        "name",
        "display",
        "value",
    ):
        inner = value.get(name, [])
        out += [inner] if isinstance(inner, str) else [one for one in inner if isinstance(one, str)]
    return out


def string(value: str, text: str, modifier: str) -> bool:
    if modifier == "exact":
        return value == text
    return folded(text) in folded(value) if modifier == "contains" else folded(value).startswith(folded(text))


def family_parts(value: Any, families: bool) -> list[str]:
    """The rest of a family name from each of its words on."""
    family = value if families else value.get("family") if isinstance(value, dict) else None
    pieces = re.split(r"[\s\u2010-\u2015-]+", family) if isinstance(family, str) else []
    return [" ".join(pieces[at:]) for at in range(1, len(pieces))]


def uri(value: str, text: str, modifier: str) -> bool:
    if modifier == "below":
        return value == text or value.startswith(text.rstrip("/") + "/")
    if modifier == "above":
        return text == value or text.startswith(value.rstrip("/") + "/")
    return value == text or value.split("|")[0] == text


def reference(value: Any, text: str, modifier: str, targets: tuple[str, ...]) -> bool:
    if modifier == "identifier":
        return isinstance(value, dict) and "identifier" in value and token([value["identifier"]], text, True)
    target = value if isinstance(value, str) else value.get("reference", "") if isinstance(value, dict) else ""
    target, text = (re.sub(r"/_history/.*", "", one) for one in (target, text))
    if not target or target.startswith("#"):
        return False
    if isinstance(value, str) and "|" in value and value.split("|")[0] == text:
        return True
    if re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", text):
        return re.fullmatch(rf"(?:{modifier or '|'.join(targets) or '[A-Z][A-Za-z]+'})/{re.escape(text)}", target) is not None
    return target == text


@lru_cache(100_000)
def _moment(text: str) -> tuple[datetime, datetime] | None:
    found = re.fullmatch(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(Z|[+-]\d\d:\d\d)?)?)?)?", text)
    if not found:
        return None
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    start = datetime(int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC)
    if hour is None:
        days = 1 if day else calendar.monthrange(int(year), int(month))[1] if month else 366 if calendar.isleap(int(year)) else 365
        return start, start + timedelta(days=days)
    if zone not in (None, "Z"):
        shift = timedelta(hours=int(zone[1:3]), minutes=int(zone[4:]))
        start = start - shift if zone[0] == "+" else start + shift
    if second is None:
        return start, start + timedelta(minutes=1)
    if not fraction:
        return start, start + timedelta(seconds=1)
    start += timedelta(milliseconds=int(fraction[:3].ljust(3, "0")))
    return start, start + timedelta(milliseconds=10 ** (3 - min(len(fraction), 3)))


def span(value: Any) -> tuple[datetime, datetime] | None:
    if isinstance(value, str):
        return _moment(value)
    if not isinstance(value, dict):
        return None
    if "event" in value or "repeat" in value:
        inner = [span(one) for one in (*value.get("event", ()), value.get("repeat", {}).get("boundsPeriod"))]
        known = [one for one in inner if one]
        return (min(one[0] for one in known), max(one[1] for one in known)) if known else None
    start, end = span(value.get("start")), span(value.get("end"))
    return (start[0] if start else FIRST, end[1] if end else LAST) if start or end else None


def date(target: tuple[datetime, datetime], search: tuple[datetime, datetime], prefix: str, now: datetime) -> bool:
    low, high = target
    start, end = search
    inside = start <= low and high <= end
    if prefix == "ap":
        gap = max(start - now, now - end, timedelta(0)) / 10
        return low < end + gap and high > start - gap
    return {
        "eq": inside,
        "ne": not inside,
        "gt": high > end,
        "lt": low < start,
        "ge": high > end or inside,
        "le": low < start or inside,
        "sa": low >= end,
        "eb": high <= start,
    }[prefix]


def bounds(value: Any) -> tuple[Decimal, Decimal] | None:
    if isinstance(value, dict):
        low, high = value.get("low", {}).get("value"), value.get("high", {}).get("value")
        return (
            (-INFINITE if low is None else Decimal(str(low)), INFINITE if high is None else Decimal(str(high)))
            if low is not None or high is not None
            else None
        )
    return (Decimal(str(value)), Decimal(str(value))) if not isinstance(value, str | bool) and value is not None else None


def number(target: tuple[Decimal, Decimal], text: str, prefix: str, scale: Any = None) -> bool:
    low, high = target
    wanted = Decimal(text)
    mantissa, _, exponent = text.lower().partition("e")
    places = len(mantissa.partition(".")[2])
    unit = Decimal(10) ** (int(exponent or 0) - places - (1 if exponent and not places else 0))
    start, end = wanted - unit / 2, wanted + unit / 2
    if scale:
        wanted, start, end = scale(wanted), scale(start), scale(end)
    inside = start <= low and high < end
    if prefix == "ap":
        slack = abs(wanted) / 10
        return low <= max(wanted + slack, end) and high >= min(wanted - slack, start)
    return {
        "eq": inside,
        "ne": not inside,
        "gt": high > wanted,
        "lt": low < wanted,
        "ge": high >= wanted,
        "le": low <= wanted,
        "sa": low > wanted,
        "eb": high < wanted,
    }[prefix]


def quantity(value: Any, text: str, prefix: str) -> bool:
    pieces = [plain(one) for one in re.split(r"(?<!\\)\|", text)]
    if not isinstance(value, dict):
        return False
    if "low" in value or "high" in value:
        target, unit = bounds(value), value.get("low") or value.get("high")
    elif "origin" in value:
        numbers = [
            Decimal(str(value["origin"]["value"])) + Decimal(one) * Decimal(str(value.get("factor", 1)))
            for one in value.get("data", "").split()
            if one not in "EUL"
        ]
        target, unit = ((min(numbers), max(numbers)) if numbers else None), value["origin"]
    else:
        amount, sign = value.get("value"), value.get("comparator", "")[:1]
        target = None if amount is None else (-INFINITE if sign == "<" else Decimal(str(amount)), INFINITE if sign == ">" else Decimal(str(amount)))
        unit = value
    if target is None:
        return False
    if len(pieces) == 1 or not any(pieces[1:]):
        return number(target, pieces[0], prefix)
    system, code = pieces[1:]
    if not system:
        return code in (unit.get("code"), unit.get("unit"), unit.get("currency")) and number(target, pieces[0], prefix)
    if unit.get("system") == system == "http://unitsofmeasure.org" and canonical(Decimal(1), code) and canonical(Decimal(1), unit.get("code", "")):
        if canonical(Decimal(1), code)[1] != canonical(Decimal(1), unit["code"])[1]:
            return False
        based = tuple(one if one.is_infinite() else canonical(one, unit["code"])[0] for one in target)
        return number(based, pieces[0], prefix, lambda amount: canonical(amount, code)[0])
    own = unit.get("system", "urn:iso:std:iso:4217" if "currency" in unit else None)
    return (own, unit.get("code", unit.get("currency"))) == (system, code) and number(target, pieces[0], prefix)
