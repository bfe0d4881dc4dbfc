"""Acknowledgements: the right code, to the right party, in the sender's own dialect."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hl7apy.parser import parse_message
from hl7apy.validation import Validator
from hypothesis import given
from hypothesis import strategies as st

from mappings.hl7v2.ack import AckCode, AckError, acknowledge, find_answer_code, wants_application_ack
from mappings.hl7v2.er7 import UNREADABLE, Message, read_header
from mappings.hl7v2.errors import CONDITIONS, MessageError
from mappings.hl7v2.header import Header
from mappings.hl7v2.validate import KNOWN_VERSIONS
from tests.mappings.hl7v2.golden import DATA

AT = datetime(2026, 11, 2, 8, 30, 11, tzinfo=timezone(timedelta(hours=1)))
MISSING = AckError(101, "PID-3 is empty | fill it.", "PID^1^3")


def header(version: str = "2.5.1", accept: str = "", application: str = "", **replaced: str) -> Header:
    raw = rf"MSH|^~\&|EPIC^1.2^ISO|HOSP|DB|PHOTO|20261102||ADT^A40^ADT_A39|id-1|T|{version}|||{accept}|{application}"
    return read_header(raw.encode())._replace(**replaced)


def test_an_acknowledgement_turns_the_header_round() -> None:
    answer = acknowledge(header(), AckCode.AA, control_id="our-1", at=AT)
    assert answer == (
        rb"MSH|^~\&|DB|PHOTO|EPIC^1.2^ISO|HOSP|20261102083011+0100||ACK^A40^ACK|our-1|T|2.5.1" + b"\rMSA|AA|id-1\r"
    )


def test_an_error_stands_in_err_segments_from_2_5_on() -> None:
    answer = acknowledge(header("2.5"), AckCode.AE, control_id="1", at=AT, errors=[MISSING, AckError(207, "Later.")])
    assert answer.decode().split("\r")[1:-1] == [
        "MSA|AE|id-1",
        r"ERR||PID^1^3|101^Required field missing^HL70357|E||||PID-3 is empty \F\ fill it.",
        "ERR|||207^Application error^HL70357|E||||Later.",
    ]


def test_an_error_stands_in_err_1_up_to_2_4() -> None:
    answer = acknowledge(header("2.4"), AckCode.AE, control_id="1", at=AT, errors=[MISSING, AckError(207, "Later.")])
    assert answer.decode().split("\r")[1:-1] == [
        r"MSA|AE|id-1|PID-3 is empty \F\ fill it.",
        "ERR|PID^1^3^101&Required field missing&HL70357~^^^207&Application error&HL70357",
    ]


@pytest.mark.parametrize("errors", [(), (MISSING,)], ids=["accepted", "refused"])
@pytest.mark.parametrize("version", KNOWN_VERSIONS)
def test_hl7apy_finds_every_acknowledgement_valid(version: str, errors: tuple[AckError, ...]) -> None:
    code = AckCode.AE if errors else AckCode.AA
    sender = header(version, msh_3="EPIC")
    text = acknowledge(sender, code, control_id="our-1", at=AT, errors=errors).decode()
    answer = parse_message(text, find_groups=False)
    if version in ("2.2", "2.3"):  # there HL7apy looks for a structure ACK_A40, so it judges the segments
        assert all(Validator.validate(segment) for segment in answer.children)
    elif version != "2.1":  # its 2.1 tables want components that 2.1 had not
        assert answer.validate()
    assert (answer.msa.msa_1.value, answer.msa.msa_2.value) == (code.value, "id-1")
    assert answer.msh.msh_5.to_er7() == "EPIC"


@pytest.mark.parametrize(
    ("accept", "application", "answers"),
    [
        ("", "", ("AA", "AE", "AR")),
        ("AL", "NE", ("CA", "CE", "CR")),
        ("AL", "AL", ("CA", "CE", "CR")),
        ("", "AL", ("CA", "CE", "CR")),
        ("NE", "NE", (None, None, None)),
        ("ER", "NE", (None, "CE", "CR")),
        ("SU", "NE", ("CA", None, None)),
    ],
)
def test_the_mode_of_the_sender_decides_the_code(
    accept: str, application: str, answers: tuple[str | None, ...]
) -> None:
    sender = header(accept=accept, application=application)
    assert tuple(find_answer_code(sender, code) for code in (AckCode.AA, AckCode.AE, AckCode.AR)) == answers


@pytest.mark.parametrize(
    ("application", "wanted"),
    [("", []), ("NE", []), ("AL", ["AA", "AE", "AR"]), ("ER", ["AE", "AR"]), ("SU", ["AA"]), ("Y", [])],
)
def test_an_application_acknowledgement_is_sent_when_msh_16_asks_for_it(application: str, wanted: list[str]) -> None:
    sender = header(accept="AL", application=application)
    assert [c for c in (AckCode.AA, AckCode.AE, AckCode.AR) if wants_application_ack(sender, c)] == wanted


def test_what_we_ask_for_stands_in_msh_15_and_msh_16_and_where_to_look_in_err_7() -> None:
    errors = [AckError(207, "Later.", diagnostic="message 7")]
    answer = acknowledge(header(), AckCode.AE, control_id="1", at=AT, errors=errors, conditions=("AL", "NE"))
    msh, _, err, _ = answer.decode().split("\r")
    assert msh.split("|")[11:] == ["2.5.1", "", "", "AL", "NE"]
    assert err.split("|")[7:] == ["message 7", "Later."]


def test_the_delimiters_and_the_charset_of_the_sender_are_kept() -> None:
    raw = "MSH$%*!?$Spital Zürich$B%1$$$2026$$ADT%A08$7$P$2.5$$$$$$8859/1".encode("iso8859-1")
    answer = acknowledge(read_header(raw), AckCode.AE, control_id="1", at=AT, errors=[MISSING])
    assert answer.startswith("MSH$%*!?$$$Spital Zürich$B%1$".encode("iso8859-1"))
    read = Message.parse(answer)
    assert read.header.msh_18 == "8859/1"
    assert (read.segments[2].text(2), read.segments[2].text(2, 3), read.segments[2].text(3)) == ("PID", "3", "101")


def test_a_wide_message_is_answered_in_its_own_encoding() -> None:
    raw = r"MSH|^~\&|A|B|C|D|2026||ADT^A08|7|P|2.5".encode("utf-16-le")
    assert (
        acknowledge(read_header(raw), AckCode.AA, control_id="1", at=AT).decode("utf-16-le").startswith("MSH|^~\\&|C|D")
    )


def test_even_an_unreadable_message_is_refused_to_the_sender() -> None:
    with pytest.raises(MessageError) as caught:
        read_header(b"what is this")
    answer = acknowledge(UNREADABLE, AckCode.AR, control_id="1", at=AT, errors=[AckError.of(caught.value)])
    assert parse_message(answer.decode()).msa.msa_1.value == "AR"
    assert b"200^Unsupported message type" in answer


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        acknowledge(header(), AckCode.AA, control_id="1", at=AT.replace(tzinfo=None))


@pytest.mark.parametrize("path", sorted((DATA / "fhir-converter").iterdir()), ids=lambda path: path.name)
def test_the_answer_to_every_real_message_can_be_read_back(path) -> None:
    sender = read_header(path.read_bytes())
    answer = Message.parse(acknowledge(sender, AckCode.AA, control_id="our-1", at=AT))
    assert answer.header.msh_5 == sender.msh_3
    assert answer.header.trigger_event == sender.trigger_event
    assert answer.segments[1].raw(2) == sender.msh_10


@given(st.text(max_size=300), st.sampled_from(sorted(CONDITIONS)), st.sampled_from(["2.3", "2.8"]))
def test_no_error_text_can_break_the_answer(text: str, condition: int, version: str) -> None:
    answer = acknowledge(
        header(version), AckCode.AE, control_id="1", at=AT.astimezone(UTC), errors=[AckError(condition, text)]
    )
    assert [s.name for s in Message.parse(answer).segments] == ["MSH", "MSA", "ERR"]
    answer.decode("ascii")
