"""The audit of mere looks: what many readers wait for at once is written at once.

A look changes nothing, so its AuditEvent needs no transaction of its own reader; it must only be durable before the
answer leaves. While one batch is written, the next fills: a few statements and one commit for any number of readers.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from adapter.bridge import Bridge
from adapter.db.engine import Database
from adapter.records import create_all
from mappings.terms import Json


class _Batch:
    """What is written with one commit; `done` once it is durable, or once `error` says why it is not."""

    def __init__(self) -> None:
        self.told: list[Json] = []
        self.done = threading.Event()
        self.error: BaseException | None = None

    def write(self, bridge: Bridge) -> None:
        try:
            with bridge.db.transaction(wakes=False) as tx:
                create_all(tx, self.told, at=bridge.now())
        except BaseException as error:
            self.error = error
        finally:
            self.done.set()


class _Looks:
    """Those of one database in this process. Who opens a batch writes it, after the one before it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._open: _Batch | None = None
        self._before = _Batch()
        self._before.done.set()

    def write(self, bridge: Bridge, told: Sequence[Json]) -> None:
        with self._guard:
            batch, is_mine = self._open or _Batch(), self._open is None
            self._open = batch
            batch.told += told
        if is_mine:
            self._before.done.wait()
            with self._guard:
                self._open, self._before = None, batch
            batch.write(bridge)
        batch.done.wait()
        if batch.error is not None:
            raise batch.error


_OF: WeakKeyDictionary[Database, _Looks] = WeakKeyDictionary()
_FINDING = threading.Lock()


def write_looks(bridge: Bridge, told: Sequence[Json]) -> None:
    """Return when these AuditEvents are durable. Raises what writing them raised, to everybody who waited for it."""
    if told:
        with _FINDING:
            looks = _OF.setdefault(bridge.db, _Looks())
        looks.write(bridge, told)
