"""The audit of mere looks: durable before the answer that shows something leaves, many with one commit.

A look changes nothing, so its AuditEvent needs no transaction of its own reader. What a handler tells while a request
is answered is only noted; the gate (adapter.web.gates) holds the answer until it is written. While one batch is
written, the next fills with what all other readers looked at: one thread and one fsync for any number of them.

Beside SQLite they are first kept in files (`adapter.db.spool`), and `settle` moves them into the log: every second, and
before anybody reads it. On PostgreSQL they are written into it at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime

import orjson
from sqlalchemy import Connection

from adapter.bridge import Bridge
from adapter.errors import Unavailable
from adapter.records import New, Stored, find_all, insert_all
from adapter.records.search_parameters import columns_of, index_rows, search_parameters

SETTLED_TOGETHER = 250  # in one transaction: bounds how long the one writer is held up


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
    if bridge.db.spool is None:
        with bridge.db.transaction(wakes=False) as tx:
            insert_all(tx, told)
        return
    try:
        bridge.db.spool.keep(map(_line, told))
    except OSError as error:
        raise Unavailable("who looks cannot be noted at the moment (is the disk full?); ask again later") from error


def settle(bridge: Bridge) -> None:
    """Every look that is durable by now stands in the log: for whoever is about to read it, outside a transaction."""
    if (spool := bridge.db.spool) is None:
        return

    def insert(told: Sequence[New]) -> None:
        with bridge.db.transaction(wakes=False) as tx:
            _insert(tx, told)

    try:
        spool.move(_look, insert, SETTLED_TOGETHER)
    except OSError as error:
        reason = f"the looks kept in {spool.folder} cannot be read; give its files to the user that DermBridge runs as"
        raise Unavailable(reason) from error


def _insert(tx: Connection, told: Sequence[New]) -> None:
    """What the log does not have yet: after a crash a look may come again."""
    looks = {one.after.id: one for one in told}
    known = find_all(tx, "AuditEvent", looks)
    insert_all(tx, [one for event_id, one in looks.items() if event_id not in known])


def _line(told: New) -> bytes:
    """All of it, since deriving it again from the event's text costs more than reading it."""
    after, columns, rows = told
    return orjson.dumps([after.id, after.last_updated, after.body, columns, [(r["param"], r["value"]) for r in rows]])


def _look(line: bytes) -> New:
    """Raises ValueError for what is not of `_line`: one line that nobody can read must not hold up all others."""
    try:
        event_id, at, body, columns, rows = orjson.loads(line)
        about = {"resource_type": "AuditEvent", "resource_id": event_id}
        columns["date"] = datetime.fromisoformat(columns["date"])
        after = Stored("AuditEvent", event_id, 1, datetime.fromisoformat(at), body)
        index = [{**about, "param": param, "value": value} for param, value in rows]
        if columns.keys() != _COLUMNS:  # kept by another version of DermBridge
            columns, index = columns_of(after.resource), index_rows(after.resource)
    except (TypeError, KeyError) as error:
        raise ValueError("this is no look") from error
    return New(after, columns, index)


_COLUMNS = {one.column for one in search_parameters("AuditEvent") if one.column}


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
