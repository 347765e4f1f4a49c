r"""Escapes of search values: `\,` `\|` `\$` `\\`. https://hl7.org/fhir/R4/search.html#escaping"""


def split(text: str, separator: str, most: int = -1) -> list[str]:
    """The pieces between unescaped separators, escapes kept; at most `most` splits."""
    if "\\" not in text:
        return text.split(separator, most)
    pieces: list[str] = []
    start = at = 0
    while at < len(text):
        if text[at] == "\\":
            at += 2
            continue
        if text[at] == separator and (most < 0 or len(pieces) < most):
            pieces.append(text[start:at])
            start = at + 1
        at += 1
    return [*pieces, text[start:]]


def unescape(text: str) -> str:
    """The text without its escapes; a backslash before any other character stands for itself."""
    if "\\" not in text:
        return text
    out, at = [], 0
    while at < len(text):
        if text[at] == "\\" and at + 1 < len(text) and text[at + 1] in ",|$\\":
            at += 1
        out.append(text[at])
        at += 1
    return "".join(out)
