"""Delivering a message until its acknowledgement is here: the same bytes again where the other end asks for it or says nothing that can be understood.

HL7 v2.8 chapter 2, 2.9.2: AA and CA end it, AE and CE say that the message is wrong (sending it again would not help), AR and CR that it may be sent
again. An answer to another message, garbage, silence and a closed connection count as no answer.
"""

import asyncio
import ssl
from dataclasses import dataclass

from fhir_server.mllp.sender import connected
from mappers.v2.message import parse

ACCEPTED, WRONG, LATER = frozenset({"AA", "CA"}), frozenset({"AE", "CE"}), frozenset({"AR", "CR"})
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """How it ended. code: MSA-1, '' without an acknowledgement; text: what the other end said, or why there is none; attempts: how often it was sent."""

    code: str
    text: str
    attempts: int

    @property
    def accepted(self) -> bool:
        """True if the other end has taken the message."""
        return self.code in ACCEPTED


async def deliver(
    host: str,
    port: int,
    message: bytes,
    *,
    attempts: int = 3,
    seconds: float = 60.0,
    pause: float = FIRST_PAUSE,
    context: ssl.SSLContext | None = None,
) -> Delivery:
    """Send one message, up to `attempts` times, waiting `seconds` for each answer and `pause`, doubled each time, between; context: for TLS."""
    control = parse(message).control_id
    code, text, tried = "", "", 0
    while tried < attempts:
        if tried:
            await asyncio.sleep(min(pause * 2 ** (tried - 1), LONGEST_PAUSE))
        tried += 1
        code, text = await _once((host, port, context), message, control, seconds)
        if code in ACCEPTED | WRONG:
            break
    return Delivery(code, text, tried)


async def _once(to: tuple[str, int, ssl.SSLContext | None], message: bytes, control: str, seconds: float) -> tuple[str, str]:
    """(MSA-1, text); '' for anything that is no acknowledgement of this message."""
    try:
        async with connected(*to) as line:
            answer = parse(await line.ask(message, seconds))
    except TimeoutError:
        return "", "no answer in time"
    except OSError as error:
        return "", f"no connection: {error.strerror or error}"
    code = answer.get("MSA-1")
    if code not in ACCEPTED | WRONG | LATER:
        return "", "the answer is not an acknowledgement"
    if answer.get("MSA-2") != control:
        return "", "the answer is to another message"
    return code, answer.get("ERR-8") or answer.get("ERR-3.2") or answer.get("MSA-3")
