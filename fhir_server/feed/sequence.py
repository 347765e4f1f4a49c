"""The optional sequence number protocol of a source (MSH-13, MSA-4): every message carries the number after the last one.

0 asks where the receiver stands (nothing is checked), -1 starts anew; any other number that is not the expected one is refused with
the expected one in MSA-4. The last number is part of the message's transaction. HL7 v2.8 chapter 2, 2.10.1.
"""

from fhir_server.feed.answers import Failed
from fhir_server.feed.ledger import KIND
from fhir_server.sources import Source
from fhir_server.store import Tx
from fhir_server.store.inbox import Inbox
from mappers.v2.message import Message
from mappers.v2.problem import Problem


async def check(inbox: Inbox, tx: Tx, source: Source, message: Message) -> str:
    """MSA-4 of the answer ('' where the protocol is not used); notes the number. Raises Failed with the expected number."""
    text = message.get("MSH-13").strip()
    if not source.sequence or not text:
        return ""
    key = f"sequence|{source.name}"
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
