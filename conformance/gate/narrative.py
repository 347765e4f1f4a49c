"""Narrative: the safe subset of XHTML. https://hl7.org/fhir/R4/narrative.html#xhtml (txt-1, txt-2)

Allowed are the elements and attributes of chapters 7 to 11 (without section 4 of chapter 9) and 15 of HTML 4.0, <a> and <img>; nothing that runs,
loads or submits. `problems` is called for each narrative that is written, so text that a browser would not show as written never gets in.
"""

import html.entities
import re
from collections.abc import Iterator
from typing import Any

from lxml import etree

XHTML = "{http://www.w3.org/1999/xhtml}"
MAX_DEPTH = 200
_HTML = """p br div h1 h2 h3 h4 h5 h6 a span b em i strong small big tt dfn q var abbr acronym cite blockquote hr address bdo kbd sub sup li ul ol dl dt dd
    pre table caption colgroup col thead tr tfoot tbody th td code samp img map area ins del s u strike center font"""
ELEMENTS = frozenset(_HTML.split())
_XML = "{http://www.w3.org/XML/1998/namespace}"
_ATTRIBUTES = f"""title style class id lang dir accesskey tabindex span width align valign char charoff abbr axis headers scope rowspan colspan rules frame
    border cellspacing cellpadding summary bgcolor nowrap height cite datetime start type value compact clear noshade size color face
    {_XML}lang {_XML}space"""
ATTRIBUTES = frozenset(_ATTRIBUTES.split())
OWN = {
    "a": frozenset(["href", "name", "rel", "rev", "hreflang", "charset", "target", "shape", "coords"]),
    "img": frozenset(["src", "alt", "longdesc", "hspace", "vspace", "ismap", "usemap", "name"]),
    "area": frozenset(["href", "alt", "shape", "coords", "nohref", "target"]),
    "map": frozenset(["name"]),
}
LINKS = ("href", "src", "cite", "longdesc", "usemap")
_entity = re.compile(r"&([A-Za-z][A-Za-z0-9]*);")
_scheme = re.compile(r"[\x00-\x20]*([A-Za-z][A-Za-z0-9+.\-\x00-\x20]*?)[\x00-\x20]*:")
SCHEMES = frozenset(["http", "https", "mailto", "tel", "ftp", "urn", "data", "cid", "sms"])
_unsafe_style = re.compile(r"expression\s*\(|javascript\s*:|vbscript\s*:|-moz-binding|behavior\s*:|@import|\\", re.IGNORECASE)
_data_image = re.compile(r"data:\s*image/(?:png|jpe?g|gif|bmp|webp)[;,]", re.IGNORECASE)
XML_ENTITIES = frozenset(["amp", "lt", "gt", "quot", "apos"])


def problems(div: Any) -> Iterator[str]:
    """What is wrong with the value of Narrative.div, as texts without its content; nothing if it is well-formed and safe."""
    if not isinstance(div, str) or not div:
        yield "must be an XHTML <div> as a string"
        return
    if _plain(div):
        return
    root = _parse(div)
    if isinstance(root, str):
        yield root
    elif root.tag != f"{XHTML}div":
        yield "must be one <div> in the XHTML namespace"
    else:
        yield from dict.fromkeys(_walk(root))


_ATTRIBUTE = r"\s+(?:class|id|title|colspan|rowspan|lang|xmlns)=\"[^\"<>&]*\""
_simple = re.compile(rf"<(?:(/)([a-z][a-z0-9]*)|([a-z][a-z0-9]*)(?:{_ATTRIBUTE})?\s*(/?))>").findall
_START = '<div xmlns="http://www.w3.org/1999/xhtml"'
_control = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]").search
_readable = re.compile(r">[^<]*[^\s<]").search


def _plain(div: str) -> bool:
    """True if a div is certainly sound: well-formed, only allowed tags with harmless attributes, some text. What is not plain is parsed and walked."""
    if not div.startswith(_START) or div.count("xmlns") != 1 or "&" in div or "]]>" in div or (not div.isprintable() and _control(div)):
        return False
    tags = _simple(div)
    if len(tags) != div.count("<") or not div.endswith("</div>") or not _readable(div):
        return False
    return _nested(tags[:-1])


def _nested(tags: list[tuple[str, str, str, str]]) -> bool:
    """True if the tags (close mark, closed name, opened name, empty mark) nest inside one div that is still open at their end."""
    open_tags: list[str] = []
    for closes, closed, opened, empty in tags:
        if closes:
            if open_tags.pop() != closed or not open_tags:
                return False
        elif opened not in ELEMENTS or (empty and not open_tags):
            return False
        elif not empty:
            open_tags.append(opened)
    return open_tags == ["div"]


def _parse(div: str) -> "etree._Element | str":
    if "<!" in div.replace("<!--", ""):
        return "must not hold a DOCTYPE, an entity declaration or CDATA"
    text = _entity.sub(_numeric, div) if "&" in div else div
    try:
        return etree.fromstring(text.encode("utf-8", "surrogatepass"), _PARSER)
    except etree.XMLSyntaxError:
        return "is not well-formed XML"


_PARSER = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True)


def _numeric(match: "re.Match[str]") -> str:
    """A named entity of HTML as a character reference; an unknown one stays and fails as not well-formed."""
    name = match[1]
    if name in XML_ENTITIES or name not in html.entities.name2codepoint:
        return match[0]
    return f"&#{html.entities.name2codepoint[name]};"


def _walk(root: "etree._Element") -> Iterator[str]:
    seen_content = False
    for element in root.iter():
        tag = element.tag
        if not isinstance(tag, str):
            yield "must not hold processing instructions"
            continue
        name = tag[len(XHTML) :] if tag.startswith(XHTML) else ""
        if name not in ELEMENTS:
            yield f"holds an element that narrative may not: <{_shown(tag)}>"
        if element.attrib:
            yield from _attributes(name, element)
        seen_content = seen_content or name == "img" or _content(element)
    if not seen_content:
        yield "has no content that could be read"


def _shown(tag: str) -> str:
    local = tag.rpartition("}")[2]
    return local if re.fullmatch(r"[A-Za-z][A-Za-z0-9]{0,15}", local) else "?"


def _content(element: "etree._Element") -> bool:
    return bool((element.text and element.text.strip()) or (element.tail and element.tail.strip()))


def _attributes(name: str, element: "etree._Element") -> Iterator[str]:
    for key, value in element.attrib.items():
        attribute, text = str(key), str(value)
        if attribute not in ATTRIBUTES and attribute not in OWN.get(name, ()):
            yield f"has an attribute that narrative may not: {_shown(attribute)}"
        elif attribute in LINKS:
            yield from _link(attribute, text)
        elif attribute == "style" and _unsafe_style.search(text):
            yield "has a style that loads or runs something"


def _link(attribute: str, value: str) -> Iterator[str]:
    scheme = _scheme.match(value)
    if scheme and re.sub(r"[\x00-\x20]", "", scheme[1]).lower() not in SCHEMES:
        yield f"has a link in {attribute} of a scheme that is not allowed"
    elif scheme and scheme[1].lower() == "data" and (attribute != "src" or not _data_image.match(value)):
        yield f"has a data: link in {attribute} that is not a picture"


def text_of(div: str) -> str:
    """The readable text of a narrative, '' if it cannot be read (for `_text` search)."""
    root = _parse(div)
    return "" if isinstance(root, str) else " ".join("".join(str(each) for each in root.itertext()).split())
