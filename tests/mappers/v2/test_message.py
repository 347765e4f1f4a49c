"""ER7 as senders really write it: delimiters, line ends, charsets, escapes. HL7 v2.8 chapter 2."""

import hl7
import pytest

from mappers.v2 import message

MSH = b"MSH|^~\\&|LAB|HOSP|EHR|CLINIC|20240102030405+0100||ORU^R01^ORU_R01|42|P|2.5.1"


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
def test_every_line_end_gives_the_same_segments(end: bytes) -> None:
    parsed = message.parse(MSH + end + b"PID|1||77^^^A~78^^^B" + end + b"OBX|1|ST|x" + end)
    assert [segment.name for segment in parsed.segments] == ["MSH", "PID", "OBX"]
    assert parsed.get("PID-3(2).4") == "B"
    assert (parsed.code, parsed.trigger, parsed.control_id, parsed.version) == ("ORU", "R01", "42", "2.5.1")
    assert parsed.problems == ()


def test_header_fields_count_the_separator_as_the_first() -> None:
    parsed = message.parse(MSH)
    assert (parsed.get("MSH-1"), parsed.get("MSH-2"), parsed.get("MSH-3"), parsed.get("MSH-7")) == ("|", "^~\\&", "LAB", "20240102030405+0100")


def test_any_delimiters() -> None:
    parsed = message.parse(b"MSH$%*!@$LAB$H$$$20240101$$ADT%A01$1$P$2.5\rPID$1$$7%%%A@1.2@ISO*8$$M!S!M%!T!")
    assert parsed.get("PID-3.4.2") == "1.2"
    assert parsed.get("PID-3(2)") == "8"
    assert parsed.get("PID-5.1") == "M%M"
    assert parsed.get("PID-5.2") == "@"


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("a\\F\\b\\S\\c\\T\\d\\R\\e\\E\\f", "a|b^c&d~e\\f"),
        ("line\\.br\\next\\.sp2\\x", "line\nnext\n\nx"),
        ("\\H\\bold\\N\\ \\X414243\\", "bold ABC"),
        ("C:\\temp", "C:\\temp"),
        ("\\Zlocal\\", "\\Zlocal\\"),
        ("\\E\\F\\E\\", "\\F\\"),
    ],
)
def test_escapes_are_decoded_once(sent: str, read: str) -> None:
    parsed = message.parse(MSH + b"\rNTE|1||" + sent.encode())
    assert parsed.get("NTE-3") == read


@pytest.mark.parametrize(
    ("code", "codec", "text"),
    [
        ("8859/1", "latin_1", "Müller"),
        ("8859/15", "iso8859_15", "Šk€"),
        ("UNICODE UTF-8", "utf-8", "日本語 Łódź"),
        ("GB 18030-2000", "gb18030", "张三"),
        ("~ISO IR87", "iso2022_jp", "山田太郎"),
        ("KS X 1001", "euc_kr", "홍길동"),
        ("BIG-5", "big5", "許功蓋"),
        ("ASCII~8859/5", "iso8859_5", "Иванов"),
        ("ISO IR6~8859/1", "latin_1", "Müller"),
        ("iso-8859-2", "iso8859_2", "Dvořák"),
        ("ISO_IR 144", "iso8859_5", "Иванов"),
        ("ISO IR 87", "iso2022_jp", "山田太郎"),
        ("GB18030", "gb18030", "张三"),
        ("windows-1250", "cp1250", "Dvořák"),
    ],
)
def test_charset_of_msh_18(code: str, codec: str, text: str) -> None:
    parsed = message.parse(MSH + b"||||||" + code.encode() + b"\rPID|1||7||" + text.encode(codec) + b"^X")
    assert parsed.get("PID-5.1") == text
    assert parsed.get("PID-5.2") == "X"
    assert parsed.problems == ()


def test_escape_sequences_switch_the_character_set_of_iso_2022() -> None:
    name = "山田".encode("iso2022_jp").removeprefix(b"\x1b$B").removesuffix(b"\x1b(B")
    parsed = message.parse(MSH + b"||||||~ISO IR87\rPID|1||7||\\M2442\\" + name + b"\\C2842\\^X")
    assert (parsed.get("PID-5.1"), parsed.get("PID-5.2")) == ("山田", "X")


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_wide_text_and_byte_order_marks(codec: str) -> None:
    parsed = message.parse((MSH.decode() + "\rPID|1||7||Łódź").encode(codec))
    assert parsed.get("PID-5") == "Łódź"


def test_undeclared_bytes_are_read_and_reported() -> None:
    parsed = message.parse(MSH + b"\rPID|1||7||M\xfcller")
    assert parsed.get("PID-5") == "Müller"
    assert [problem.code for problem in parsed.problems] == ["102"]


def test_a_line_end_inside_a_field_joins() -> None:
    parsed = message.parse(MSH + b"\rOBX|1|TX|a||first\nsecond line|u\rNTE|1")
    assert parsed.get("OBX-5") == "first\nsecond line"
    assert parsed.get("OBX-6") == "u"
    assert [segment.name for segment in parsed.segments] == ["MSH", "OBX", "NTE"]


@pytest.mark.parametrize("raw", [b"", b"\r\n", b"garbage", b"\x00\xff", b"MSH", b"MSH|", b"MSH|^", b"MSHA", b"PID|1", b"MSH|^~\\&|"])
def test_broken_bytes_are_reported_not_raised(raw: bytes) -> None:
    assert any(problem.severity == "E" for problem in message.parse(raw).problems)


def test_null_is_not_a_value() -> None:
    segment = message.parse(MSH + b'\rPID|1||7||""|^&~').segments[1]
    assert segment.text(5) == '""'
    assert not segment.valued(5)
    assert not segment.valued(6)
    assert segment.get("5") == ""


def test_the_hl7_package_reads_the_same() -> None:
    text = MSH.decode() + "\rPID|1||77^^^A&1.2&ISO~78^^^B||Doe^John^^^Dr.||19700101|M\rOBX|1|NM|718-7^Hb^LN||13.5|g/dL"
    ours, theirs = message.parse(text.encode()), hl7.parse(text)
    for path, place in (
        ("PID-3.4.2", "PID.F3.R1.C4.S2"),
        ("PID-5.5", "PID.F5.R1.C5"),
        ("OBX-5", "OBX.F5"),
        ("PID-3(2).1", "PID.F3.R2.C1"),
        ("MSH-9.2", "MSH.F9.R1.C2"),
    ):
        assert ours.get(path) == theirs[place]
