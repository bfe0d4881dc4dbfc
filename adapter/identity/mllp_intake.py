"""From many MLLP connections to one durable batch after the other, with bounded bytes in memory.

What has arrived on all connections while a batch was being written makes the next batch: the more comes, the more
messages share a commit, and connections do not queue for the database.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeAlias

PeerName: TypeAlias = str
"""`host:port`, followed by `/CN` of the client certificate when TLS asked for one."""


class Inbound(NamedTuple):
    """A message as it came, and from whom."""

    raw: bytes
    peer: PeerName


class Answer(NamedTuple):
    """What to write back at once (b"" for a sender that wants nothing), and the id under which an application
    acknowledgement will follow on the same connection ("" when none will).
    """

    ack: bytes
    awaits: str = ""


Receive: TypeAlias = Callable[[Sequence[Inbound]], Sequence[Answer]]
"""Takes messages in order, makes them durable, gives one answer each; runs in a thread, never twice at a time. An
exception means that nothing was accepted: the connections are closed and their senders send again."""

Answers: TypeAlias = "asyncio.Future[Sequence[Answer]]"

MAX_BATCH = 512
BURST_SECONDS = 5.0
_MAX_BATCH_BYTES = 16 * 2**20
_QUIET_SECONDS = 0.005  # longer than a sender in lock step needs for its next message


@dataclass(frozen=True, slots=True)
class _Job:
    """Messages of one connection, at most MAX_BATCH, and where their answers go."""

    messages: list[Inbound]
    answers: Answers


class Intake:
    """Hands what is submitted to `receive`, in order, in as few calls as the load allows."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._thread = ThreadPoolExecutor(1, "mllp-receive")
        self._jobs: deque[_Job] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._is_quiet = threading.Event()
        self._is_quiet.set()
        self._busy_since = 0.0

    def submit(self, messages: Sequence[bytes], peer: PeerName) -> list[Answers]:
        """Put messages in line; the answers come in order, in one future for each MAX_BATCH of them."""
        loop = asyncio.get_running_loop()
        jobs = [
            _Job([Inbound(raw, peer) for raw in messages[start : start + MAX_BATCH]], loop.create_future())
            for start in range(0, len(messages), MAX_BATCH)
        ]
        self._jobs.extend(jobs)
        if jobs and (self._pump is None or self._pump.done()):
            if self._is_quiet.is_set():
                self._busy_since = time.monotonic()
                self._is_quiet.clear()
            self._pump = loop.create_task(self._run())
        return [job.answers for job in jobs]

    def let_burst_pass(self) -> None:
        """For other threads: return once nothing comes any more, or when the burst has lasted BURST_SECONDS.

        So a burst is acknowledged before it is applied, and in a lasting stream both go on side by side.
        """
        left = self._busy_since + BURST_SECONDS - time.monotonic()
        if left > 0:
            self._is_quiet.wait(left)

    def close(self) -> None:
        """End the thread; what it has in hand is finished."""
        self._is_quiet.set()
        self._thread.shutdown(wait=False)

    async def _run(self) -> None:
        while self._jobs:
            await self._settle(self._next_batch())
        asyncio.get_running_loop().call_later(_QUIET_SECONDS, self._rest)

    def _rest(self) -> None:
        if self._pump is None or self._pump.done():
            self._is_quiet.set()

    def _next_batch(self) -> list[_Job]:
        batch, count, size = [self._jobs.popleft()], 0, 0
        while self._jobs:
            count += len(batch[-1].messages)
            size += sum(len(message.raw) for message in batch[-1].messages)
            if count + len(self._jobs[0].messages) > MAX_BATCH or size >= _MAX_BATCH_BYTES:
                break
            batch.append(self._jobs.popleft())
        return batch

    async def _settle(self, batch: list[_Job]) -> None:
        messages = [message for job in batch for message in job.messages]
        try:
            answers = iter(await asyncio.get_running_loop().run_in_executor(self._thread, self._receive, messages))
        except Exception as error:  # noqa: BLE001 (each connection is told, and ends with it)
            if len(batch) == 1:
                _fail(batch[0].answers, error)
            else:  # what one sender sent must not close the others
                for job in batch:
                    await self._settle([job])
            return
        for job in batch:
            own = list(islice(answers, len(job.messages)))
            if not job.answers.done():
                job.answers.set_result(own)


def _fail(answers: Answers, error: Exception) -> None:
    if not answers.done():
        answers.set_exception(error)
        answers.exception()  # nobody may be left to ask for it


class Flow:
    """Counts the bytes that are held for connections, and stops their reading above `max_bytes` in all.

    One connection at a time may go on beyond it, so that messages which are half here can be completed; hence at most
    `max_bytes` and what a single connection may hold.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: dict[Hashable, int] = {}
        self.held_bytes = 0
        self._favoured: Hashable = None
        self._changed = asyncio.Event()

    def hold(self, connection: Hashable, held: int) -> None:
        """The connection holds so many bytes now; 0 when it has left."""
        before = self._held.pop(connection, 0)
        if held:
            self._held[connection] = held
        self.held_bytes += held - before
        if held < before:
            if self._favoured is connection:
                self._favoured = None
            self._changed.set()

    async def room(self, connection: Hashable) -> None:
        """Return when the connection may read on."""
        while self.held_bytes >= self._max_bytes:
            if connection in self._held and self._favoured in (None, connection):
                self._favoured = connection  # never one that holds nothing: it may be silent for an hour
                return
            self._changed.clear()
            await self._changed.wait()
