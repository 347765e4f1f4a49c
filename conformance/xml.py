"""FHIR XML <-> the same dict as JSON gives, driven by R4's elements. https://hl7.org/fhir/R4/xml.html and https://hl7.org/fhir/R4/json.html#xml

Reading refuses document type declarations (and with them every entity), encodings other than UTF-8, unknown elements and attributes, stray text, and nesting
beyond a limit. Writing tells the members in the order of the standard. The narrative is kept as it is, in its own namespace. Comments are dropped outside it.
"""

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from html.entities import html5
from typing import Any

from lxml import etree

from conformance.codec import MAX_DEPTH, fits, number, read, text_of
from conformance.outcome import Refusal, bad_request, not_acceptable, refuse, too_large
from conformance.spec import Element, Spec

FHIR = "http://hl7.org/fhir"
XHTML = "http://www.w3.org/1999/xhtml"
_TAG = "{" + FHIR + "}"
# as https://hl7.org/fhir/R4/datatypes.html#integer writes them
_INTEGERS = {
    "integer": re.compile(r"0|[+-]?[1-9][0-9]{0,18}"),
    "positiveInt": re.compile(r"\+?[1-9][0-9]{0,18}"),
    "unsignedInt": re.compile(r"0|[1-9][0-9]{0,18}"),
}
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_ENCODING = re.compile(rb"""^<\?xml[^>]*?encoding\s*=\s*["']([^"']*)["']""")
_ENTITY = re.compile(r"&([A-Za-z][A-Za-z0-9]*);")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_XML_ENTITIES = frozenset(("amp", "lt", "gt", "quot", "apos"))


def from_xml(data: bytes, spec: Spec, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """The resource of an XML document. Raises Refusal 400 (malformed, with line and column; not R4, with the element's path) or 413 (nesting)."""
    return _Reader(spec, max_depth).resource(_parse(data), "", 0)


def _parse(data: bytes) -> etree._Element:
    head = data[:400].lstrip(b"\xef\xbb\xbf \t\r\n")
    encoding = _ENCODING.match(head)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in head or (encoding and encoding.group(1).lower() not in (b"utf-8", b"utf8", b"us-ascii")):
        raise bad_request("the XML must be encoded in UTF-8")
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise bad_request("a document type declaration is not allowed")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=True, encoding="utf-8")
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        line, column = error.position
        raise refuse("structure", f"malformed XML at line {line}, column {column}") from error


Place = tuple[Any, str, int | None] | str
"""Where an element stands: (place of its parent, name, index in its list or None); the root is its type's name. Told as text only in refusals."""


@dataclass(frozen=True, slots=True)
class _Row:
    """What the reader needs of one XML element: JSON name, FHIR type, content for its children ('' for a primitive), whether it repeats."""

    name: str
    type: str
    content: str
    many: bool


def _rows(spec: Spec, content: str) -> Mapping[str, _Row]:
    """Tag -> row of everything that may stand inside a type or backbone, made once per Spec."""
    known: dict[str, Mapping[str, _Row]] = spec.memo.setdefault("xml.rows", {})
    found = known.get(content)
    if found is None:
        found = known[content] = {
            (f"{{{XHTML}}}div" if type_ == "xhtml" else _TAG + name): _Row(
                name, type_, "" if type_ in spec.primitives else element.content or type_, element.max != 1
            )
            for name, (element, type_) in spec.properties(content).items()
            if not element.attribute
        }
    return found


def _told(place: Place) -> str:
    if isinstance(place, str):
        return place
    parent, name, index = place
    return f"{_told(parent)}.{name}" + ("" if index is None else f"[{index}]")


def _bad(place: Place, why: str, code: str = "invalid") -> Refusal:
    where = _told(place)
    return refuse(code, f"{where} {why}", expression=where)


class _Reader:
    """Reads elements against the Spec."""

    def __init__(self, spec: Spec, max_depth: int) -> None:
        self.spec = spec
        self.max_depth = max_depth

    def resource(self, node: etree._Element, place: Place, depth: int) -> dict[str, Any]:
        name = _local(node)
        if name not in self.spec.types:
            raise _bad(place or "the document", f"is not a resource of R4 in the namespace {FHIR}")
        res: dict[str, Any] = {"resourceType": name}
        self.attributes(node, (), place or name, res)
        self.children(node, name, place or name, res, depth)
        return res

    def attributes(self, node: etree._Element, allowed: tuple[str, ...], place: Place, found: dict[str, Any]) -> None:
        for name, text in node.attrib.items():
            if str(name) in allowed:
                found[str(name)] = str(text)
            elif not str(name).startswith("{http://www.w3.org/2001/XMLSchema-instance}"):
                raise _bad(place, "has an attribute that is not known")

    def children(self, node: etree._Element, content: str, place: Place, found: dict[str, Any], depth: int) -> None:
        """Read the child elements into `found`. Raises Refusal."""
        if depth >= self.max_depth:
            raise too_large(f"the body is nested deeper than {self.max_depth} levels")
        if node.text and not node.text.isspace():
            raise _bad(place, "holds text where only elements may stand")
        rows = _rows(self.spec, content)
        for child in node:
            if child.tail and not child.tail.isspace():
                raise _bad(place, "holds text where only elements may stand")
            row = rows.get(child.tag) if isinstance(child.tag, str) else None
            if row is not None:
                self.child(child, row, place, found, depth)
            elif isinstance(child.tag, str):
                name = _local(child)
                raise _bad(place, "has an element that R4 does not know there" + (f": {name}" if name.isalnum() and len(name) < 64 else ""))

    def child(self, node: etree._Element, row: _Row, place: Place, found: dict[str, Any], depth: int) -> None:
        name = row.name
        here = (place, name, len(found.get(name) or found.get("_" + name) or ()) if row.many else None)
        if not row.many and (name in found or "_" + name in found):
            raise _bad(here, "stands twice where once is allowed")
        if not row.content:
            value, extra = self.primitive(node, row.type, here, depth)
            if value is not None and extra is None and not row.many:
                found[name] = value
            else:
                _add_primitive(found, name, value, extra, row.many)
            return
        inner = self.complex(node, row, here, depth)
        if row.many:
            found.setdefault(name, []).append(inner)
        else:
            found[name] = inner

    def complex(self, node: etree._Element, row: _Row, place: Place, depth: int) -> dict[str, Any]:
        if row.type == "Resource":
            inner = [child for child in node if isinstance(child.tag, str)]
            if len(inner) != 1:
                raise _bad(place, "must hold one resource")
            return self.resource(inner[0], place, depth + 1)
        value: dict[str, Any] = {}
        if node.attrib:
            self.attributes(node, ("id", "url") if row.type == "Extension" else ("id",), place, value)
        self.children(node, row.content, place, value, depth + 1)
        return value

    def primitive(self, node: etree._Element, type_: str, place: Place, depth: int) -> tuple[Any, dict[str, Any] | None]:
        if type_ == "xhtml":
            return _narrative(node), None
        text = node.get("value")
        extra: dict[str, Any] = {}
        if len(node.attrib) != (text is not None):
            self.attributes(node, ("id", "value"), place, extra)
            extra.pop("value", None)
        if len(node) or node.text:
            self.children(node, "Element", place, extra, depth + 1)
        if text is None and not extra:
            raise _bad(place, "has neither a value nor extensions (ele-1)", "structure")
        return None if text is None else _value(text, type_, place), extra or None


def _local(node: etree._Element) -> str:
    """The name of an element of FHIR's namespace, 'div' for the narrative's; '' for any other."""
    tag = str(node.tag)
    if tag.startswith(_TAG):
        return tag[len(_TAG) :]
    return "div" if tag == f"{{{XHTML}}}div" else ""


def _add_primitive(found: dict[str, Any], name: str, value: Any, extra: dict[str, Any] | None, many: bool) -> None:
    """`name` and `_name` side by side; in lists both are padded with null, and left out while they hold nothing else."""
    if not many:
        if value is not None:
            found[name] = value
        if extra is not None:
            found["_" + name] = extra
        return
    values, extras = found.get(name), found.get("_" + name)
    count = len(values if values is not None else extras or ())
    if value is not None and values is None:
        values = found[name] = [None] * count
    if extra is not None and extras is None:
        extras = found["_" + name] = [None] * count
    if values is not None:
        values.append(value)
    if extras is not None:
        extras.append(extra)


def _value(text: str, type_: str, place: Place) -> Any:
    """The JSON value of a `value` attribute. Raises Refusal 400 if it is not of the type."""
    if type_ == "boolean":
        if text not in ("true", "false"):
            raise _bad(place, "is not a boolean", "value")
        return text == "true"
    if type_ in _INTEGERS:
        if not _INTEGERS[type_].fullmatch(text):
            raise _bad(place, f"is not of the form of {type_}", "value")
        return int(text)
    if type_ == "decimal":
        return _decimal(text, place)
    return text


def _decimal(text: str, place: Place) -> int | Decimal:
    try:
        value = number(text) if _DECIMAL.fullmatch(text) else None
    except InvalidOperation:
        value = None
    if value is None or not fits(value):
        raise _bad(place, "is not a decimal that can be kept exactly", "value")
    plain = text.removeprefix("-").isdigit() and -(2**63) <= value < 2**63 and text != "-0"
    return int(text) if plain else value


def _narrative(node: etree._Element) -> str:
    copy = deepcopy(node)
    copy.tail = None
    etree.cleanup_namespaces(copy)
    return etree.tostring(copy, encoding="unicode")


def to_xml(res: dict[str, Any], spec: Spec, pretty: bool = False) -> bytes:
    """A resource as XML document in UTF-8. Raises Refusal 406 for what XML cannot tell (an element that R4 does not know, a broken narrative)."""
    writer = _Writer(spec, "\n" if pretty else "")
    writer.resource(res, f' xmlns="{FHIR}"', "\n" if pretty else "")
    text = "".join(writer.parts)
    if _NOT_XML.search(text):
        raise not_acceptable("the resource holds a character that XML cannot tell")
    return b'<?xml version="1.0" encoding="UTF-8"?>' + text.encode() + (b"\n" if pretty else b"")


class _Writer:
    """Writes elements in the order of the Spec."""

    def __init__(self, spec: Spec, indent: str) -> None:
        self.spec = spec
        self.step = "  " if indent else ""
        self.parts: list[str] = []

    def resource(self, res: dict[str, Any], namespace: str, pad: str) -> None:
        name = res.get("resourceType")
        if name not in self.spec.types:
            raise not_acceptable("the resource is of a type that R4 does not know")
        self.parts.append(f"{pad}<{name}{namespace}>")
        self.members(res, str(name), pad + self.step)
        self.parts.append(f"{pad}</{name}>")

    def members(self, value: dict[str, Any], content: str, pad: str) -> None:
        if not isinstance(value, dict):
            raise _misshapen(content)
        order = _order(self.spec, content)
        names = {name.removeprefix("_") for name in value}
        if content in self.spec.types:  # ExampleScenario.instance has an element of that name
            names.discard("resourceType")
        if not names <= order.keys():
            raise not_acceptable(f"{content} has an element that R4 does not know, so XML cannot tell it")
        for name in sorted(names, key=order.__getitem__) if len(names) > 1 else names:
            element, type_ = self.spec.properties(content)[name]
            if element.attribute:
                continue
            if type_ in self.spec.primitives:
                self.primitives(name, type_, value.get(name), value.get("_" + name), pad)
            else:
                for inner in _list(value.get(name)):
                    self.complex(name, element, type_, inner, pad)

    def primitives(self, name: str, type_: str, value: Any, extra: Any, pad: str) -> None:
        if extra is None and type(value) is str and type_ != "xhtml":
            self.parts.append(f'{pad}<{name} value="{_escape(value)}"/>')
            return
        values, extras = _list(value), _list(extra)
        for place in range(max(len(values), len(extras))):
            one = values[place] if place < len(values) else None
            more = extras[place] if place < len(extras) else None
            if isinstance(one, dict | list) or not isinstance(more, dict | None):
                raise _misshapen(name)
            if type_ == "xhtml":
                self.parts.append(pad + _checked_narrative(str(one)))
                continue
            attributes = (f' id="{_escape(str(more["id"]))}"' if more and "id" in more else "") + (
                "" if one is None else f' value="{_escape(_text(one))}"'
            )
            inner = more.get("extension") if more else None
            if not inner:
                self.parts.append(f"{pad}<{name}{attributes}/>")
                continue
            self.parts.append(f"{pad}<{name}{attributes}>")
            self.members({"extension": inner}, "Element", pad + self.step)
            self.parts.append(f"{pad}</{name}>")

    def complex(self, name: str, element: Element, type_: str, value: dict[str, Any], pad: str) -> None:
        if type_ == "Resource" and isinstance(value, dict):
            self.parts.append(f"{pad}<{name}>")
            self.resource(value, "", pad + self.step)
            self.parts.append(f"{pad}</{name}>")
            return
        if not isinstance(value, dict):
            raise _misshapen(name)
        attributes = f' id="{_escape(str(value["id"]))}"' if "id" in value else ""
        if type_ == "Extension" and "url" in value:
            attributes += f' url="{_escape(str(value["url"]))}"'
        at = len(self.parts)
        self.members(value, element.content or type_, pad + self.step)
        if len(self.parts) == at:
            self.parts.append(f"{pad}<{name}{attributes}/>")
        else:
            self.parts.insert(at, f"{pad}<{name}{attributes}>")
            self.parts.append(f"{pad}</{name}>")


def _order(spec: Spec, content: str) -> Mapping[str, int]:
    """JSON name -> place in the order of XML, made once per Spec."""
    known: dict[str, Mapping[str, int]] = spec.memo.setdefault("xml.order", {})
    if content not in known:
        known[content] = {name: place for place, name in enumerate(spec.properties(content))}
    return known[content]


def _list(value: Any) -> list[Any]:
    value = read(value)
    return [] if value is None else value if isinstance(value, list) else [value]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return text_of(value) if isinstance(value, Decimal) else str(value)


def _escape(text: str) -> str:
    if "&" in text or "<" in text or '"' in text:
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    if "\n" in text or "\t" in text or "\r" in text:  # an XML reader turns bare ones in attributes into blanks
        text = text.replace("\t", "&#9;").replace("\n", "&#10;").replace("\r", "&#13;")
    return text


def _checked_narrative(text: str) -> str:
    """The narrative's div, well-formed and in its namespace; named entities of HTML become characters. Raises Refusal 406."""
    text = _ENTITY.sub(_character, text)
    try:
        if "<!" in text.replace("<!--", ""):
            raise _broken_narrative()
        root = etree.fromstring(text, etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True))
    except etree.XMLSyntaxError as error:
        raise _broken_narrative() from error
    if root.tag == "div" and text.startswith("<div"):
        return f'<div xmlns="{XHTML}"{text[4:]}'
    if root.tag != f"{{{XHTML}}}div":
        raise _broken_narrative()
    return text[text.index("<") :]


def _misshapen(name: str) -> Refusal:
    return not_acceptable(f"{name} has not the shape that R4 gives it, so XML cannot tell it")


def _broken_narrative() -> Refusal:
    return not_acceptable("the narrative is not well-formed XHTML, so XML cannot tell it; ask for JSON")


def _character(found: re.Match[str]) -> str:
    name = found.group(1)
    return found.group() if name in _XML_ENTITIES else html5.get(f"{name};", found.group())
