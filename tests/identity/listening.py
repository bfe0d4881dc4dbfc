"""A listener in a thread, a receiver that remembers, and peers that send bytes: for tests of the MLLP socket."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any

from adapter.identity.mllp import MllpServer
from adapter.identity.mllp_connection import Limits
from adapter.identity.mllp_intake import Answer, Inbound
from adapter.identity.mllp_later import FindAnswers
from mappings.hl7v2.framing import Deframer

MESSAGE = b"MSH|^~\\&|A\rPID|1||SECRET\r"


@dataclass
class Ledger:
    """A receiver that remembers the batches and answers each message with itself."""

    batches: list[list[bytes]] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    answer: Callable[[bytes], Answer] = lambda message: Answer(b"ACK " + message)

    def __post_init__(self) -> None:
        self.gate.set()

    def __call__(self, batch: Sequence[Inbound]) -> list[Answer]:
        self.batches.append([message.raw for message in batch])
        self.peers += [message.peer for message in batch]
        assert self.gate.wait(10)
        return [self.answer(message.raw) for message in batch]

    @property
    def received(self) -> list[bytes]:
        return [message for batch in self.batches for message in batch]


@contextmanager
def serving(
    receive: Callable[[Sequence[Inbound]], Sequence[Answer]],
    *,
    ssl: SSLContext | None = None,
    find_answers: FindAnswers = lambda _: {},
    stranger: Callable[[str, str], None] = lambda _address, _reason: None,
    **limits: Any,
) -> Iterator[int]:
    """A server in a thread; yields its port and ends with its connections."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = MllpServer(receive, limits=Limits(**limits), find_answers=find_answers, stranger=stranger)
    try:
        yield asyncio.run_coroutine_threadsafe(server.listen("127.0.0.1", 0, ssl=ssl), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def _end(server: MllpServer) -> None:
    await server.close()
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


def read_all(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    connection.settimeout(10)
    return b"".join(iter(lambda: connection.recv(65536), b""))


def exchange(port: int, *chunks: bytes) -> list[bytes]:
    """Send the chunks, close our side, and read the answers until the server closes."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        for chunk in chunks:
            connection.sendall(chunk)
        connection.shutdown(socket.SHUT_WR)
        deframer = Deframer(200 * 2**20)
        deframer.feed(read_all(connection))
        return list(deframer.messages())
