"""The MLLP socket: bytes in, whole batches to `receive`, answers back in order.

Knows nothing of HL7 beyond framing and nothing of the database. Everything that has arrived on a connection goes to
`receive` at once, so that one durable commit serves a pipelined burst; reading stops meanwhile, so that a fast sender
is slowed by TCP instead of filling memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from ssl import SSLContext
from typing import TypeAlias

import structlog

from adapter.errors import DermBridgeError
from mappings.hl7v2.framing import CR, DEFAULT_MAX_MESSAGE_BYTES, REFUSED, Deframer, FramingError, frame

PeerName: TypeAlias = str
"""`host:port`, followed by `/CN` of the client certificate when TLS asked for one."""

Receive: TypeAlias = Callable[[Sequence[bytes], PeerName], Sequence[bytes]]
"""Takes messages in order, makes them durable, gives one answer each (b"" where the sender wants none). Runs in a
worker thread. A DermBridgeError means nothing was accepted: the connection is closed and the sender sends again."""

MAX_BATCH = 256
_READ_BYTES = 256 * 1024
_CR_GRACE_SECONDS = 1.0

log = structlog.get_logger(__name__)


async def serve_mllp(
    host: str,
    port: int,
    receive: Receive,
    *,
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    idle_seconds: float = 300.0,
    ssl: SSLContext | None = None,
) -> asyncio.Server:
    """Listen on `host:port` (0 = any free port) and answer until the server is closed.

    A peer is closed when it is silent for `idle_seconds`, takes longer than that for one message or for reading its
    answers, or sends what cannot be framed: that is answered with the MLLP release 2 negative block (NAK) and logged
    by peer and reason only. Raises OSError when the address is taken.
    """

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(reader, writer, receive, Deframer(max_message_bytes), idle_seconds)
        try:
            await connection.run()
        finally:
            writer.close()

    return await asyncio.start_server(converse, host, port, limit=_READ_BYTES, ssl=ssl)


@dataclass(slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    receive: Receive
    deframer: Deframer
    idle_seconds: float
    deadline: float = 0.0

    async def run(self) -> None:
        """Serve one peer until it leaves or must be closed."""
        try:
            while chunk := await self._read():
                self.deframer.feed(chunk)
                await self._answer()
            await self._finish()
        except TimeoutError:
            self._close("the peer was silent or slow for longer than idle_seconds")
            self.writer.transport.abort()
        except FramingError as error:
            self._close(str(error))
            self.writer.write(frame(REFUSED))
        except DermBridgeError as error:
            self._close(str(error))
        except OSError as error:  # reset, broken pipe, TLS failure: the peer is gone
            self._close(type(error).__name__)

    async def _read(self) -> bytes:
        """The next bytes, b"" when the peer has closed.

        One deadline spans a whole message, so that a peer trickling bytes does not hold a connection for ever.
        """
        is_between_messages = not self.deframer.is_mid_message
        if is_between_messages:
            self._extend_deadline()
        grace = asyncio.get_running_loop().time() + _CR_GRACE_SECONDS
        try:
            async with asyncio.timeout_at(min(self.deadline, grace) if self.deframer.awaits_cr else self.deadline):
                chunk = await self.reader.read(_READ_BYTES)
        except TimeoutError:
            if not self.deframer.awaits_cr:
                raise
            return CR
        if is_between_messages:
            self._extend_deadline()
        return chunk

    def _extend_deadline(self) -> None:
        self.deadline = asyncio.get_running_loop().time() + self.idle_seconds

    async def _answer(self) -> None:
        """Hand over everything that is complete and write the answers; a framing fault is raised after them."""
        messages = self.deframer.messages()
        while True:
            batch, fault = _take(messages)
            if batch:
                answers = await asyncio.to_thread(self.receive, batch, self._peer())
                self.writer.write(b"".join(frame(answer) for answer in answers if answer))
                async with asyncio.timeout(self.idle_seconds):
                    await self.writer.drain()
                self._extend_deadline()
            if fault:
                raise fault
            if len(batch) < MAX_BATCH:
                return

    async def _finish(self) -> None:
        if self.deframer.awaits_cr:
            self.deframer.feed(CR)
            await self._answer()
        if self.deframer.is_mid_message:
            self._close("the peer closed in the middle of a message, which was not accepted")

    def _peer(self) -> PeerName:
        host, port, *_ = self.writer.get_extra_info("peername") or ("unknown", 0)
        certificate = self.writer.get_extra_info("peercert") or {}
        subject = {name: value for group in certificate.get("subject", ()) for name, value in group}
        return f"{host}:{port}" + (f"/{subject['commonName']}" if "commonName" in subject else "")

    def _close(self, reason: str) -> None:
        log.warning("mllp connection closed", peer=self._peer(), reason=reason)


def _take(messages: Iterator[bytes]) -> tuple[list[bytes], FramingError | None]:
    """Up to MAX_BATCH messages, and the fault that stopped them short."""
    batch: list[bytes] = []
    try:
        for message in islice(messages, MAX_BATCH):
            batch.append(message)
    except FramingError as fault:
        return batch, fault
    return batch, None
