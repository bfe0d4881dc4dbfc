"""What lets somebody in is forgotten once it is of no use any more: sessions, codes, tokens, links, counted attempts.

A work item that puts itself in line again every hour does it, so one process at a time and whichever is there. What was
done with them stays in the audit log.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import Column, Connection, delete, select

from adapter.access.handoff import SESSION_LIFETIME
from adapter.access.oauth import LAUNCH_LIFETIME
from adapter.bridge import Bridge
from adapter.db.tables import access_token, app_grant, attempts, handoff, launch, session, used_assertion
from adapter.work import Work, enqueue, finish

KIND = "forget-expired"
EVERY = timedelta(hours=1)
_DAY = timedelta(days=1)
_AT_ONCE = 1000  # rows in one transaction, which holds up the one writer of SQLite
KEPT: dict[Column[Any], timedelta] = {  # a time of a row -> how long after it the row is kept
    session.c.expires_at: timedelta(),
    launch.c.created_at: LAUNCH_LIFETIME,
    handoff.c.expires_at: SESSION_LIFETIME,
    app_grant.c.expires_at: _DAY,
    access_token.c.expires_at: _DAY,  # so that who asks about a token that has just ended is told so
    used_assertion.c.expires_at: timedelta(),
    attempts.c.since: _DAY,
}


def forget_expired(bridge: Bridge, work: Work) -> None:
    """Handle one work item of kind `KIND`."""
    for column, kept in KEPT.items():
        while _forget_some(bridge, column, kept) == _AT_ONCE:
            pass
    with bridge.db.transaction() as tx:
        finish(tx, work)
        put_in_line(tx, bridge, wait=EVERY)


def put_in_line(tx: Connection, bridge: Bridge, *, wait: timedelta = timedelta()) -> None:
    """Once, however many processes start."""
    enqueue(tx, Work(KIND, KIND), at=bridge.now(), due_at=bridge.now() + wait)


def _forget_some(bridge: Bridge, column: Column[Any], kept: timedelta) -> int:
    """How many rows are gone; fewer than `_AT_ONCE`: all that were due."""
    (key,) = column.table.primary_key
    ended = select(key).where(column < bridge.now() - kept).limit(_AT_ONCE)
    with bridge.db.transaction() as tx:
        return tx.execute(delete(column.table).where(key.in_(ended))).rowcount
