"""A small MLLP sender for `dermbridge adt send`, the sandbox and tests."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from ssl import SSLContext

from adapter.errors import Unavailable
from mappings.hl7v2.batch import find_batch
from mappings.hl7v2.er7 import read_header
from mappings.hl7v2.errors import MessageError
from mappings.hl7v2.framing import REFUSED, Deframer, FramingError, frame

_READ_BYTES = 64 * 1024
_MAX_ANSWER_BYTES = 100 * 2**20  # the answer to a batch is a batch


def send(
    host: str,
    port: int,
    messages: Sequence[bytes],
    *,
    pipelined: int = 1,
    timeout_seconds: float = 30.0,
    ssl: SSLContext | None = None,
) -> list[bytes]:
    """Send messages over one connection and return one answer for each, in order.

    `pipelined` is how many messages may wait for their answer at the same time (1: the classic lock step; keep it
    below 1,000, since a peer that cannot write its answers stops reading). Messages whose MSH-15 asks for no answer
    do not fit here. Raises Unavailable when the peer cannot be reached, is silent for `timeout_seconds`, or closes
    before the last answer; the sentence says how many were answered.
    """
    answers: list[bytes] = []
    deframer = Deframer(_MAX_ANSWER_BYTES)
    try:
        with _connect(host, port, timeout_seconds, ssl) as connection:
            sent = 0
            while len(answers) < len(messages):
                window = messages[sent : len(answers) + max(1, pipelined)]
                connection.sendall(b"".join(map(frame, window)))
                sent += len(window)
                answers += _receive(connection, deframer)
                if REFUSED in answers:
                    answers = answers[: answers.index(REFUSED)]
                    raise EOFError("the peer refused the framing of the next message")
    except (OSError, EOFError, FramingError) as error:
        reason = str(error) or type(error).__name__
        raise Unavailable(
            f"{host}:{port} answered {len(answers)} of {len(messages)} messages and then failed ({reason}); "
            "send the rest again."
        ) from error
    return answers


def blocks_of(file: bytes) -> list[bytes]:
    """What to send of a file: a batch as one block, messages one after the other as a block each."""
    bare = file.strip(b"\x0b\x1c\r\n \t")
    batch = find_batch(bare)
    return [bare] if batch is None or batch.is_framed else batch.messages


def is_answered(block: bytes) -> bool:
    """False for a message whose MSH-15 forbids an answer, which `send` would wait for in vain."""
    try:
        return read_header(block).msh_15 != "NE"
    except MessageError:
        return True


def acknowledged(answer: bytes) -> list[str]:
    """The MSA segments of an answer, of which a batch has many, with `|` between fields."""
    lines = re.split(r"[\r\n]+", answer.decode("utf-8", "replace"))
    return [line.replace(line[3:4], "|") for line in lines if line.startswith("MSA")]


def _connect(host: str, port: int, timeout_seconds: float, ssl: SSLContext | None) -> socket.socket:
    plain = socket.create_connection((host, port), timeout_seconds)
    if ssl is None:
        return plain
    with plain:  # the TLS socket takes over its descriptor; if it cannot, it is closed here
        return ssl.wrap_socket(plain, server_hostname=host)


def _receive(connection: socket.socket, deframer: Deframer) -> list[bytes]:
    chunk = connection.recv(_READ_BYTES)
    if not chunk:
        raise EOFError("the peer closed the connection")
    deframer.feed(chunk)
    return list(deframer.messages())
