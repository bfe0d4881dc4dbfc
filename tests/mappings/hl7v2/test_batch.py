"""Batches: every message within is found whole, and the answers come back in a batch of the same shape."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappings.hl7v2.batch import find_batch

FIRST = b"MSH|^~\\&|A|B|C|D|||ADT^A01|1|P|2.5\rPID|1||5\r"
SECOND = b"MSH|^~\\&|A|B|C|D|||ADT^A08|2|P|2.5\rPID|1||5\r"
FHS = b"FHS|^~\\&|A|B|C|D|20261123||file||F1\r"
BHS = b"BHS|^~\\&|A|B|C|D|20261123||batch||B1\r"


@pytest.mark.parametrize("block", [b"", b"MSH", FIRST, b"\r\n" + FIRST, b"PID|1\r" + FIRST, b"what is this", b"FHS"])
def test_a_single_message_or_none_is_no_batch(block: bytes) -> None:
    assert find_batch(block) is None


def test_a_batch_file_is_answered_in_its_own_shape() -> None:
    batch = find_batch(FHS + BHS + FIRST + SECOND + b"BTS|2\r" + b"FTS|1\r")
    assert batch is not None and batch.is_framed
    assert batch.messages == [FIRST, SECOND]
    fhs, bhs, *rest = batch.answer([b"MSH|ack 1\r", b"MSH|ack 2\r"]).split(b"\r")
    assert fhs.split(b"|")[:7] == [b"FHS", b"^~\\&", b"C", b"D", b"A", b"B", b""]
    assert (fhs.split(b"|")[11], bhs.split(b"|")[11]) == (b"F1", b"B1")
    assert fhs.split(b"|")[10] != bhs.split(b"|")[10] != b""
    assert rest == [b"MSH|ack 1", b"MSH|ack 2", b"BTS|2", b"FTS|1", b""]


def test_the_same_batch_is_answered_with_the_same_bytes() -> None:
    first, again = find_batch(BHS + FIRST + b"BTS|1\r"), find_batch(BHS + FIRST + b"BTS|1\r")
    assert first is not None and again is not None
    assert first.answer([b"MSH|ack\r"]) == again.answer([b"MSH|ack\r"])


def test_a_message_that_wants_no_answer_is_not_counted() -> None:
    batch = find_batch(BHS + FIRST + SECOND + b"BTS|2")
    assert batch is not None
    assert batch.answer([b"", b"MSH|ack 2\r"]).split(b"\r")[1:] == [b"MSH|ack 2", b"BTS|1", b""]


def test_a_count_that_is_wrong_is_told() -> None:
    batch = find_batch(BHS + FIRST + b"BTS|2\r")
    assert batch is not None
    assert b"BTS|1|BTS-1 announced 2 messages but 1 were found\r" in batch.answer([b"MSH|ack\r"])


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
def test_line_ends_of_any_kind_part_the_messages(end: bytes) -> None:
    block = (FHS + BHS + FIRST + SECOND + b"BTS|2\rFTS|1\r").replace(b"\r", end)
    batch = find_batch(block)
    assert batch is not None
    assert batch.messages == [FIRST.replace(b"\r", end), SECOND.replace(b"\r", end)]


def test_messages_one_after_the_other_without_batch_segments_are_messages_of_their_own() -> None:
    batch = find_batch(FIRST + SECOND)
    assert batch is not None and not batch.is_framed
    assert batch.messages == [FIRST, SECOND]


def test_what_stands_between_batch_segments_is_not_dropped() -> None:
    batch = find_batch(BHS + b"PID|1||7\r" + FIRST + b"BTS|1\rNTE|1\r")
    assert batch is not None
    assert batch.messages == [b"PID|1||7\r", FIRST, b"NTE|1\r"]


def test_a_text_that_speaks_of_msh_is_no_second_message() -> None:
    assert find_batch(FIRST + b"NTE|1||see MSH|for more\rNTE|2||MSH\r") is None


@given(st.lists(st.sampled_from([FHS, BHS, FIRST, SECOND, b"BTS|1\r", b"FTS|1\r", b"x\r", b"\n"]), max_size=12))
def test_whatever_the_order_nothing_is_lost_and_everything_is_answered(parts: list[bytes]) -> None:
    block = b"".join(parts)
    batch = find_batch(block)
    if batch is None:
        return
    assert b"".join(batch.parts).replace(b"\n", b"") == block.replace(b"\n", b"")
    answer = batch.answer([b"MSH|ack\r"] * len(batch.messages))
    assert answer.count(b"MSH|ack\r") == len(batch.messages) >= block.count(b"MSH")
