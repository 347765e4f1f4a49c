"""What senders get wrong and what attackers try, at the intake: every case is answered, kept, and costs little."""

import time

import pytest

from fhir_server.feed.answers import reject
from fhir_server.feed.intake import answer_code
from fhir_server.feed.receipt import digest
from fhir_server.sources import recognise, registry
from mappers.v2.message import Message, parse
from mappers.v2.problem import Problem
from tests.feed.exchange import Exchange, adt, msh, obr, oru, pid


def supports_adt_only(message: Message, source: object) -> Problem | None:
    return None if message.code == "ADT" else Problem("E", "MSH^1^9", "200", "the message type has no mapping")


async def test_enhanced_mode_rejects_an_unsupported_type_on_sight_and_takes_it_once_it_is_supported() -> None:
    exchange = Exchange()
    exchange.feed.unsupported = supports_adt_only
    raw = oru(obr(), msh_rest="|||AL|AL")
    answer = await exchange.answer(raw)
    assert answer_code(answer or b"") == "CR"
    assert b"ERR||MSH^1^9|200^" in (answer or b"")
    entry = exchange.inbox.entries()[0]
    assert (entry.status, entry.due, answer_code(entry.commit)) == ("mapping-error", False, "CR")
    exchange.feed.unsupported = lambda message, source: None
    assert await exchange.send(raw) == "CA"
    entry = exchange.inbox.entries()[0]
    assert (entry.status, entry.flags) == ("received", ("resent",))


@pytest.mark.parametrize(("condition", "said"), [("AL", "CR"), ("ER", "CR"), ("SU", ""), ("NE", "AR")])
async def test_a_rejection_on_sight_is_said_as_msh_15_asks(condition: str, said: str) -> None:
    exchange = Exchange()
    exchange.feed.unsupported = supports_adt_only
    assert await exchange.send(oru(obr(), msh_rest=f"|||{condition}|AL").replace("ORU^R01^ORU_R01", "QBP^Q22")) == said


async def test_what_was_not_accepted_is_flagged_when_it_comes_again() -> None:
    exchange = Exchange()
    assert await exchange.send(adt("A08", pid("1", "SMITH^JOHN", "19700101", "M"))) == "AA"
    other = adt("A08", pid("1", "OTHER^EVE", "19990909", "F"))
    assert await exchange.send(other) == "AE"
    assert exchange.inbox.entries()[1].flags == ()
    assert await exchange.send(other) == "AE"
    assert [entry.flags for entry in exchange.inbox.entries()] == [(), ("resent",)]


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-32-be"])
async def test_wide_characters_are_refused_over_mllp_in_plain_bytes_and_taken_over_http(codec: str) -> None:
    exchange = Exchange()
    raw = adt("A08", pid("1", "山田^太郎")).encode(codec)
    answer = await exchange.answer(raw, transport="mllp") or b""
    assert answer.isascii()
    assert b"MSA|AR|" in answer
    assert b"ERR||MSH^1^18|103^" in answer
    assert [entry.status for entry in exchange.inbox.entries()] == ["parse-error"]
    assert await exchange.send(adt("A08", pid("1", "山田^太郎")).encode(codec), transport="http") == "AA"
    assert exchange.one("Patient")["name"][0]["family"] == "山田"


async def test_a_declared_but_untrue_wide_charset_is_read_as_what_it_is() -> None:
    exchange = Exchange()
    answer = await exchange.answer(adt("A08", pid("1", "SMITH^JOHN"), msh_rest="||||||UNICODE UTF-16"), transport="mllp") or b""
    assert b"MSA|AA" in answer
    assert answer.count(b"ERR||MSH^1^18|103") == 1
    assert parse(answer).get("MSH-18") == "", "an answer of plain bytes does not say that it is UTF-16"
    assert exchange.one("Patient")["name"][0]["family"] == "SMITH"


@pytest.mark.parametrize("charset", ["punycode", "unicode_escape", "zlib", "utf-7", "idna"])
async def test_the_charset_of_a_transport_must_be_a_character_set(charset: str) -> None:
    message = parse(adt("A08", pid("1", "SMITH^JOHN")).encode(), charset)
    assert (message.charset, message.get("PID-5.1")) == ("utf-8", "SMITH")


@pytest.mark.parametrize(
    "patient",
    [
        "PID|1||" + "~".join("1" for _ in range(500_000)) + "||A^B",
        "PID|1||7^^^HOSP^MR||A" + "^" * 1_000_000 + "x",
        "PID|1||7^^^HOSP^MR||A" + "|" * 1_000_000 + "x",
        "PID|1||7^^^HOSP^MR||A^B\r" + "ZZZ|1\r" * 100_000,
    ],
    ids=["repetitions", "components", "fields", "segments"],
)
async def test_a_message_of_a_million_parts_is_refused_at_once(patient: str) -> None:
    exchange = Exchange()
    begun = time.perf_counter()
    answer = await exchange.answer(adt("A08", patient)) or b""
    assert time.perf_counter() - begun < 5
    assert b"MSA|AE" in answer
    assert b"198^" in answer


async def test_a_processing_id_that_is_none_is_rejected_and_those_of_table_0103_are_kept_out_of_production() -> None:
    exchange = Exchange()
    for sent, said, status in (
        ("X", b"MSA|AR", "parse-error"),
        ("T", b"MSA|AA", "excluded"),
        ("D^A", b"MSA|AA", "excluded"),
        ("N", b"MSA|AA", "excluded"),
    ):
        answer = await exchange.answer(adt("A08", pid("1")).replace("|P|2.5.1", f"|{sent}|2.5.1")) or b""
        assert said in answer
        assert b"ERR||MSH^1^11|202^" in answer
        assert exchange.inbox.entries()[-1].status == status
    assert exchange.all("Patient") == []


def test_a_digest_takes_linear_time_and_ignores_trailing_delimiters_and_times() -> None:
    header, _ = msh("ADT^A08", control="1", at="20240101")
    plain = parse(f"{header}\rPID|1||7^^^H||A^B\r".encode())
    again = parse((header.replace("|20240101|", "|20250101|") + "||\rPID|1||7^^^H&^~||A^B^^||\r").encode())
    assert digest(plain) == digest(again)
    several = [parse(f"{header}\rPID|1||7^^^H{end}~8^^^I&J{end}||A{end}\r".encode()) for end in ("", "&", "^", "^^&^", "&&")]
    assert len({digest(one) for one in several}) == 1, "delimiters at the end of a component or repetition say nothing either"
    assert len({digest(parse(f"{header}\rPID|1||{text}\r".encode())) for text in ("7~8", "7~~8", "~7~8", "7^8", "7&8", "7")}) == 6
    begun = time.perf_counter()
    digest(parse(f"{header}\rPID|1||7||A{'^ ' * 500_000}x\r".encode()))
    assert time.perf_counter() - begun < 2


async def test_lines_that_are_no_segments_are_joined_with_one_warning() -> None:
    exchange = Exchange()
    answer = await exchange.answer(adt("A08", pid("1")) + "x\r" * 50_000) or b""
    assert b"MSA|AA" in answer
    assert answer.count(b"ERR||PID^1|100^") == 1


@pytest.mark.parametrize("value", ["1e999999999", "9" * 100, "-1E-9999"])
async def test_a_number_beyond_decimal128_is_kept_as_text(value: str) -> None:
    exchange = Exchange()
    assert await exchange.send(oru(obr(), f"OBX|1|NM|GLU^Glucose^L||{value}||||||F")) == "AA"
    assert exchange.one("Observation")["valueString"] == value


async def test_control_characters_from_escapes_are_left_out() -> None:
    exchange = Exchange()
    assert await exchange.send(adt("A08", pid("1\\X00\\2", "SM\\X0041\\ITH^J"))) == "AA"
    patient = exchange.one("Patient")
    assert (patient["identifier"][0]["value"], patient["name"][0]["family"]) == ("12", "SMAITH")


@pytest.mark.parametrize(
    ("raw", "segment"),
    [
        (adt("A01", "ZZZ|1"), b"PID"),
        (adt("A08", pid("1")).replace("ADT^A08", "MDM^T02"), b"TXA"),
        (adt("A08", pid("1")).replace("ADT^A08", "SIU^S12"), b"SCH"),
    ],
)
async def test_a_message_without_the_segment_it_is_about_is_an_error(raw: str, segment: bytes) -> None:
    exchange = Exchange()
    answer = await exchange.answer(raw) or b""
    assert b"MSA|AE" in answer
    assert b"ERR||" + segment + b"^1|100^" in answer
    assert exchange.store.versions() == 0


async def test_an_unknown_version_is_read_with_a_warning() -> None:
    exchange = Exchange()
    answer = await exchange.answer(adt("A08", pid("1")).replace("|P|2.5.1", "|P|9.9")) or b""
    assert b"MSA|AA" in answer
    assert b"ERR||MSH^1^12|203^" in answer


def test_a_sender_cannot_take_the_name_of_a_configured_source() -> None:
    known = registry({"sources": [{"name": "LAB.HOSP", "certificates": ["lab"]}]})
    assert recognise(known, "LAB", "HOSP", certificate="lab").name == "LAB.HOSP"
    assert recognise(known, "LAB", "HOSP").name == "LAB.HOSP-unknown"
    assert recognise(registry({"unknown": "default", "sources": [{"name": "default", "certificates": ["x"]}]}), "A", "B").name == "default-unknown"


@pytest.mark.parametrize(("head", "named"), [("|P|2.5\r", "CONTROL-1"), ("|P", "CONTROL-1"), ("", ""), ("\nPID|1", "CONTROL-1")])
def test_a_message_that_was_cut_off_is_named_only_by_a_whole_control_id(head: str, named: str) -> None:
    answer = parse(reject(f"MSH|^~\\&|A|B|C|D|20240101||ADT^A08|CONTROL-1{head}".encode(), "cut-off") or b"")
    assert (answer.get("MSA-1"), answer.get("MSA-2"), answer.get("MSH-5")) == ("AR", named, "A")
    assert reject(b"MSH", "cut-off") is not None


async def test_a_batch_that_counts_wrong_is_told_so() -> None:
    exchange = Exchange()
    body = "BHS|^~\\&|LAB|HOSP|X|Y|20240101||||B7\r" + adt("A08", pid("1")) + "BTS|3\r"
    assert b"BTS|1|BTS-1 says 3 messages, 1 came\r" in (await exchange.answer(body) or b"")


async def test_an_empty_batch_is_answered_by_one_a_truncated_one_is_not() -> None:
    exchange = Exchange()
    answer = await exchange.answer("BHS|^~\\&|A|B|C|D|20240101||||B1\rBTS|0\r")
    assert answer is not None
    assert [line[:5] for line in answer.decode().split("\r")] == ["BHS|^", "BTS|0", ""]
    for cut_off in ("BHS|^~\\&|A|B|C|D|20240101||||B1\r", "BHS|^~\\&|A|B|C|D|20240101||||B1\rBTS|2\r"):
        assert await exchange.send(cut_off) == "AR"


async def test_every_batch_of_a_file_is_answered_by_one_of_its_own() -> None:
    exchange = Exchange()
    first, second = (f"BHS|^~\\&|LAB|HOSP|X|Y|20240101||||B{number}\r" for number in (1, 2))
    body = "FHS|^~\\&|LAB|HOSP|X|Y|20240101||||F1\r" + first + adt("A08", pid("1")) + "BTS|1\r"
    body += second + adt("A08", pid("2"), control="SECOND") + adt("A08", pid("3"), msh_rest="|||NE|NE") + "BTS|2\rFTS|3\r"
    lines = (await exchange.answer(body) or b"").decode().split("\r")
    assert [line[:3] for line in lines] == ["FHS", "BHS", "MSH", "MSA", "BTS", "BHS", "MSH", "MSA", "BTS", "FTS", ""]
    assert [line.split("|")[11] for line in lines if line[1:3] == "HS"] == ["F1", "B1", "B2"]
    assert len({line.split("|")[10] for line in lines if line[1:3] == "HS"}) == 3
    assert lines[7] == "MSA|AA|SECOND"
    assert lines[4:9:4] + lines[9:10] == ["BTS|1", "BTS|1", "FTS|2|FTS-1 says 3 batches, 2 came"]


async def test_a_file_in_utf_32_has_one_byte_order_mark() -> None:
    exchange = Exchange()
    body = "FHS|^~\\&|A\rBHS|^~\\&|A\r" + adt("A08", pid("1")) + "BTS|1\rFTS|1\r"
    answer = await exchange.answer(body.encode("utf-32"), transport="http") or b""
    assert answer.decode("utf-32").count("\ufeff") == 0
    assert [line[:3] for line in answer.decode("utf-32").split("\r")] == ["FHS", "BHS", "MSH", "MSA", "BTS", "FTS", ""]


async def test_a_wide_batch_is_answered_in_its_own_charset() -> None:
    exchange = Exchange()
    body = "BHS|^~\\&|LAB|HOSP|X|Y|20240101||||B7\r" + adt("A08", pid("1")) + adt("A08", pid("2")) + "BTS|2\r"
    answer = (await exchange.answer(body.encode("utf-16"), transport="http") or b"").decode("utf-16")
    assert [line[:3] for line in answer.split("\r")] == ["BHS", "MSH", "MSA", "MSH", "MSA", "BTS", ""]
