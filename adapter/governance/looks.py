"""The audit of mere looks: what many readers wait for at once is written at once.

A look changes nothing, so its AuditEvent needs no transaction of its own reader; it must only be durable before the
answer leaves. Whoever comes first writes for all who came meanwhile: a few statements and one commit for any number.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from adapter.bridge import Bridge
from adapter.db.engine import Database
from adapter.records import create_all
from mappings.terms import Json


class _Look:
    def __init__(self, told: Sequence[Json]) -> None:
        self.told = told
        self.is_durable = False
        self.error: BaseException | None = None


class _Looks:
    """Those of one database in this process."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._guard = threading.Lock()
        self._waiting: list[_Look] = []

    def write(self, bridge: Bridge, told: Sequence[Json]) -> None:
        own = _Look(told)
        with self._guard:
            self._waiting.append(own)
        with self._turn:
            if not own.is_durable and own.error is None:
                with self._guard:
                    together, self._waiting = self._waiting, []
                self._write(bridge, together)
        if own.error is not None:
            raise own.error

    def _write(self, bridge: Bridge, together: list[_Look]) -> None:
        try:
            with bridge.db.transaction(wakes=False) as tx:
                create_all(tx, [told for look in together for told in look.told], at=bridge.now())
        except BaseException as error:
            for look in together:
                look.error = error
            raise
        for look in together:
            look.is_durable = True


_OF: WeakKeyDictionary[Database, _Looks] = WeakKeyDictionary()
_FINDING = threading.Lock()


def write_looks(bridge: Bridge, told: Sequence[Json]) -> None:
    """Return when these AuditEvents are durable. Raises what writing them raised, to everybody who waited for it."""
    if told:
        with _FINDING:
            looks = _OF.setdefault(bridge.db, _Looks())
        looks.write(bridge, told)
