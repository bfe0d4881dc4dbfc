"""The audit of mere looks: durable before the answer that shows something leaves, many with one commit.

A look changes nothing, so its AuditEvent needs no transaction of its own reader. What a handler tells while a request
is answered is only noted; the gate (adapter.web.gates) holds the answer until it is written. While one batch is
written, the next fills with what all other readers looked at: one thread and one commit for any number of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar

from adapter.bridge import Bridge
from adapter.records import New, insert_all


class Looked:
    """What was looked at for one answer, until the answer takes it to be written."""

    def __init__(self) -> None:
        self._told: list[New] | None = []

    def note(self, told: Sequence[New]) -> bool:
        """False once the answer has begun: then whoever tells must write."""
        if self._told is None:
            return False
        self._told += told
        return True

    def take(self) -> list[New]:
        told, self._told = self._told or [], None
        return told


_ANSWER: ContextVar[Looked | None] = ContextVar("looked", default=None)


@contextmanager
def answering() -> Iterator[Looked]:
    """Within, and in the threads that handlers run in, looks are noted for the answer."""
    looked = Looked()
    token = _ANSWER.set(looked)
    try:
        yield looked
    finally:
        _ANSWER.reset(token)


def write_looks(bridge: Bridge, told: Sequence[New]) -> None:
    """Durable when the answer begins; when there is none to hold back, when this returns."""
    looked = _ANSWER.get()
    if told and (looked is None or not looked.note(told)):
        _write(bridge, told)


def _write(bridge: Bridge, told: Sequence[New]) -> None:
    with bridge.db.transaction(wakes=False) as tx:
        insert_all(tx, told)


class LooksTogether:
    """Writes what the answers of one event loop wait for, batch after batch."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._thread = ThreadPoolExecutor(1, "looks")  # its own: handlers, which may hold all others, wait for looks
        self._filling: list[New] | None = None
        self._written: asyncio.Task[None] | None = None

    async def write(self, told: Sequence[New]) -> None:
        """Return when these are durable. Raises what writing them raised, to everybody who waited for that batch.

        A reader who goes away takes nobody else's look along: the batch is a task of its own.
        """
        if self._filling is None:
            self._filling = []
            self._written = asyncio.create_task(self._write(self._filling, self._written))
        assert self._written is not None
        self._filling += told
        await asyncio.shield(self._written)

    async def _write(self, filling: list[New], before: asyncio.Task[None] | None) -> None:
        if before is not None and not before.done():
            await asyncio.wait([before])
        self._filling = None
        await asyncio.get_running_loop().run_in_executor(self._thread, _write, self._bridge, filling)
