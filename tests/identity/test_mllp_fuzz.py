"""Bytes nobody meant for us: no crash, no unanswered message, no second effect, and nothing of it kept in memory.

`make fuzz` runs the same with a coverage-guided fuzzer, for as long as one likes (tests/fuzz.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from adapter.bridge import Bridge
from adapter.identity import receive_messages
from adapter.identity.mllp import MllpServer
from adapter.identity.mllp_connection import Limits
from adapter.identity.mllp_intake import Answer, Inbound
from mappings.hl7v2.batch import find_batch
from mappings.hl7v2.er7 import UNREADABLE, patient_keys, read_header
from mappings.hl7v2.errors import MessageError
from mappings.hl7v2.framing import REFUSED, Deframer, FramingError, frame

TOKENS = [
    *(
        b"\x0b",
        b"\x1c",
        b"\x1c\r",
        b"\x1c\n",
        b"\r",
        b"\n",
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"|",
        b"^~\\&",
        b"\\",
    ),
    *(
        b"MSH|^~\\&|A|B|||2026||ADT^A28|",
        b"|P|2.5.1|||AL|AL|",
        b"PID|1||5^^^HOSP^MR~6|",
        b"BHS|^~\\&|",
        b"FHS|",
        b"BTS|1",
    ),
    *(b"MSH", b"M\x00S\x00H\x00|\x00", "Müller".encode(), "Zürich".encode("latin-1"), b"ACK", b'""', b"x" * 70),
]
fragments = st.lists(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=6)), max_size=24).map(b"".join)


def split(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[a:b] for a, b in pairwise(edges)]


def messages_of(block: bytes) -> list[bytes]:
    batch = find_batch(block)
    return batch.messages if batch else [block]


def frames(chunks: Sequence[bytes]) -> tuple[list[bytes], str]:
    """The messages and the fault that ended them, "" when none did."""
    deframer, found = Deframer(500), []
    try:
        for chunk in chunks:
            deframer.feed(chunk)
            for message in deframer.messages():
                found.append(message)
            assert deframer.held_bytes <= 500 + 4096 + 1
    except FramingError as fault:
        return found, str(fault)
    return found, ""


@given(fragments, st.lists(st.integers(0, 2000), max_size=8))
def test_any_split_of_any_bytes_gives_the_same_frames(stream: bytes, cuts: list[int]) -> None:
    assert frames([stream]) == frames(split(stream, cuts))


@given(fragments)
def test_whatever_is_framed_can_be_read_or_is_refused_with_a_reason(raw: bytes) -> None:
    for message in messages_of(raw):
        try:
            header = read_header(message)
            patient_keys(message)
        except MessageError as problem:
            assert str(problem)
        else:
            assert header != UNREADABLE


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(fragments.map(lambda raw: raw.replace(b"\x0b", b"").replace(b"\x1c", b"")), min_size=1, max_size=6))
def test_every_message_is_answered_unless_its_sender_wants_nothing(site: Bridge, raws: list[bytes]) -> None:
    answers = receive_messages(site, raws, "fuzz")
    for raw, answer in zip(raws, answers, strict=True):
        assert answer or read_header(raw).code == "ACK" or read_header(raw).msh_15 in ("NE", "SU", "ER")
        frame(answer)
    assert receive_messages(site, raws, "fuzz") == answers


async def _converse(streams: Sequence[bytes]) -> tuple[list[bytes], list[bytes], int]:
    """(what the server received, what it sent, bytes it still holds) when each stream is a connection of its own."""
    received: list[bytes] = []

    def receive(batch: Sequence[Inbound]) -> list[Answer]:
        received.extend(message.raw for message in batch)
        return [Answer(b"MSH|ack") for _ in batch]

    server = MllpServer(receive, limits=Limits(max_message_bytes=500, stall_seconds=5))
    port = await server.listen("127.0.0.1", 0)
    sent = []
    for stream in streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(stream)
        writer.write_eof()
        sent.append(await reader.read())
        writer.close()
    await server.close()
    return received, sent, server.held_bytes


@settings(max_examples=40, deadline=None)
@given(st.lists(fragments, min_size=1, max_size=4))
def test_every_frame_on_the_wire_is_received_and_answered_and_nothing_is_left_in_memory(streams: list[bytes]) -> None:
    with capture_logs() as logs:
        received, sent, held = asyncio.run(_converse(streams))
    assert held == 0
    assert not [entry for entry in logs if entry["log_level"] == "error"]
    expected = 0
    for stream, answer in zip(streams, sent, strict=True):
        ended = stream + (b"\r" if stream.endswith(b"\x1c") else b"")
        blocks, fault = frames([ended])
        messages = [message for block in blocks for message in messages_of(block)]
        expected += len(messages)
        assert answer.count(b"MSH|ack") == len(messages)
        assert answer.endswith(frame(REFUSED)) == bool(fault)
    assert len(received) == expected
