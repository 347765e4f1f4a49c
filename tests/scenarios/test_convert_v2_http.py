"""`POST $convert-v2` takes bytes however a client labels them."""

import pytest

from tests.feed.exchange import adt, pid
from tests.scenarios.running import Server


@pytest.mark.parametrize(
    "media",
    [
        "application/hl7-v2",
        "application/hl7-v2; charset=iso-8859-1",
        "text/plain;charset=ISO-8859-1",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
    ],
)
def test_a_message_is_bytes_whatever_media_type_it_is_sent_as(server: Server, media: str) -> None:
    body = adt("A08", pid("1", "MÜLLER^JÖRG"), msh_rest="||||||8859/1").encode("latin-1")
    with server.client() as http:
        answer = http.post("/$convert-v2", content=body, headers={"content-type": media})
    assert answer.status_code == 200, answer.text
    names = [entry["resource"]["name"][0]["family"] for entry in answer.json()["entry"] if entry["resource"]["resourceType"] == "Patient"]
    assert names == ["MÜLLER"]
