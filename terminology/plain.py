"""The questions that apps ask all day, written as JSON at once: $lookup, both $validate-code and $subsumes of codes of one code system on disk, by their
plain parameters and nothing else.

Each function answers as the operation of `operations.py` does, or None where that has to be asked: another parameter, an unknown code, a code about which
there is something to say. https://hl7.org/fhir/R4/codesystem.html#operations
"""

from collections.abc import Callable, Mapping, Sequence

from conformance import codec
from terminology.concepts import Json, contains, subsumes
from terminology.displays import plain as folded
from terminology.expand import warnings
from terminology.index import IndexedSystem
from terminology.language import BadLanguage, Languages, best, languages
from terminology.library import Library, split
from terminology.parameters import made
from terminology.trouble import Stop, outcome, trouble
from terminology.valueset import Rules, Scope, Segment, evaluate, find_value_set
from terminology.writing import inner, writer

Pairs = Sequence[tuple[str, str]]
INACTIVE = "inactive"
_INACTIVE = b'"},{"name":"inactive","valueBoolean":true},{"name":"status","valueCode":"inactive"},{"name":"result","valueBoolean":true},'
PLAIN_STATUS = frozenset({"", "active"})
SUBSUMPTION = {
    outcome: {"resourceType": "Parameters", "parameter": codec.Written(codec.encode(made(("outcome", "valueCode", outcome))["parameter"]))}
    for outcome in ("equivalent", "subsumes", "subsumed-by", "not-subsumed")
}


def lookup(library: Library, pairs: Pairs, accept: str) -> Json | None:
    """CodeSystem/$lookup by `system`, `code`, and `version`, `displayLanguage` if given."""
    given = _given(pairs, _LOOKUP)
    if given is None:
        return None
    system = _system(library, given.get("system", ""), given.get("version", ""))
    n = system.find(given.get("code", "")) if system is not None else None
    if system is None or n is None:
        return None
    wanted = given.get("displayLanguage") or accept
    display: str | None = None
    if wanted:
        asked = _languages(wanted)
        chosen = best(asked, system.names(n)) if asked is not None else None
        if chosen is None:
            return None
        display = chosen.value
    return {"resourceType": "Parameters", "parameter": codec.Written(writer(system).rows(n, display))}


def validate_code(library: Library, pairs: Pairs, accept: str) -> Json | None:
    """CodeSystem/$validate-code by `url` (or `system`) and `code`, and `version` and `display` if given."""
    given = _given(pairs, _VALIDATE) if not accept else None
    if given is None or ("system" in given and given.setdefault("url", given["system"]) != given["system"]):
        return None
    system = _system(library, given.get("url", ""), given.get("version", ""))
    n = _number(system, given) if system is not None else None
    return _right(system, n, given["code"]) if system is not None and n is not None else None


def validate_member(library: Library, pairs: Pairs, accept: str) -> Json | None:
    """ValueSet/$validate-code by `url`, `system` and `code`, and `display` if given, for a code that is in the value set."""
    given = _given(pairs, _MEMBER) if not accept else None
    segment = _segment(library, given.get("url", ""), given.get("system", "")) if given is not None else None
    if given is None or segment is None or not isinstance(segment.system, IndexedSystem):
        return None
    n = _number(segment.system, given)
    return _right(segment.system, n, given["code"]) if n is not None and contains(segment.numbers, n) else None


def _number(system: IndexedSystem, given: Mapping[str, str]) -> int | None:
    """The number of a code about which there is nothing to say but that it is inactive: spelt as it should be, with a right display if any."""
    code, display = given.get("code", ""), given.get("display", "")
    n = system.find(code)
    if n is None or system.code(n) != code or _doubtful(system):
        return None
    if system.status(n) != INACTIVE if system.inactive(n) else system.status(n) not in PLAIN_STATUS:
        return None
    wanted = folded(display)
    if display and folded(system.display(n)) != wanted and not any(folded(one.value) == wanted for one in system.names(n)):
        return None
    return n


def _segment(library: Library, url: str, system: str) -> Segment | None:
    """The part of a value set that holds codes of a system, where nothing but membership is to be said of them; None otherwise. Kept by the library."""
    key = ("plain", url, system)
    kept: tuple[Segment | None] | None = library.selections.get(key)
    if kept is None:
        try:
            scope = Scope(library, Rules())
            value_set = find_value_set(scope, url)
            selection = evaluate(scope, value_set)
        except Stop:
            return None
        fine = all(_unremarkable(each) for each in (value_set, *selection.used.value_sets.values())) and not selection.used.supplements
        found = [each for each in selection.segments if each.system.meta.url == system]
        kept = (found[0] if fine and len(found) == 1 and not found[0].rows else None,)
        library.selections.put(key, kept)
    return kept[0]


def _unremarkable(value_set: Json) -> bool:
    """True for an active value set without extensions, a language or an expansion of its own."""
    if (
        value_set.get("status") != "active"
        or value_set.get("experimental")
        or any(name in value_set for name in ("extension", "contained", "language"))
    ):
        return False
    return not {"extension", "inactive"} & value_set.get("compose", {"extension": ()}).keys()


def _right(system: IndexedSystem, n: int, code: str) -> Json:
    """The answer that a code is right, although it may be inactive."""
    meta, shown = system.meta, system.display(n)
    parts = [b'[{"name":"code","valueCode":"', inner(code.encode()), b'"},{"name":"system","valueUri":"', inner(meta.url.encode())]
    if meta.version:
        parts += (b'"},{"name":"version","valueString":"', inner(meta.version.encode()))
    if shown:
        parts += (b'"},{"name":"display","valueString":"', inner(shown.encode()))
    if system.inactive(n):
        noted = trouble("inactive", "code", code=code, status=INACTIVE)
        issues: list[Json] = [{"name": "issues", "resource": outcome([noted])}, {"name": "message", "valueString": noted.text}]
        parts += (_INACTIVE, codec.encode(issues)[1:])
    else:
        parts.append(b'"},{"name":"result","valueBoolean":true}]')
    return {"resourceType": "Parameters", "parameter": codec.Written(b"".join(parts))}


def subsumption(library: Library, pairs: Pairs, accept: str) -> Json | None:
    """CodeSystem/$subsumes by `system`, `codeA`, `codeB`, and `version` if given."""
    given = _given(pairs, _SUBSUMES)
    system = _system(library, given.get("system", ""), given.get("version", "")) if given is not None else None
    if given is None or system is None:
        return None
    a, b = system.find(given.get("codeA", "")), system.find(given.get("codeB", ""))
    if a is None or b is None:
        return None
    if a == b:
        return SUBSUMPTION["equivalent"]
    if subsumes(system, a, b):
        return SUBSUMPTION["subsumes"]
    return SUBSUMPTION["subsumed-by" if subsumes(system, b, a) else "not-subsumed"]


_LOOKUP = frozenset({"system", "code", "version", "displayLanguage"})
_VALIDATE = frozenset({"url", "system", "version", "code", "display"})
_MEMBER = frozenset({"url", "system", "code", "display"})
_SUBSUMES = frozenset({"system", "version", "codeA", "codeB"})
PLAIN: Mapping[str, Callable[[Library, Pairs, str], Json | None]] = {
    "CodeSystem/$lookup": lookup,
    "CodeSystem/$validate-code": validate_code,
    "CodeSystem/$subsumes": subsumption,
    "ValueSet/$validate-code": validate_member,
}


def _given(pairs: Pairs, allowed: frozenset[str]) -> dict[str, str] | None:
    """The parameters by name; None if one is not among those allowed, or comes twice."""
    given = dict(pairs)
    return given if len(given) == len(pairs) and given.keys() <= allowed else None


def _system(library: Library, url: str, version: str) -> IndexedSystem | None:
    """The code system on disk that 'url' or 'url|version' means, None if it is another kind."""
    bare, piped = split(url) if "|" in url else (url, "")
    system = library.system(bare, version or piped)
    return system if isinstance(system, IndexedSystem) else None


def _languages(text: str) -> Languages | None:
    try:
        return languages(text)
    except BadLanguage:
        return None


def _doubtful(system: IndexedSystem) -> bool:
    """True if there is something to say of the code system itself."""
    meta = system.meta
    return bool(warnings("", "", meta.status, meta.standards, meta.experimental))
