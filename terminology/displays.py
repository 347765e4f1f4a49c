"""Is a display one of the concept's names, in the languages asked for? And what to say if it is not.

https://hl7.org/fhir/R4/valueset-operation-validate-code.html (parameter display).
"""

from collections.abc import Mapping, Sequence

from terminology.concepts import STANDARDS_STATUS
from terminology.language import PREFERRED, Designation, Languages, best, fits
from terminology.trouble import Trouble, trouble

GONE = ("deprecated", "withdrawn", "inactive")


def is_display(one: Designation) -> bool:
    """True for the display and for designations that may stand in its place (no use, or a preferred one)."""
    return one.display or one.use is None or one.use.get("code", "") in PREFERRED


def standing(one: Designation) -> str:
    """deprecated or withdrawn, where an extension says so of a designation; '' otherwise."""
    return next((str(e.get("valueCode", "")) for e in one.extension if e.get("url") == STANDARDS_STATUS), "")


def plain(text: str) -> str:
    """Case does not count in a display."""
    return text.casefold().strip()


def spaced(text: str) -> str:
    """Case and the amount of blanks do not count."""
    return " ".join(text.split()).casefold()


def check_display(given: str, names: Sequence[Designation], wanted: Languages, at: str, words: Mapping[str, str], severity: str) -> Trouble | None:
    """None if `given` is right. words: url and code for the text; severity: of a wrong display ('' for error)."""
    valid = [one for one in names if is_display(one) and standing(one) not in GONE]
    fitting = [one for one in valid if not wanted or not one.language or any(fits(tag, one.language) for tag in wanted.ranges)]
    accepted = fitting if wanted else names
    if any(plain(one.value) == plain(given) and standing(one) not in GONE for one in accepted):
        return None
    shown = {**words, "display": given, "languages": wanted.text or "--"}
    old = next((one for one in names if plain(one.value) == plain(given) and standing(one) in GONE), None)
    if old is not None:
        choices = " or ".join(f'"{one.value}"' for one in fitting)
        return trouble("display-inactive", at, **shown, status="deprecated", choices=choices)
    if wanted and not fitting:
        default = best(Languages(), names)
        if any(plain(one.value) == plain(given) for one in valid):
            return trouble("display-other-language", at, **shown)
        return trouble("display-language", at, severity=severity, **shown, default=default.value if default is not None else "")
    if not fitting:
        return None
    wrong = "display-space" if any(spaced(one.value) == spaced(given) for one in fitting) else "display"
    return trouble(wrong, at, severity=severity, **shown, choices=listed(fitting))


def listed(names: Sequence[Designation]) -> str:
    """'A' (en), or: one of 2 choices: 'A' (en) or 'B' (de)."""
    texts = list(dict.fromkeys(f"'{one.value}'" + (f" ({one.language})" if one.language else "") for one in names))
    if len(texts) == 1:
        return texts[0]
    return f"one of {len(texts)} choices: {', '.join(texts[:-1])} or {texts[-1]}"
