"""The optional sequence number protocol of a source (MSH-13, MSA-4): every message carries the number after the last one.

0 asks where the receiver stands (nothing is checked), -1 starts anew; any other number that is not the expected one is refused with
the expected one in MSA-4. The last number is part of the message's transaction, and the messages of the link are worked on in order of receipt. A message
of nothing but MSH with the number 0 or -1 opens the link: it has no content and needs no type. What an operator sends again, or replays, has had its
turn. HL7 v2.8 chapter 2, 2.10.1, 2.17.3.
"""

from fhir_server.feed.answers import Failed
from fhir_server.feed.ledger import KIND
from fhir_server.sources import Source
from fhir_server.store import Tx
from fhir_server.store.inbox import RESUBMITTED, Entry, Inbox
from mappers.v2.message import Message, parse
from mappers.v2.problem import Problem

OPENING = frozenset({"0", "-1"})


def link_key(source: Source, message: Message) -> str:
    """What all messages of a numbered link have in common; '' where the protocol is not used."""
    return f"sequence|{source.name}" if source.sequence and message.get("MSH-13").strip() else ""


def opens(source: Source, message: Message) -> bool:
    """True for a message that only opens the link."""
    return source.sequence and len(message.segments) == 1 and message.get("MSH-13").strip() in OPENING


async def check(inbox: Inbox, tx: Tx, source: Source, message: Message, entry: Entry) -> str:
    """MSA-4 of the answer ('' where the protocol is not used); notes the number. Raises Failed with the expected number."""
    key = link_key(source, message)
    if not key or entry.transport == RESUBMITTED or parse(entry.answer).get("MSA-1") == "AA":
        return ""
    text = message.get("MSH-13").strip()
    last: int = (await inbox.load(tx, KIND, [key])).get(key, {}).get("last", 0)
    try:
        number = int(text)
    except ValueError:
        raise Failed("sequence", [Problem("E", "MSH^1^13", "102", "MSH-13 is not a number")], str(last + 1)) from None
    if number == 0:
        return str(last + 1)
    if number > 0 and last and number != last + 1:
        raise Failed("sequence", [Problem("E", "MSH^1^13", "207", "the sequence number is not the expected one")], str(last + 1))
    last = max(number, 0)
    await inbox.save(tx, KIND, [{"_id": key, "last": last}])
    return str(last + 1)
