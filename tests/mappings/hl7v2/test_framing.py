"""MLLP framing: whatever the chunking and the sender's habits, the same messages, or a refusal that loses nothing."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappings.hl7v2.framing import ACKNOWLEDGED, Deframer, FramingError, frame

MESSAGE = b"MSH|^~\\&|A\rPID|1||5\r"
BOM = b"\xef\xbb\xbf"
bodies = st.binary(max_size=60).map(lambda b: b"MSH|" + b.replace(b"\x0b", b"").replace(b"\x1c", b""))


def deframed(*chunks: bytes, limit: int = 1000) -> list[bytes]:
    deframer = Deframer(limit)
    found = []
    for chunk in chunks:
        deframer.feed(chunk)
        found += deframer.messages()
    return found


@given(st.lists(bodies, max_size=6), st.lists(st.integers(0, 500), max_size=12))
def test_any_chunking_of_any_messages_gives_the_same_messages(messages: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(frame, messages))
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    chunks = [stream[a:b] for a, b in pairwise(edges)]
    assert deframed(*chunks) == messages


TOKENS = [b"\x0b", b"\x1c", b"\x1c\r", b"\r", b"\n", b"MSH|", BOM, b"x" * 20, b"\x00"]


@given(st.lists(st.sampled_from(TOKENS), max_size=30).map(b"".join), st.integers(1, 50))
def test_arbitrary_bytes_give_the_same_outcome_in_any_chunking(stream: bytes, size: int) -> None:
    def outcome(chunks: list[bytes]) -> tuple[list[bytes], bool]:
        deframer, found = Deframer(100), []
        try:
            for chunk in chunks:
                deframer.feed(chunk)
                for message in deframer.messages():
                    found.append(message)
        except FramingError:
            return found, True
        return found, False

    assert outcome([stream]) == outcome([stream[i : i + size] for i in range(0, len(stream), size)])


@pytest.mark.parametrize(
    "stream",
    [
        b"\x0b" + MESSAGE + b"\x1c\n",
        b"\x0b" + MESSAGE + b"\x1c\r\n",
        b"\n\r\x0b" + MESSAGE + b"\x1c\r",
        b"keep alive\x0b" + MESSAGE + b"\x1c\r",
        BOM + b"\x0b" + MESSAGE + b"\x1c\r",
        b"\x0b" + BOM + MESSAGE + b"\x1c\r",
        MESSAGE + b"\x1c\r",
        BOM + MESSAGE + b"\x1c\r",
        b"\x0b\x1c\r\x0b" + MESSAGE + b"\x1c\r",
    ],
)
def test_the_habits_of_real_senders_are_tolerated(stream: bytes) -> None:
    assert deframed(stream, stream) == [MESSAGE, MESSAGE]


def test_a_message_whose_fs_is_followed_by_the_next_vt_is_complete() -> None:
    assert deframed(b"\x0b" + MESSAGE + b"\x1c\x0b" + MESSAGE + b"\x1c\r") == [MESSAGE, MESSAGE]


def test_an_fs_within_the_text_is_content() -> None:
    text = b"MSH|^~\\&|A\x1cB\r"
    assert deframed(b"\x0b" + text + b"\x1c\r") == [text]


def test_a_commit_block_of_release_2_is_a_message_of_one_byte() -> None:
    assert deframed(b"\x0b" + ACKNOWLEDGED + b"\x1c\r") == [ACKNOWLEDGED]


def test_a_missing_cr_is_seen_so_that_the_caller_can_supply_it() -> None:
    deframer = Deframer()
    deframer.feed(b"\x0b" + MESSAGE + b"\x1c")
    assert list(deframer.messages()) == []
    assert deframer.awaits_cr
    deframer.feed(b"\r")
    assert list(deframer.messages()) == [MESSAGE]
    assert not deframer.is_mid_message


def test_a_message_above_the_limit_is_refused_and_the_limit_named() -> None:
    with pytest.raises(FramingError, match="100 bytes"):
        deframed(frame(b"MSH|" + b"x" * 97), limit=100)
    assert len(deframed(frame(b"MSH|" + b"x" * 96), limit=100)[0]) == 100


def test_an_endless_message_is_refused_before_its_end_comes() -> None:
    with pytest.raises(FramingError, match="1000 bytes"):
        deframed(b"\x0bMSH|", *[b"x" * 1000] * 6)


def test_an_endless_stream_of_noise_is_refused() -> None:
    with pytest.raises(FramingError, match="outside"):
        deframed(*[b"GET / HTTP/1.1\n" * 100] * 6, limit=10**6)


def test_a_message_that_begins_before_the_last_one_ended_is_refused() -> None:
    with pytest.raises(FramingError, match="before FS CR"):
        deframed(b"\x0bMSH|first\r\x0bMSH|second\r\x1c\r")


def test_a_block_that_is_no_message_and_has_no_vt_is_refused() -> None:
    with pytest.raises(FramingError, match="no VT"):
        deframed(frame(MESSAGE) + b"PID|the tail of a message cut in two\x1c\r")


def test_messages_before_a_fault_are_still_given_and_the_fault_stays() -> None:
    deframer = Deframer(100)
    deframer.feed(frame(MESSAGE) + frame(b"MSH|" + b"x" * 200) + frame(MESSAGE))
    messages = deframer.messages()
    assert next(messages) == MESSAGE
    with pytest.raises(FramingError):
        next(messages)
    with pytest.raises(FramingError):
        list(deframer.messages())


def test_stopping_early_loses_nothing() -> None:
    deframer = Deframer()
    deframer.feed(frame(b"MSH|1") + frame(b"MSH|2"))
    assert next(deframer.messages()) == b"MSH|1"
    deframer.feed(frame(b"MSH|3"))
    assert list(deframer.messages()) == [b"MSH|2", b"MSH|3"]


@pytest.mark.parametrize("byte", [b"\x0b", b"\x1c"])
def test_a_message_that_mllp_cannot_carry_is_not_framed(byte: bytes) -> None:
    with pytest.raises(FramingError):
        frame(b"MSH|" + byte)
