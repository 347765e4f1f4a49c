"""The questions that apps ask all day, written as JSON at once: $lookup, $validate-code and $subsumes of codes of one code system on disk, by their plain
parameters and nothing else.

Each function answers as the operation of `operations.py` does, or None where that has to be asked: another parameter, an unknown code, a code about which
there is something to say. https://hl7.org/fhir/R4/codesystem.html#operations
"""

from collections.abc import Callable, Mapping, Sequence

from conformance import codec
from terminology.concepts import Json, subsumes
from terminology.expand import warnings
from terminology.index import IndexedSystem
from terminology.language import BadLanguage, Languages, best, languages
from terminology.library import Library, split
from terminology.parameters import made
from terminology.writing import inner, writer

Pairs = Sequence[tuple[str, str]]
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
    """CodeSystem/$validate-code by `url` and `code`."""
    given = _given(pairs, _VALIDATE) if not accept else None
    system = _system(library, given.get("url", ""), "") if given is not None else None
    if given is None or system is None or _doubtful(system):
        return None
    code = given.get("code", "")
    n = system.find(code)
    if n is None or system.inactive(n) or system.status(n) not in PLAIN_STATUS or system.code(n) != code:
        return None
    meta, shown = system.meta, system.display(n)
    parts = [b'[{"name":"code","valueCode":"', inner(code.encode()), b'"},{"name":"system","valueUri":"', inner(meta.url.encode())]
    if meta.version:
        parts += (b'"},{"name":"version","valueString":"', inner(meta.version.encode()))
    if shown:
        parts += (b'"},{"name":"display","valueString":"', inner(shown.encode()))
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
_VALIDATE = frozenset({"url", "code"})
_SUBSUMES = frozenset({"system", "version", "codeA", "codeB"})
PLAIN: Mapping[str, Callable[[Library, Pairs, str], Json | None]] = {
    "CodeSystem/$lookup": lookup,
    "CodeSystem/$validate-code": validate_code,
    "CodeSystem/$subsumes": subsumption,
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
