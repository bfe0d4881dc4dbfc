"""ER7 reading: header, segments, nulls, escapes, character sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappings.hl7v2.er7 import NULL, Message, Segment, patient_keys, read_header
from mappings.hl7v2.errors import MessageError
from mappings.hl7v2.escapes import Escapes
from mappings.hl7v2.header import Separators

MSH = r"MSH|^~\&|EPIC|HOSP^1.2.3^ISO|DB|PHOTO|20261102083011+0100||ADT^A40^ADT_A39|id 1|P|2.5.1|||AL|NE||8859/1"
STANDARD = Separators()
escapes = Escapes(STANDARD.letters, bytes.decode)


def parsed(*segments: str, msh: str = MSH, end: str = "\r") -> Message:
    return Message.parse(end.join((msh, *segments)).encode("iso8859-1"))


def pid(text: str) -> Segment:
    found = parsed(text).find("PID")
    assert found is not None
    return found


# -- header ------------------------------------------------------------------------------------------------


def test_the_header_holds_every_field_an_answer_needs() -> None:
    header = read_header(MSH.encode() + b"\rPID|1")
    assert header == (
        *(STANDARD, "utf-8", "EPIC", "HOSP^1.2.3^ISO", "DB", "PHOTO", "20261102083011+0100"),
        *("ADT", "A40", "ADT_A39", "id 1", "P", "2.5.1", "AL", "NE", "8859/1"),
    )
    assert (header.version, header.charset) == ("2.5.1", "8859/1")


@pytest.mark.parametrize(
    ("msh_9", "expected"),
    [
        ("ADT^A40^ADT_A40", ("ADT", "A40", "ADT_A39")),
        ("ADT^A40", ("ADT", "A40", "ADT_A39")),
        ("ADT_A04", ("ADT", "A04", "ADT_A01")),
        ("ADT^A99^ADT_A99", ("ADT", "A99", "ADT_A99")),
        ("ORU^R01", ("ORU", "R01", "")),
        ("ACK", ("ACK", "", "")),
        ("", ("", "", "")),
    ],
)
def test_the_structure_follows_from_the_trigger_event(msh_9: str, expected: tuple[str, str, str]) -> None:
    header = read_header(f"MSH|^~\\&|A|B|C|D|2026||{msh_9}|1|P|2.3".encode())
    assert (header.code, header.trigger_event, header.structure) == expected


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf", b"\r\n", b"\n\xef\xbb\xbf"])
def test_what_stands_before_msh_does_not_matter(prefix: bytes) -> None:
    assert read_header(prefix + MSH.encode()).msh_10 == "id 1"


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_wide_encodings_are_read(codec: str) -> None:
    raw = (MSH.replace("8859/1", "UNICODE UTF-16") + "\rPID|||5^^^HOSP||Ďábel").encode(codec)
    assert read_header(raw).msh_4 == "HOSP^1.2.3^ISO"
    assert patient_keys(raw) == ("HOSP|5",)
    assert Message.parse(raw).segments[1].text(5) == "Ďábel"


def test_a_header_in_latin_1_is_read_and_says_so() -> None:
    header = read_header("MSH|^~\\&|Spital Zürich|".encode("iso8859-1"))
    assert (header.msh_3, header.encoding) == ("Spital Zürich", "iso8859-1")


def test_other_delimiters_are_taken_from_the_message() -> None:
    message = Message.parse(b"MSH$%*!?$A$B\rPID$$$1%%%HOSP?1.2?ISO*2\r")
    assert [r.text(4, 2) for r in message.segments[1].field(3)] == ["1.2", ""]
    assert [r.text() for r in message.segments[1].field(3)] == ["1", "2"]


def test_an_msh_2_that_lost_its_backslash_is_completed() -> None:
    assert read_header(b"MSH|^~&|A").separators == STANDARD
    assert read_header(b"MSH|^|A").separators == STANDARD
    assert read_header(b"MSH|^~\\&#|A").separators.truncation == "#"


@pytest.mark.parametrize("raw", [b"", b"MSH", b"PID|1", b"MSH||||", b"MSH|||A|", b"MSH|^^^^|A", b"MSHABCDEFG", b"\x00"])
def test_what_has_no_usable_msh_is_refused(raw: bytes) -> None:
    with pytest.raises(MessageError) as caught:
        read_header(raw)
    assert caught.value.condition == 200


@given(st.binary(max_size=80))
def test_the_readers_refuse_any_bytes_with_one_kind_of_error(tail: bytes) -> None:
    for raw in (tail, b"MSH" + tail, b"MSH|^~\\&|" + tail):
        for reader in (read_header, patient_keys, Message.parse):
            try:
                reader(raw)
            except MessageError as error:
                assert error.condition in (102, 200)


# -- segments and values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\r\r", "\n\r\n"])
def test_every_line_end_gives_the_same_segments(end: str) -> None:
    message = parsed("EVN|A40", "PID|1", "ZX1|own", end=end)
    assert [s.name for s in message.segments] == ["MSH", "EVN", "PID", "ZX1"]


def test_a_raw_line_end_within_a_field_belongs_to_the_field() -> None:
    message = parsed("PID|1||5", "NTE|1||first line", "second line", "", "PV1|1|O")
    assert [s.name for s in message.segments] == ["MSH", "PID", "NTE", "PV1"]
    assert message.segments[2].text(3) == "first line\nsecond line"


def test_msh_fields_count_as_in_the_standard() -> None:
    msh = parsed().segments[0]
    assert (msh.text(1), msh.text(2), msh.text(3), msh.text(9, 2)) == ("|", "^~\\&", "EPIC", "A40")


def test_null_is_neither_absent_nor_a_text() -> None:
    segment = pid('PID|1||5|""||""^""|A^""~""|B~""')
    assert segment.first(4).value() is NULL
    assert [segment.is_null(n) for n in (3, 4, 5, 6, 7, 8, 99)] == [False, True, False, True, False, False, False]
    assert segment.first(7).value(2) is NULL
    assert [segment.first(n).is_null for n in (3, 4, 6, 7)] == [False, True, True, False]
    assert (segment.text(4), segment.first(5).value(), segment.text(7, 2)) == ("", "", "")
    assert [r.text() for r in segment.valued(8)] == ["B"]
    assert not NULL


def test_escapes_are_decoded_once_and_after_splitting() -> None:
    segment = pid(r"PID|1||A\F\B\S\C\T\D\R\E\E\F^x\.br\y\X0D0A\z^\E\T\E\^a\H\b\N\c")
    assert segment.text(3) == "A|B^C&D~E\\F"
    assert segment.text(3, 2) == "x\ny\r\nz"
    assert segment.text(3, 3) == "\\T\\"
    assert segment.text(3, 4) == "abc"


@pytest.mark.parametrize("text", [r"C:\temp\photo", r"\Zxx\ ", r"a\b", r"\X0\ ", r"\.in+4\ ", "\\"])
def test_an_unknown_escape_stays_as_it_was_sent(text: str) -> None:
    assert escapes.decode(text) == text


def test_hexadecimal_escapes_are_bytes_of_the_character_set() -> None:
    assert pid(r"PID|\XE9\ \X00E0\ ").text(1) == "é à"
    utf8 = MSH.replace("8859/1", "UNICODE UTF-8")
    assert parsed(r"PID|\XC3A9\ ", msh=utf8).segments[1].text(1) == "é"
    with pytest.raises(MessageError):
        parsed(r"PID|\XE9\ ", msh=utf8).segments[1].text(1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\\M2442\\;3ED\\C2842\\ Taro", "山田 Taro"),  # JIS X 0208 and back to ASCII
        ("\\C2849\\\x7f", "\\C2849\\\x7f"),  # no character of that set: as it was sent
    ],
)
def test_character_sets_are_switched_within_a_field(text: str, expected: str) -> None:
    assert escapes.decode(text) == expected


@pytest.mark.parametrize("msh_18", ["~ISO IR87", "ASCII~ISO IR87", "ISO IR87", "ISO IR14~ISO IR87"])
def test_japanese_names_are_read_by_the_switches_in_the_bytes(msh_18: str) -> None:
    raw = MSH.replace("8859/1", msh_18).encode() + b"\rPID|||1||" + "山田^太郎".encode("iso2022_jp")
    assert Message.parse(raw).segments[1].text(5) == "山田"
    assert Message.parse(raw).segments[1].text(5, 2) == "太郎"


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_escaping_round_trips_any_text(text: str) -> None:
    sent = escapes.encode(text)
    assert not set("|^~&\r\n") & set(sent)
    assert escapes.decode(sent) == text


@given(st.lists(st.lists(st.text("aé|^~&\\\r\n.X0", max_size=6), min_size=1, max_size=4), min_size=1, max_size=3))
def test_a_field_written_with_escapes_is_read_back(repetitions: list[list[str]]) -> None:
    field = "~".join("^".join(map(escapes.encode, components)) for components in repetitions)
    read = Message.parse((MSH.replace("8859/1", "UNICODE UTF-8") + f"\rPID|{field}|end").encode())
    found = read.segments[1].field(1)
    assert [[r.value(i + 1) for i in range(len(r))] for r in found] == (repetitions if field else [])


# -- character sets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("msh_18", "codec"),
    [
        ("", "utf-8"),
        ("ASCII", "utf-8"),
        ("UNICODE UTF-8", "utf-8"),
        ("8859/1", "iso8859-1"),
        ("8859/2", "iso8859-2"),
        ("8859/15", "iso8859-15"),
        ("8859/2~UNICODE", "iso8859-2"),
        ("UTF-8", "utf-8"),
        ("GB 18030-2000", "gb18030"),
        ("8859/9", "iso8859-9"),
        ("UNICODE", "utf-8"),
        ("ISO IR6", "utf-8"),
    ],
)
def test_names_are_read_in_the_declared_character_set(msh_18: str, codec: str) -> None:
    raw = MSH.replace("8859/1", msh_18).encode() + b"\rPID|||1||" + "Müller".encode(codec)
    assert Message.parse(raw).segments[1].text(5) == "Müller"


def test_without_msh_18_the_site_default_is_used_when_it_is_not_utf_8() -> None:
    raw = MSH.removesuffix("8859/1").encode() + b"\rPID|||1||M\xfcller"
    assert Message.parse(raw, "iso8859-1").segments[1].text(5) == "Müller"
    with pytest.raises(MessageError) as caught:
        Message.parse(raw)
    assert (caught.value.condition, caught.value.location) == (102, "MSH^1^18")


@pytest.mark.parametrize("msh_18", ["UNICODE UTF-8", "8859/99", "KLINGON"])
def test_undecodable_bytes_and_unknown_charsets_raise_and_replace_nothing(msh_18: str) -> None:
    with pytest.raises(MessageError) as caught:
        Message.parse(MSH.replace("8859/1", msh_18).encode() + b"\rPID|||1||M\xfcller")
    assert caught.value.condition == 102


# -- ordering keys -----------------------------------------------------------------------------------------


def test_the_keys_of_a_merge_name_both_patients_once() -> None:
    raw = (MSH + "\nPID|1||5^^^HOSP&1.2&ISO~6^^^&1.3&ISO~5^^^HOSP\nMRG|7^^^HOSP~8\n").encode()
    assert patient_keys(raw) == ("HOSP|5", "1.3|6", "HOSP|7", "|8")
    assert patient_keys(raw, "LOCAL")[-1] == "LOCAL|8"


def test_every_patient_of_a_message_with_several_groups_has_its_key() -> None:
    assert patient_keys((MSH + "\rPID|||1^^^H\rMRG|2^^^H\rPID|||3^^^H\rMRG|4^^^H").encode()) == (
        "H|1",
        "H|2",
        "H|3",
        "H|4",
    )


def test_nulls_and_absent_identifiers_give_no_key() -> None:
    assert patient_keys((MSH + '\rPID|1||""~""^^^HOSP|\rMRG\rPIDX|||9').encode()) == ()
