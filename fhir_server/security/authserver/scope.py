"""Which scopes a request gets: what it asks for, cut down to what the client is registered for and what the user's role allows.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html. Cutting down is intersection: level, type, actions and query
of two scopes meet in the scope that both contain, or in none. A scope that means nothing here is never granted.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CLINICAL = re.compile(r"(patient|user|system)/(\*|[A-Z][A-Za-z]+)\.(read|write|\*|c?r?u?d?s?)(\?[\x21\x23-\x5b\x5d-\x7e]{1,512})?")
V1: Mapping[str, str] = {"read": "rs", "write": "cud", "*": "cruds"}
IDENTITY = ("openid", "fhirUser", "profile")
LAUNCH = ("launch", "launch/patient", "launch/encounter")
LASTING = ("offline_access", "online_access")
ADMIN, CREATE_LAUNCH, INTROSPECT = "exchange/admin", "exchange/launch", "exchange/introspect"
OWN = (ADMIN, CREATE_LAUNCH, INTROSPECT)
CLEARANCE = re.compile(r"exchange/clearance\.[A-Z]{1,10}")  # security labels that may be shown (security/scopes.py)
PLAIN = frozenset((*IDENTITY, *LAUNCH, *LASTING, *OWN))
LONGEST, MOST = 8000, 200  # characters of a scope parameter, scopes in it
ADVERTISED = (*IDENTITY, *LAUNCH, *LASTING, "patient/*.cruds", "user/*.cruds", "system/*.cruds", "patient/*.rs", "user/*.rs", "system/*.rs")
ACTIONS: Mapping[str, str] = {"c": "add", "r": "read", "u": "change", "d": "delete", "s": "search"}


@dataclass(frozen=True, slots=True)
class Clinical:
    """A scope on resources. actions: in the order of 'cruds'; query: with its '?', or ''; text: as it was written."""

    level: str
    rtype: str
    actions: str
    query: str
    text: str


def clinical(text: str) -> Clinical | None:
    """A scope on resources, in the v1 or v2 form; None if it is none."""
    match = CLINICAL.fullmatch(text)
    if match is None or not match[3] or (match[4] and match[3] in V1):
        return None
    return Clinical(match[1], match[2], V1.get(match[3], match[3]), match[4] or "", text)


def known(text: str) -> bool:
    """True for a scope that means something here."""
    return text in PLAIN or CLEARANCE.fullmatch(text) is not None or clinical(text) is not None


def words(scope: str) -> list[str]:
    """The scopes of a parameter, each once, in order (RFC 6749 section 3.3)."""
    return list(dict.fromkeys(scope.split(" "))) if scope else []


def meet(asked: Clinical, allowed: Clinical) -> str:
    """The scope that both contain; '' if there is none. What is not cut down keeps its spelling (v1 stays v1)."""
    if asked.level != allowed.level or (asked.rtype != allowed.rtype and "*" not in (asked.rtype, allowed.rtype)):
        return ""
    if allowed.query and asked.query not in ("", allowed.query):
        return ""
    actions = "".join(one for one in asked.actions if one in allowed.actions)
    rtype = asked.rtype if allowed.rtype == "*" else allowed.rtype
    if (actions, rtype) == (asked.actions, asked.rtype) and asked.query == (allowed.query or asked.query):
        return asked.text
    return f"{asked.level}/{rtype}.{actions}{asked.query or allowed.query}" if actions else ""


def granted(asked: Iterable[str], allowed: Iterable[str]) -> list[str]:
    """The scopes of `asked` cut down to `allowed`, in order, each once."""
    allowed = list(allowed)
    rows = [row for row in map(clinical, allowed) if row]
    found: list[str] = []
    for text in asked:
        want = clinical(text)
        if want is None:
            found += [text] if text in allowed and known(text) else []
        else:
            found += [one for one in (meet(want, row) for row in rows) if one]
    return _without_contained(list(dict.fromkeys(found)))


def _without_contained(scopes: list[str]) -> list[str]:
    """Without scopes that another one of the list contains: two rows of `allowed` may both have met the same request."""
    rows = {text: row for text in scopes if (row := clinical(text))}

    def contained(text: str) -> bool:
        row = rows.get(text)
        return row is not None and any(
            other is not row and meet(row, other) == row.text and (meet(other, row) != other.text or scopes.index(other.text) < scopes.index(text))
            for other in rows.values()
        )

    return [text for text in scopes if not contained(text)]


def levels(scopes: Iterable[str]) -> frozenset[str]:
    """The levels ('patient', 'user', 'system') that scopes on resources are on."""
    return frozenset(row.level for row in map(clinical, scopes) if row)


def told(text: str) -> str:
    """What a scope means, for the person who grants it."""
    row = clinical(text)
    if CLEARANCE.fullmatch(text):
        return f"See records that are labelled {text.rpartition('.')[2]}"
    if row is None:
        return PLAIN_TOLD.get(text, text)
    what = "all kinds of records" if row.rtype == "*" else f"{_spaced(row.rtype)} records"
    whose = {"patient": "of the chosen patient", "user": "that you may see", "system": "of the whole system"}[row.level]
    verbs = [ACTIONS[one] for one in "rscud" if one in row.actions]
    acts = verbs[0] if len(verbs) == 1 else ", ".join(verbs[:-1]) + " and " + verbs[-1]
    part = f", only those with {row.query[1:].replace('&', ' and ')}" if row.query else ""
    return f"{acts.capitalize()} {what} {whose}{part}"


def _spaced(rtype: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", rtype)


PLAIN_TOLD: Mapping[str, str] = {
    "openid": "Know who you are (sign you in)",
    "fhirUser": "Know your own record as a user",
    "profile": "Know your own record as a user",
    "launch": "Take over what is open in the record system",
    "launch/patient": "Know which patient you choose",
    "launch/encounter": "Know which encounter you choose",
    "offline_access": "Keep access when you are away, until you withdraw it",
    "online_access": "Keep access while you are signed in",
    ADMIN: "Administer this exchange",
    CREATE_LAUNCH: "Launch apps in the name of the record system",
    INTROSPECT: "Look into tokens of other apps",
}
