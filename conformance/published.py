"""The definitions of R4, of the installed packages and of our own operations as resources that can be read over REST, whole but for their narrative.

`Spec.definition` answers by canonical and without prose; here a definition is found by kind and id, as published. R4's own lie in blocks
(`r4/published/`, written by `build.py`), of which a few are kept unpacked. https://hl7.org/fhir/R4/http.html#read
"""

import lzma
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from conformance.codec import decode
from conformance.package import KINDS, Package, version_key
from conformance.spec import EXTRA, R4, Spec

Json = dict[str, Any]
Source = tuple[int, int] | bytes
"""Where a definition lies: (block, position in it) of R4's own, or the JSON of a package's or of ours."""

FOLDER = R4 / "published"
BLOCKS_KEPT = 4  # unpacked, of up to 3 MB each
MAX_ID = 64


def kinds(spec: Spec) -> frozenset[str]:
    """The resource types of which there are published definitions."""
    return frozenset(_index()) | frozenset(row.rtype for package in spec.packages for rows in package.index.values() for row in rows)


def published(spec: Spec, kind: str) -> Mapping[str, Source]:
    """id -> where the definition lies. A package's own ids; of several packages with one id the newest has it, the others' carry their version."""
    memo: dict[str, Mapping[str, Source]] = spec.memo.setdefault("published", {})
    if kind not in memo:
        found: dict[str, Source] = {rid: (block, at) for block, row in enumerate(_index().get(kind, ())) for at, rid in enumerate(row[2])}
        found |= _ours() if kind == "OperationDefinition" else {}
        for package in sorted(spec.packages, key=lambda one: (one.name, version_key(one.version)), reverse=True) if kind in KINDS else ():
            for rid, raw in _of(package, kind):
                found[_free(rid, package.version, found)] = raw
        memo[kind] = MappingProxyType(found)
    return memo[kind]


def read(kind: str, source: Source) -> Json:
    """The definition that lies there."""
    res: Json = decode(source if isinstance(source, bytes) else bytes(_block(kind, source[0])[source[1]]))
    return res


def _of(package: Package, kind: str) -> list[tuple[str, bytes]]:
    rows = [row for listed in package.index.values() for row in listed if row.rtype == kind]
    named = [(msgspec.json.decode(row.raw, type=_Named).id, row.raw) for row in rows]
    return [(rid, raw) for rid, raw in named if rid]


class _Named(msgspec.Struct):
    id: str = ""


def _free(rid: str, version: str, taken: Mapping[str, Source]) -> str:
    """The id, with the version behind it if it is taken, with a number if that is taken too."""
    if rid not in taken:
        return rid
    mark = "".join(each if each.isalnum() or each in "-." else "-" for each in f"-{version}")
    named = rid[: MAX_ID - len(mark)] + mark
    return named if named not in taken else next(each for at in range(2, MAX_ID) if (each := f"{named[: MAX_ID - 3]}-{at}") not in taken)


@cache
def _ours() -> Mapping[str, bytes]:
    """The operations of this exchange that R4 does not publish, so that what the CapabilityStatement names can be read."""
    rows = msgspec.json.decode((EXTRA / "operations.json").read_bytes(), type=list[msgspec.Raw])
    return MappingProxyType({msgspec.json.decode(row, type=_Named).id: bytes(row) for row in rows})


@cache
def _index() -> Mapping[str, list[tuple[int, int, list[str]]]]:
    return msgspec.json.decode((FOLDER / "index.json").read_bytes(), type=dict[str, list[tuple[int, int, list[str]]]])


@lru_cache(BLOCKS_KEPT)
def _block(kind: str, number: int) -> list[msgspec.Raw]:
    start, length, _ = _index()[kind][number]
    with Path(FOLDER / f"{kind}.xz").open("rb") as file:
        file.seek(start)
        data = lzma.decompress(file.read(length))
    return msgspec.json.decode(data, type=list[msgspec.Raw])
