"""One MLLP connection: frames in, answers out in order, and nobody may hold it for ever.

Knows nothing of HL7 beyond framing and batches. It reads on while earlier messages become durable, up to a bound, so
that a sender which pipelines is never waited for and a fast one is slowed by TCP instead of filling memory.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, cast

import structlog

from adapter.errors import DermBridgeError
from adapter.identity.mllp_intake import MAX_BATCH, Answers, Flow, Intake, PeerName
from mappings.hl7v2.batch import Batch, find_batch
from mappings.hl7v2.framing import CR, DEFAULT_MAX_MESSAGE_BYTES, FS, REFUSED, VT, Deframer, FramingError, frame

READ_BYTES = 128 * 1024
_MAX_UNANSWERED_BYTES = 4 * 2**20
_CR_GRACE_SECONDS = 1.0
_FAREWELL_SECONDS = 1.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a listener puts up with. Larger messages and further connections are refused; a connection is closed that
    is silent for `idle_seconds`, or takes more than `stall_seconds` for one message or for reading its answers.
    """

    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    max_bytes_in_flight: int = 256 * 2**20
    max_connections: int = 500
    idle_seconds: float = 3600
    stall_seconds: float = 120


class Later(Protocol):
    """Where application acknowledgements come from that follow on the same connection."""

    def expect(self, message_id: str, connection: Connection) -> None: ...

    def forget(self, connection: Connection) -> None: ...


@dataclass(frozen=True, slots=True)
class _Owed:
    """Answers to come, in order, how they are written, and the bytes of what they answer."""

    answers: list[Answers]
    write: Callable[[Sequence[bytes]], bytes]
    size: int


class Connection:
    """Serves one peer until it leaves or must be closed."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        intake: Intake,
        flow: Flow,
        later: Later,
        limits: Limits,
    ) -> None:
        self.peer = peer_name(writer)
        self._reader, self._writer = reader, writer
        self._intake, self._flow, self._later, self._limits = intake, flow, later, limits
        self._deframer = Deframer(limits.max_message_bytes)
        self._owed: asyncio.Queue[_Owed | FramingError | None] = asyncio.Queue()
        self._unanswered = 0
        self._answered = asyncio.Event()
        self._deadline = 0.0

    async def serve(self) -> None:
        """Read and answer side by side; whichever fails ends the other."""
        _keep_alive(self._writer)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._listen())
                both.create_task(self._answer())
        except* TimeoutError:
            self._log("the peer was silent for longer than idle_seconds or slower than stall_seconds")
            self._writer.transport.abort()
        except* FramingError as faults:
            self._log(str(faults.exceptions[0]))
            await refuse(self._reader, self._writer)
        except* DermBridgeError as errors:
            self._log(str(errors.exceptions[0]))
        except* OSError as errors:  # reset, broken pipe, TLS failure: the peer is gone
            self._log(type(errors.exceptions[0]).__name__)
        except* Exception as errors:  # outermost edge: a defect closes one connection and is seen
            log.error("mllp connection failed", peer=self.peer, exc_info=errors.exceptions[0])
        finally:
            self._flow.hold(self, 0)
            self._later.forget(self)
            self._writer.close()

    def leave(self) -> None:
        """Read no more; what was read is answered, then the connection closes."""
        transport = cast(asyncio.Transport, self._writer.transport)
        if not transport.is_closing():
            transport.pause_reading()  # more bytes after the end would be an error
            self._reader.feed_eof()

    def tell(self, message: bytes) -> None:
        """Send a message of our own after the answers that are owed now."""
        self._owed.put_nowait(_Owed([], lambda _: frame(message), 0))

    # --- reading ----------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        while chunk := await self._read():
            self._deframer.feed(chunk)
            if not self._submit_complete():
                return
        if self._deframer.awaits_cr:
            self._deframer.feed(CR)
            self._submit_complete()
        if self._deframer.is_mid_message:
            self._log("the peer closed in the middle of a message, which was not accepted")
        self._owed.put_nowait(None)

    async def _read(self) -> bytes:
        """The next bytes, b"" when the peer has closed.

        One deadline spans a whole message, so that a peer trickling bytes does not hold a connection for ever.
        """
        await self._wait_for_room()
        now = asyncio.get_running_loop().time()
        is_between_messages = not self._deframer.is_mid_message
        deadline = now + self._limits.idle_seconds if is_between_messages else self._deadline
        awaits_cr = self._deframer.awaits_cr
        try:
            async with asyncio.timeout_at(min(deadline, now + _CR_GRACE_SECONDS) if awaits_cr else deadline):
                chunk = await self._reader.read(READ_BYTES)
        except TimeoutError:
            if not awaits_cr:
                raise
            return CR
        if is_between_messages:
            self._extend_deadline()
        return chunk

    async def _wait_for_room(self) -> None:
        """Reading stops while too much waits to become durable here or in all; that time is not the peer's."""
        began = asyncio.get_running_loop().time()
        while self._unanswered >= _MAX_UNANSWERED_BYTES:
            self._answered.clear()
            await self._answered.wait()
        await self._flow.room(self)
        self._deadline += asyncio.get_running_loop().time() - began

    def _extend_deadline(self) -> None:
        self._deadline = asyncio.get_running_loop().time() + self._limits.stall_seconds

    def _submit_complete(self) -> bool:
        """Put in line what is complete; False after a framing fault, which is answered when its turn comes."""
        single: list[bytes] = []
        fault: FramingError | None = None
        try:
            for block in self._deframer.messages():
                batch = find_batch(block)
                if batch is None:
                    single.append(block)
                if single and (batch or len(single) == MAX_BATCH):
                    self._submit(single, _frame_each)
                    single = []
                if batch:
                    self._submit(batch.messages, _writer_of(batch))
        except FramingError as error:
            fault = error
        if single:
            self._submit(single, _frame_each)
        self._flow.hold(self, self._deframer.held_bytes + self._unanswered)
        if fault:
            self._owed.put_nowait(fault)
        return fault is None

    def _submit(self, messages: list[bytes], write: Callable[[Sequence[bytes]], bytes]) -> None:
        self._extend_deadline()
        size = sum(map(len, messages))
        self._unanswered += size
        self._owed.put_nowait(_Owed(self._intake.submit(messages, self.peer), write, size))

    # --- answering --------------------------------------------------------------------------------------------------

    async def _answer(self) -> None:
        """Write answers in the order of their messages; a framing fault is raised after them."""
        while (owed := await self._owed.get()) is not None:
            if isinstance(owed, FramingError):
                raise owed
            answers = [answer for part in owed.answers for answer in await part]
            self._writer.write(owed.write([answer.ack for answer in answers]))
            async with asyncio.timeout(self._limits.stall_seconds):
                await self._writer.drain()
            for answer in answers:
                if answer.awaits:
                    self._later.expect(answer.awaits, self)
            self._unanswered -= owed.size
            self._flow.hold(self, self._deframer.held_bytes + self._unanswered)
            self._answered.set()

    def _log(self, reason: str) -> None:
        log.warning("mllp connection closed", peer=self.peer, reason=reason)


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send the negative block and wait a moment for the peer to leave: closing on unread bytes would take it back."""
    with suppress(OSError):  # TimeoutError among them
        async with asyncio.timeout(_FAREWELL_SECONDS):
            writer.write(frame(REFUSED))
            if writer.can_write_eof():
                writer.write_eof()
            while await reader.read(READ_BYTES):
                pass


def peer_name(writer: asyncio.StreamWriter) -> PeerName:
    """Who is at the other end, as far as TCP and TLS can tell."""
    host, port, *_ = writer.get_extra_info("peername") or ("unknown", 0)
    certificate = writer.get_extra_info("peercert") or {}
    subject = {name: value for group in certificate.get("subject", ()) for name, value in group}
    return f"{host}:{port}" + (f"/{subject['commonName']}" if "commonName" in subject else "")


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    if plain := writer.get_extra_info("socket"):
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _frame_each(answers: Sequence[bytes]) -> bytes:
    return b"".join(_framed(answer) for answer in answers if answer)


def _writer_of(batch: Batch) -> Callable[[Sequence[bytes]], bytes]:
    return (lambda answers: _framed(batch.answer(answers))) if batch.is_framed else _frame_each


def _framed(answer: bytes) -> bytes:
    """An answer echoes what the sender wrote, where VT and FS may stand as text; here they would end it."""
    return frame(answer.translate(None, VT + FS))
