"""`POST /hl7v2`: the same intake as MLLP, over HTTP. The body is ER7 (a message, several, or a batch); the answer is the ACK (or a batch of them).

Content types: `application/hl7-v2`, `x-application/hl7-v2+er7`, `text/plain`; a `charset` parameter is used where MSH-18 is empty.
"""

from collections.abc import Mapping

from conformance.outcome import bad_request, unsupported_media
from fhir_server.feed.intake import Feed, receive
from fhir_server.feed.receipt import Sender
from mappers.v2.charset import of_media

MEDIA = "application/hl7-v2"
CURL_DEFAULT = "application/x-www-form-urlencoded"  # what `curl --data-binary` says of any bytes; a message is never a form
ACCEPTED_MEDIA = frozenset(
    {
        "",
        MEDIA,
        "application/hl7-v2+er7",
        "x-application/hl7-v2+er7",
        "x-application/hl7-v2",
        "application/edi-hl7v2",
        "text/hl7v2",
        "text/plain",
        "application/octet-stream",
    }
)


async def hl7v2(feed: Feed, body: bytes, headers: Mapping[str, str], *, client: str = "", address: str = "") -> tuple[bytes, str]:
    """(answer, media type); the answer is empty where the sender wants none (MSH-15/16 NE).

    headers: lower-case names; client: the OAuth client of the request; address: where it came from. Raises Refusal 400, 415.
    """
    told = headers.get("content-type", "")
    media = told.split(";")[0].strip().lower()
    if media not in ACCEPTED_MEDIA and media != CURL_DEFAULT:
        raise unsupported_media(f"HL7 v2 messages are sent as {MEDIA}")
    if not body.strip():
        raise bad_request("the body holds no message")
    answer = await receive(feed, body, Sender("http", address, client=client), charset=of_media(told))
    return answer or b"", MEDIA
