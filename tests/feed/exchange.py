"""A whole feed over the memory store, and builders of messages, for scenario tests."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from fhir_server.feed import rewrite
from fhir_server.feed.intake import Feed, receive
from fhir_server.feed.items import targets
from fhir_server.feed.meeting import Means, Write
from fhir_server.feed.receipt import Sender
from fhir_server.sources import Registry, Source, registry
from fhir_server.store import Change, Stored
from mappers.v2.convert import convert
from mappers.v2.message import Message, parse
from mappers.v2.source import Source as MapperSource
from mappers.v2.tables import Tables, load_tables
from tests.feed.memory import MemoryInbox, MemoryStore, MemoryTx

CHOICE = re.compile(r"(deceased|multipleBirth|effective|value|onset|abatement|performed|occurrence|medication)[A-Z]")


@cache
def tables() -> Tables:
    return load_tables()


def choice(rtype: str, name: str) -> str:
    found = CHOICE.match(name)
    return f"{found[1]}[x]" if found else name


def map_it(message: Message, source: Source) -> Any:
    return convert(message, tables(), source=MapperSource(name=source.name, authority=source.own_authority))


class Exchange:
    """The feed, its store, and what tests ask of them."""

    def __init__(self, known: Registry | dict[str, Any] | None = None) -> None:
        self.store = MemoryStore()
        self.inbox = MemoryInbox(self.store)
        self.means = Means(self.inbox, self._commit, self._lookup, self._referrers, choice)
        found = known if isinstance(known, Registry) else registry(known or {})
        self.feed = Feed(self.store, self.inbox, found, map_it, lambda source: self.means)

    async def _commit(self, tx: Any, writes: Sequence[Write]) -> list[Stored]:
        assert len({(write.res["resourceType"], write.res["id"]) for write in writes}) == len(writes)
        for write in writes:
            assert not [target for target in targets(write.res) if target.startswith("urn:")], "a reference was left unresolved"
        method = {True: "POST", False: "PUT"}
        return await tx.put([Change(w.res["resourceType"], w.res["id"], w.res, {}, w.prior, method[w.prior is None]) for w in writes])

    async def _lookup(self, tx: Any, rtype: str, tokens: Sequence[str]) -> list[str]:
        return [
            res["id"]
            for (of, _), stored in tx.rows("res").items()
            if of == rtype and (res := stored.res) and any(f"{one.get('system')}|{one.get('value')}" in tokens for one in res.get("identifier", []))
        ]

    async def _referrers(self, tx: Any, ref: str, limit: int) -> list[Stored]:
        return [stored for _, stored in sorted((tx or MemoryTx(self.store)).rows("res").items()) if stored.res and ref in targets(stored.res)][:limit]

    async def send(self, raw: bytes | str, **sender: str) -> str:
        """Send one message; MSA-1 of the answer ('' for none)."""
        return parse(await self.answer(raw, **sender) or b"").get("MSA-1")

    async def answer(self, raw: bytes | str, **sender: str) -> bytes | None:
        return await receive(self.feed, raw.encode() if isinstance(raw, str) else raw, Sender(**sender))

    def all(self, rtype: str) -> list[dict[str, Any]]:
        return self.store.all(rtype)

    def one(self, rtype: str) -> dict[str, Any]:
        found = self.all(rtype)
        assert len(found) == 1, f"{len(found)} {rtype}"
        return found[0]

    def patient(self, number: str) -> dict[str, Any]:
        """The active patient with this number."""
        found = [
            res for res in self.all("Patient") if res.get("active") is not False and any(one["value"] == number for one in res.get("identifier", []))
        ]
        assert len(found) == 1, f"{len(found)} active patients have {number}"
        return found[0]

    def state(self) -> Any:
        """What is stored, without ids and versions, so that two exchanges can be compared."""
        return sorted(
            (bare(res) for res in (one.res for one in self.store.tables.of("res").values()) if res and res["resourceType"] != "Provenance"), key=repr
        )

    async def rewrite(self) -> None:
        for merge in list(self.store.tables.of("merges").values()):
            while await rewrite.continue_rewriting(self.means, self.store.transact, merge, 3):
                pass


def bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: "ref" if name == "reference" else bare(part) for name, part in value.items() if name not in ("id", "meta")}
    return [bare(part) for part in value] if isinstance(value, list) else value


@dataclass
class Clock:
    """Counts control ids and minutes, so that every message is later than the one before."""

    number: int = field(default=0)

    def next(self) -> tuple[str, str]:
        self.number += 1
        return f"M{self.number:05d}", f"2024010{1 + self.number // 1440}{self.number // 60 % 24:02d}{self.number % 60:02d}00"


CLOCK = Clock()


def msh(code: str, sender: str = "ADT|HOSP", at: str = "", control: str = "", rest: str = "") -> tuple[str, str]:
    number, now = CLOCK.next()
    at = at or now
    return f"MSH|^~\\&|{sender}|EXCHANGE|HERE|{at}||{code}|{control or number}|P|2.5.1{rest}", at


def pid(
    number: str = "100",
    name: str = "SMITH^JOHN",
    birth: str = "19700102",
    sex: str = "M",
    *,
    authority: str = "HOSP",
    kind: str = "MR",
    rest: str = "",
) -> str:
    return f"PID|1||{number}^^^{authority}^{kind}||{name}||{birth}|{sex}{rest}"


def adt(event: str, *segments: str, at: str = "", sender: str = "ADT|HOSP", control: str = "", evn: str = "", msh_rest: str = "") -> str:
    header, when = msh(f"ADT^{event}", sender, at, control, msh_rest)
    return "\r".join([header, f"EVN|{event}|{evn or when}", *segments]) + "\r"


def pv1(visit: str = "V1", klass: str = "I", place: str = "W^R1^B1", rest: str = "") -> str:
    return f"PV1|1|{klass}|{place}" + "|" * 16 + f"{visit}^^^HOSP^VN{rest}"


def oru(*segments: str, at: str = "", sender: str = "LAB|HOSP", control: str = "", patient: str = "", msh_rest: str = "") -> str:
    header, _ = msh("ORU^R01^ORU_R01", sender, at, control, msh_rest)
    return "\r".join([header, patient or pid(), *segments]) + "\r"


def obr(filler: str = "F1", code: str = "CBC", status: str = "F", reported: str = "", collected: str = "20240101080000", rest: str = "") -> str:
    return f"OBR|1||{filler}^LAB|{code}^{code}^L|||{collected}" + "|" * 15 + f"{reported}|||{status}{rest}"


def obx(code: str, value: str, status: str = "F", *, sub: str = "", uid: str = "", kind: str = "ST", unit: str = "") -> str:
    return f"OBX|1|{kind}|{code}^{code}^L|{sub}|{value}|{unit}|||||{status}" + ("|" * 10 + uid if uid else "")
