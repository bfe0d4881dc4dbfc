"""How often somebody may try to get in: tries per window, and a lock after too many failures in a row.

Counted in the database, so that several processes count together, by what is tried and from where (and by whom it
claims to be): a stranger who fails cannot lock out a client that calls from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select, update

from adapter.access.tokens import digest
from adapter.bridge import Bridge
from adapter.db.tables import attempts
from adapter.errors import DermBridgeError, Throttled


@dataclass(frozen=True)
class Limit:
    """`tries` per `window`; after `failures` within it, none for as long as `lock`."""

    tries: int
    window: timedelta
    failures: int
    lock: timedelta


_MINUTE = timedelta(minutes=1)
LIMITS = {
    "token": Limit(120, _MINUTE, 10, 5 * _MINUTE),
    "app": Limit(1200, _MINUTE, 200, _MINUTE),  # as a launch
    "launch": Limit(1200, _MINUTE, 200, _MINUTE),  # a whole hospital may come from one address
    "callback": Limit(1200, _MINUTE, 200, _MINUTE),
    "bearer": Limit(0, _MINUTE, 30, 5 * _MINUTE),  # good tokens are not counted, only wrong ones
    "break-glass": Limit(20, 60 * _MINUTE, 20, 60 * _MINUTE),
}


@contextmanager
def attempt(bridge: Bridge, kind: str, *who: str) -> Iterator[None]:
    """Counts a try and, when the block raises, a failure. Raises Throttled before the block when it is too much."""
    with bridge.db.transaction() as tx:
        _count(tx, bridge, kind, who, failed=False)
    try:
        yield
    except DermBridgeError as error:
        if error.http_status < 500:  # an EHR that is down is no fault of the caller's
            with bridge.db.transaction() as tx:
                _count(tx, bridge, kind, who, failed=True)
        raise


def count_failure(bridge: Bridge, kind: str, *who: str) -> None:
    """For what is only counted when it fails."""
    with bridge.db.transaction() as tx:
        _count(tx, bridge, kind, who, failed=True)


def check_not_locked(tx: Connection, kind: str, *who: str, now: datetime) -> None:
    """Raises Throttled while a lock is in force."""
    until = tx.execute(select(attempts.c.locked_until).where(attempts.c.key == _key(kind, who))).scalar()
    if until is not None and until > now:
        raise _throttled(until, now)


def _count(tx: Connection, bridge: Bridge, kind: str, who: tuple[str, ...], *, failed: bool) -> None:
    limit, key, now = LIMITS[kind], _key(kind, who), bridge.now()
    bridge.db.lock(tx, key)
    row = tx.execute(select(attempts).where(attempts.c.key == key)).one_or_none()
    if row is None or (row.since + limit.window <= now and not (row.locked_until and row.locked_until > now)):
        tx.execute(delete(attempts).where(attempts.c.key == key))
        tx.execute(insert(attempts), {"key": key, "since": now, "tries": 1, "failures": int(failed)})
        return
    if not failed:
        if row.locked_until is not None and row.locked_until > now:
            raise _throttled(row.locked_until, now)
        if row.tries >= limit.tries:
            raise _throttled(row.since + limit.window, now)
    failures = row.failures + int(failed)
    locked_until = now + limit.lock if failed and failures >= limit.failures else row.locked_until
    changed = {"tries": row.tries + int(not failed), "failures": failures, "locked_until": locked_until}
    tx.execute(update(attempts).where(attempts.c.key == key).values(changed))


def _key(kind: str, who: tuple[str, ...]) -> str:
    return digest("\x00".join((kind, *who)))


def _throttled(until: datetime, now: datetime) -> Throttled:
    seconds = max(1, int((until - now).total_seconds()) + 1)
    return Throttled(f"too many attempts; try again in {seconds} seconds", retry_after=seconds)
