"""FHIR XML <-> dict, driven by the Spec's elements. https://hl7.org/fhir/R4/xml.html

The dict is the JSON form, so everything behind the door knows one representation. Decimals and narrative keep their text: a number is taken
as it is spelt, a `div` is cut out of (and put back into) the document as it stands.
"""

import re
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

from lxml import etree

from conformance.codec import decode_value
from conformance.outcome import Refusal, bad_request, not_acceptable, refuse, too_large
from conformance.spec import Element, Spec

FHIR, XHTML = "http://hl7.org/fhir", "http://www.w3.org/1999/xhtml"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
MAX_DEPTH = 64
INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
INTEGERS = frozenset({"integer", "positiveInt", "unsignedInt"})
ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # https://www.w3.org/TR/xml/#charsets
_SAFE_PARSER = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)


# --- reading ---


@dataclass(slots=True)
class Node:
    """One XML element: its local name, attributes, children in order; for narrative, the source text of the whole `div`."""

    name: str
    attributes: dict[str, str]
    children: "list[Node]" = field(default_factory=list)
    source: str = ""


def from_xml(data: bytes, spec: Spec, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """The resource in `data` (UTF-8). Raises Refusal 400 (malformed, DTD, unknown element; with its place) or 413 (nesting)."""
    root = _Reader(data, max_depth).read()
    if root.name not in spec.types:
        raise bad_request("the root element is not an R4 resource type")
    return _resource(root, spec)


class _Reader:
    """expat's handlers and what they build. (A class because expat calls back.)"""

    def __init__(self, data: bytes, max_depth: int) -> None:
        self.data, self.max_depth = data, max_depth
        self.stack: list[Node] = []
        self.root: Node | None = None
        self.div_depth = 0
        self.div_start = 0
        self.parser = expat.ParserCreate("utf-8", " ")
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.text
        self.parser.StartDoctypeDeclHandler = self.doctype

    def read(self) -> Node:
        """Parse all of it."""
        if self.data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in self.data[:4]:
            raise refuse("structure", "FHIR XML is UTF-8")
        try:
            self.parser.Parse(self.data, True)
        except expat.ExpatError as error:
            raise refuse("structure", f"malformed XML at line {error.lineno}, column {error.offset + 1}: {expat.ErrorString(error.code)}") from error
        if self.root is None:
            raise refuse("structure", "the XML document has no element")
        return self.root

    def doctype(self, *declared: object) -> None:
        """https://hl7.org/fhir/R4/security.html#xml: no DTD, so no entity of any kind."""
        raise refuse("structure", "a DOCTYPE is not allowed in FHIR XML")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        space, _, name = tag.rpartition(" ")
        if self.div_depth:
            self.div_depth += 1
            if self.div_depth > self.max_depth * 4:
                raise too_large("the narrative is nested too deeply")
            return
        if len(self.stack) >= self.max_depth:
            raise too_large(f"the body is nested deeper than {self.max_depth}")
        if space == XHTML and name == "div" and self.stack:
            self.div_depth, self.div_start = 1, self.parser.CurrentByteIndex
        elif space != FHIR:
            raise refuse("structure", f"an element at line {self.parser.CurrentLineNumber} is not in the FHIR namespace")
        self.stack.append(Node(name, attributes))

    def end(self, tag: str) -> None:
        if self.div_depth:
            self.div_depth -= 1
            if self.div_depth:
                return
            self.stack[-1].source = self.cut()
        node = self.stack.pop()
        if self.stack:
            self.stack[-1].children.append(node)
        else:
            self.root = node

    def cut(self) -> str:
        """The source of the `div` that ends here; written anew where its prefixes were declared outside it."""
        end = self.data.index(b">", self.parser.CurrentByteIndex) + 1
        source = self.data[self.div_start : end].decode("utf-8")
        try:
            standing = etree.fromstring(source, _SAFE_PARSER)
        except etree.XMLSyntaxError:
            standing = None
        if standing is not None and standing.tag == f"{{{XHTML}}}div":
            return source
        whole = etree.fromstring(self.data, _SAFE_PARSER)
        line = self.parser.CurrentLineNumber
        divs = [one for one in whole.iter(f"{{{XHTML}}}div") if getattr(one.getparent(), "tag", None) == f"{{{FHIR}}}text"]
        if len(divs) != 1:
            raise refuse("structure", f"the narrative that ends at line {line} must declare the XHTML namespace on its div")
        return etree.tostring(divs[0], encoding="unicode", with_tail=False)

    def text(self, data: str) -> None:
        if not self.div_depth and not data.isspace():
            raise refuse("structure", f"text at line {self.parser.CurrentLineNumber} stands outside narrative: values are attributes in FHIR XML")


def _resource(node: Node, spec: Spec) -> dict[str, Any]:
    return {"resourceType": node.name, **_complex(node, node.name, node.name, spec)}


def _complex(node: Node, type_name: str, place: str, spec: Spec) -> dict[str, Any]:
    """The JSON object of an element of a complex type; attributes (`id`, `url`) first."""
    properties = spec.properties(type_name)
    out: dict[str, Any] = {}
    for name, value in node.attributes.items():
        if name.startswith(XSI):
            continue
        if name not in properties or not properties[name][0].attribute:
            raise refuse("structure", f"{place} has an attribute that R4 does not define", expression=place)
        out[name] = value
    for child in node.children:
        known = properties.get(child.name)
        if known is None or known[0].attribute:
            raise refuse("structure", f"{place} has no element '{child.name[:64]}' in R4", expression=place)
        _put(out, child, *known, f"{place}.{child.name}", spec)
    return out


def _put(out: dict[str, Any], child: Node, element: Element, code: str, place: str, spec: Spec) -> None:
    """Add one child element to its parent's JSON object."""
    name, many = child.name, element.max != 1
    if code == "xhtml":
        value: Any = child.source
        if not value:
            raise refuse("structure", f"{place} must be an XHTML div", expression=place)
    elif code in spec.primitives:
        value, more = _primitive(child, code, place, spec)
        _place_primitive(out, name, many, value, more, place)
        return
    elif spec.is_a(code, "Resource"):
        if len(child.children) != 1 or child.children[0].name not in spec.types:
            raise refuse("structure", f"{place} must hold one resource", expression=place)
        value = _resource(child.children[0], spec)
    else:
        value = _complex(child, element.content or code, place, spec)
    if many:
        out.setdefault(name, []).append(value)
    elif name in out:
        raise refuse("structure", f"{place} stands more than once", expression=place)
    else:
        out[name] = value


def _primitive(node: Node, code: str, place: str, spec: Spec) -> tuple[Any, dict[str, Any] | None]:
    """(value or None, what stands in `_name` or None) of a primitive element."""
    text = node.attributes.get("value")
    rest = Node(node.name, {key: value for key, value in node.attributes.items() if key != "value"}, node.children)
    more = _complex(rest, "Element", place, spec) if rest.attributes or rest.children else None
    return (None if text is None else _typed(text, code)), more


def _typed(text: str, code: str) -> Any:
    """The JSON value of a primitive's text; what does not have the type's form stays text, for the gate to refuse."""
    if code == "boolean" and text in ("true", "false"):
        return text == "true"
    if (code in INTEGERS and INTEGER.fullmatch(text)) or (code == "decimal" and DECIMAL.fullmatch(text)):
        return decode_value(text.encode())
    return text


def _place_primitive(out: dict[str, Any], name: str, many: bool, value: Any, more: dict[str, Any] | None, place: str) -> None:
    """Values under `name`, ids and extensions under `_name`, paired by nulls (https://hl7.org/fhir/R4/json.html#primitive)."""
    if not many:
        if name in out or f"_{name}" in out:
            raise refuse("structure", f"{place} stands more than once", expression=place)
        out |= {key: one for key, one in ((name, value), (f"_{name}", more)) if one is not None}
        return
    count = max(len(out.get(name, ())), len(out.get(f"_{name}", ())))
    for key, one in ((name, value), (f"_{name}", more)):
        if one is not None:
            row = out.setdefault(key, [])
            row += [None] * (count - len(row)) + [one]
        elif key in out:
            out[key].append(None)


# --- writing ---


def to_xml(res: dict[str, Any], spec: Spec, *, pretty: bool = False) -> bytes:
    """The resource as UTF-8 XML. Raises Refusal 406 for what R4's XML cannot say (an element or a character it does not know)."""
    out = ['<?xml version="1.0" encoding="UTF-8"?>']
    _write_resource(out, res, spec, "\n" if pretty else "", f' xmlns="{FHIR}"')
    return "".join(out).encode()


def _write_resource(out: list[str], res: dict[str, Any], spec: Spec, indent: str, space: str = "") -> None:
    rtype = res.get("resourceType")
    if rtype not in spec.types:
        raise _unwritable("a resource of a type that R4 does not define")
    body = {name: value for name, value in res.items() if name != "resourceType"}
    _write_complex(out, str(rtype), body, str(rtype), spec, indent, space)


def _write_complex(out: list[str], tag: str, value: dict[str, Any], type_name: str, spec: Spec, indent: str, space: str = "") -> None:
    """One element of a complex type with everything inside it, in the order of its definition."""
    properties = spec.properties(type_name)
    if any(name not in properties and name.removeprefix("_") not in properties for name in value):
        raise _unwritable(f"an element inside {type_name} that R4 does not define")
    attributes = "".join(f' {name}="{_escaped(value[name])}"' for name in value if name in properties and properties[name][0].attribute)
    out.append(f"{indent}<{tag}{space}{attributes}")
    opened = False
    for name, (element, code) in properties.items():
        if element.attribute or (name not in value and f"_{name}" not in value):
            continue
        if not opened:
            out.append(">")
            opened = True
        _write_property(out, name, value.get(name), value.get(f"_{name}"), element, code, spec, indent + "  " if indent else "")
    out.append(f"{indent}</{tag}>" if opened else "/>")


def _write_property(out: list[str], name: str, value: Any, more: Any, element: Element, code: str, spec: Spec, indent: str) -> None:
    if code in spec.primitives:
        values, mores = value if isinstance(value, list) else [value], more if isinstance(more, list) else [more]
        for at in range(max(len(values), len(mores))):
            one = values[at] if at < len(values) else None
            extra = mores[at] if at < len(mores) else None
            if code == "xhtml":
                out.append(indent + _narrative(str(one)))
            else:
                text = "" if one is None else f' value="{_escaped(one)}"'
                _write_complex(out, name, extra or {}, "Element", spec, indent, text)
        return
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, dict):
            raise _unwritable(f"a value that is no object where {code} stands")
        if spec.is_a(code, "Resource"):
            out.append(f"{indent}<{name}>")
            _write_resource(out, one, spec, indent + "  " if indent else "")
            out.append(f"{indent}</{name}>")
        else:
            _write_complex(out, name, one, element.content or code, spec, indent)


def _escaped(value: Any) -> str:
    if value is True or value is False:
        return "true" if value else "false"
    text = value if isinstance(value, str) else str(getattr(value, "text", value))
    if NOT_XML.search(text):
        raise _unwritable("a character that XML does not allow")
    return text.translate(ESCAPES)


def _narrative(source: str) -> str:
    """The div as it stands if it is well-formed in its namespace; otherwise its text, so that the document around it stays whole."""
    try:
        if etree.fromstring(source, _SAFE_PARSER).tag == f"{{{XHTML}}}div":
            return source
    except (etree.XMLSyntaxError, ValueError):
        return f'<div xmlns="{XHTML}">{_escaped(source)}</div>'
    return f'<div xmlns="{XHTML}">{_escaped(source)}</div>'


def _unwritable(what: str) -> Refusal:
    return not_acceptable(f"the resource cannot be written as XML: it holds {what}")
