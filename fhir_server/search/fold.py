"""Texts as they are compared: without case, accents, punctuation and extra blanks; and the words of a text.

https://hl7.org/fhir/R4/search.html#string: "case and accent insensitive", punctuation and non-significant white space ignored.
"""

import re
import string
import unicodedata
from functools import lru_cache

_ASCII = str.maketrans("", "", string.punctuation)
_STROKES = str.maketrans(  # letters that people search without their stroke or as two, and that Unicode does not decompose
    {"ø": "o", "đ": "d", "ð": "d", "ħ": "h", "ı": "i", "ł": "l", "ŧ": "t", "æ": "ae", "œ": "oe", "þ": "th"}
)
_WORD = re.compile(r"\w+")
MAX_WORD = 64
KEPT = 200  # characters: the words of longer texts, which hardly come again, are not kept


@lru_cache(32768)
def fold(text: str) -> str:
    """The text as string search compares it: 'O\u2019Brien-Müller ' -> 'obrienmuller'."""
    if text.isascii():
        return " ".join(text.lower().translate(_ASCII).split())
    plain = unicodedata.normalize("NFKD", text.casefold().translate(_STROKES))
    kept = (char for char in plain if (not unicodedata.combining(char) and unicodedata.category(char)[0] not in "PC") or char.isspace())
    return " ".join("".join(kept).translate(_ASCII).split())


def words(text: str) -> tuple[str, ...]:
    """The words of a text, folded, each once; longer ones cut at MAX_WORD."""
    return _words_kept(text) if len(text) <= KEPT else _words(text)


def _words(text: str) -> tuple[str, ...]:
    if text.isascii():
        plain = text.lower()
    else:
        folded = unicodedata.normalize("NFKD", text.casefold().translate(_STROKES))
        plain = "".join(char for char in folded if not unicodedata.combining(char))
    return tuple(dict.fromkeys(word[:MAX_WORD] for word in _WORD.findall(plain)))


_words_kept = lru_cache(32768)(_words)


@lru_cache(8192)
def phonetic(text: str) -> str:
    """Soundex of a name's first word (letter and three digits), '' if it has no letters of A-Z: names that sound alike are equal."""
    letters = [char for char in fold(text).split(" ")[0] if char in _SOUNDS]
    if not letters:
        return ""
    code, last = letters[0], _SOUNDS[letters[0]]
    for char in letters[1:]:
        sound = _SOUNDS[char]
        if sound not in ("", last):
            code += sound
        if char not in "hw":
            last = sound
    return code[:4].ljust(4, "0")


_SOUNDS = {
    char: sound
    for chars, sound in (("aeiouyhw", ""), ("bfpv", "1"), ("cgjkqsxz", "2"), ("dt", "3"), ("l", "4"), ("mn", "5"), ("r", "6"))
    for char in chars
}
