"""Which answers a sender asks for in MSH-15 (accept) and MSH-16 (application acknowledgment), table 0155. Pure.

| MSH-15 | MSH-16 | at once | later |
|---|---|---|---|
| empty | empty | AA, AE or AR (original mode) | |
| NE or empty | AL, SU, ER | AA, AE or AR as MSH-16 asks | |
| AL, SU, ER | NE or empty | CA, CE or CR as MSH-15 asks | |
| AL, SU, ER | AL, SU, ER | CA, CE or CR as MSH-15 asks | AA, AE or AR as MSH-16 asks |
| NE | NE or empty | nothing | |
| empty | NE | nothing | |

Enhanced mode holds as soon as one of the two is valued, and the other, left empty, asks for nothing. NE with AL is original mode said in full (the note of
2.9.3), so the application's answer is the immediate one. A code that table 0155 does not have is no value. HL7 v2.8 2.9.2, 2.9.3, 2.13.9.15, 2.13.9.16
"""

from dataclasses import dataclass

from mappers.v2.message import Message

CONDITIONS = frozenset({"AL", "NE", "ER", "SU"})
NEVER = "NE"


@dataclass(frozen=True, slots=True)
class Asked:
    """accept, application: conditions of table 0155; enhanced: the message is acknowledged when it is stored, not when it was processed."""

    accept: str
    application: str
    enhanced: bool


def asked(message: Message) -> Asked:
    """What a message asks for."""
    accept, application = (value if value in CONDITIONS else "" for value in (message.get("MSH-15").upper(), message.get("MSH-16").upper()))
    if not accept and not application:
        return Asked(NEVER, "AL", False)
    accept, application = accept or NEVER, application or NEVER
    return Asked(accept, application, accept != NEVER or application == NEVER)


def wanted(condition: str, *, accepted: bool) -> bool:
    """True if an answer that accepts (AA, CA), or does not, is to be sent under this condition."""
    return condition == "AL" or (condition == "SU" and accepted) or (condition == "ER" and not accepted)
