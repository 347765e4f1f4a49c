"""A version of a resource <-> its BSON document, exactly.

    {_id: rid, vid: 3, at: <stamp>, m: "PUT", res: {the FHIR resource}, x: [spellings], blob: <digest>, ...index (k, r, p, d, s)}

Decimals are Decimal128, so value and precision come back (`1.00`). Where the text sent differs from Python's spelling of the value (`1e-7`),
it is kept in `x` as [text, step, step, ...]. Integers beyond 64 bits become Decimal128 and come back as whole numbers. A document near
MongoDB's limit keeps its resource as a blob (`blob.py`) and only the digest here.
"""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

import bson
from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from bson.decimal128 import Decimal128
from bson.errors import InvalidDocument
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument

from conformance.codec import Spelt
from conformance.dates import instant
from conformance.outcome import refuse
from fhir_server.store import Change, Stored

Document = dict[str, Any]
INLINE_BYTES = 15 * 1024 * 1024  # MongoDB's limit is 16 MiB for the whole document, index included
SHOWN = {"res": 1, "vid": 1, "at": 1, "m": 1, "x": 1, "blob": 1}
HIDDEN = {"vid": 1, "at": 1, "m": 1}
CONTINUATION = 0x60
DBREF = b"$ref\x00"


@lru_cache(8192)
def _decimal128(text: str) -> Decimal128:
    """Clinical values repeat, and the conversion is slow: remember it by text (equal values of another precision must not meet)."""
    return Decimal128(text)


@lru_cache(8192)
def _decimal(bid: bytes) -> Decimal:
    """IEEE 754 decimal128, binary integer encoding, little endian. Several times the speed of Decimal128.to_decimal."""
    high = bid[15]
    if high & CONTINUATION == CONTINUATION:
        return Decimal128.from_bid(bid).to_decimal()
    exponent = ((high & 0x7F) << 7 | bid[14] >> 1) - 6176
    whole = int.from_bytes(bid[:14], "little") | (bid[14] & 1) << 112
    return Decimal(f"{'-' if high & 0x80 else ''}{whole}E{exponent}")


class _FromDecimal128(TypeDecoder):
    """PyMongo's interface for decoding a type of its own into one of ours."""

    bson_type = Decimal128

    def transform_bson(self, value: Decimal128) -> Decimal:
        """The same decimal, digit for digit."""
        return _decimal(value.bid)


class _FromInt64(TypeDecoder):
    """BSON's 64-bit integers as plain ints: PyMongo's own subclass is no JSON number to the codec and no `int` to the gate."""

    bson_type = Int64

    def transform_bson(self, value: Int64) -> int:
        """The same number."""
        return int(value)


RAW: "CodecOptions[RawBSONDocument]" = CodecOptions(document_class=RawBSONDocument)
AS_STORED: "CodecOptions[RawBSONDocument]" = RAW.with_options(tz_aware=True, tzinfo=UTC)


class _Seen(threading.local):
    """Whether the document being encoded holds a Spelt: then, and only then, it is searched for the places."""

    spelt = False


_seen = _Seen()


def _fallback(value: Any) -> Any:
    if isinstance(value, Decimal):
        if type(value) is Spelt:
            _seen.spelt = True
        return _decimal128(str(value))
    raise InvalidDocument(f"{type(value).__name__} cannot be stored")


CODEC: "CodecOptions[Document]" = CodecOptions(
    tz_aware=True, tzinfo=UTC, type_registry=TypeRegistry([_FromDecimal128(), _FromInt64()], fallback_encoder=_fallback)
)

ZONELESS: "CodecOptions[Document]" = CODEC.with_options(tz_aware=False, tzinfo=None)


def zoned(document: Document) -> Document:
    """A row decoded by ZONELESS, whose only moments are its own stamp and hot date: given a zone here, which is several times quicker than in the decoder."""
    for name in ("at", "d"):
        if (moment := document.get(name)) is not None:
            document[name] = moment.replace(tzinfo=UTC)
    return document


def bare(change: Change, vid: int, at: datetime) -> Document:
    """The document of the new version of `change.rid`; `res` gets its meta (versionId, lastUpdated) in a copy. For a tombstone res is None."""
    document: Document = {"_id": change.rid, "vid": vid, "at": at, "m": change.method, "res": change.res}
    if change.res is not None:
        meta = {**change.res.get("meta", {}), "versionId": str(vid), "lastUpdated": instant(at)}
        document["res"] = _with_meta(change.res, meta)
    document.update(change.index)
    return document


def _with_meta(res: Document, meta: Document) -> Document:
    """A copy with this meta; where there was none it stands behind resourceType and id, as in the standard's own examples."""
    if "meta" in res:
        return {**res, "meta": meta}
    head: Document = {name: res[name] for name in ("resourceType", "id") if name in res}
    return {**head, "meta": meta, **res}


def encoded(document: Document) -> bytes:
    """BSON of a document, which gets its spellings `x` where its resource needs them. Raises Refusal 422 for what cannot be stored, naming the rule."""
    _seen.spelt = False
    try:
        data = _encoded(document)
        if _seen.spelt and "x" not in document and document.get("res"):
            document["x"] = [[text, *path] for path, text in _spellings(document["res"], ())]
            data = _encoded(document)
        if DBREF in data and _names(document, "$ref"):  # PyMongo would read it back as a reference of its own, not as the object sent
            raise refuse("structure", "an element is named $ref, which the database keeps for itself", status=422)
        return data
    except InvalidDocument as error:
        raise refuse("structure", "an element's name holds a NUL character or a value is of a kind that cannot be stored", status=422) from error
    except UnicodeEncodeError as error:
        raise refuse("structure", "a text holds half of a surrogate pair, which is not Unicode text", status=422) from error


def _names(value: Any, name: str) -> bool:
    """True if an object anywhere inside has an element of this name."""
    if isinstance(value, dict):
        return name in value or any(_names(inner, name) for inner in value.values())
    return isinstance(value, list) and any(_names(inner, name) for inner in value)


def _encoded(document: Document) -> bytes:
    try:
        return bson.encode(document, codec_options=CODEC)
    except (OverflowError, InvalidDocument):  # the one for a bare number, the other for a number inside something
        _seen.spelt = True
        return bson.encode(_narrowed(document), codec_options=CODEC)


def raw(data: bytes) -> RawBSONDocument:
    """Encoded BSON as the driver takes it, without encoding it again."""
    return RawBSONDocument(data)


def decoded(data: bytes) -> Document:
    """BSON bytes -> document, with Decimals and aware datetimes."""
    return bson.decode(data, CODEC)


def stored(rtype: str, document: Document, position: tuple[Any, ...] = ()) -> Stored:
    """The version in a document of collection `rtype` (whose blob, if any, has been loaded)."""
    res = document.get("res")
    if "x" in document and res:
        _respell(res, document["x"])
    return Stored(rtype, document["_id"], document["vid"], document["at"], res, document.get("m", "PUT"), position)


def _spellings(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    """(path, text as sent) of every number whose spelling Decimal128 alone would not bring back."""
    items = value.items() if type(value) is dict else enumerate(value)
    for step, inner in items:
        kind = type(inner)
        if kind is str:
            continue
        if kind is dict or kind is list:
            yield from _spellings(inner, (*path, step))
        elif kind is Spelt:
            yield (*path, step), inner.text
        elif kind is int and not -(2**63) <= inner < 2**63:
            yield (*path, step), str(inner)


def _respell(res: Document, spellings: list[list[Any]]) -> None:
    for text, *path in spellings:
        holder: Any = res
        for step in path[:-1]:
            holder = holder[step]
        whole = text.lstrip("-").isdigit()
        holder[path[-1]] = int(text) if whole and text != "-0" else Spelt(text)


def _narrowed(value: Any) -> Any:
    """A copy in which integers beyond 64 bits are decimals."""
    if isinstance(value, dict):
        return {name: _narrowed(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_narrowed(inner) for inner in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return Decimal(value)
    return value
