"""Server-side sessions: the browser holds a random cookie, the database its SHA-256 and the actor.

Idle and absolute ends are enforced here (45 CFR 164.312(a)(2)(iii), automatic logoff).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select, update

from adapter.access.actor import Actor
from adapter.access.tokens import digest
from adapter.db.engine import Database
from adapter.db.tables import session

COOKIE = "dermbridge-session"
_TOUCH_AFTER = timedelta(seconds=60)  # so that reading pages does not write once per request


@dataclass(frozen=True)
class Session:
    """A signed-in browser; `csrf` must come back with everything it changes."""

    id: str
    actor: Actor
    csrf: str


def start_session(tx: Connection, actor: Actor, *, at: datetime, lifetime: timedelta) -> tuple[str, Session]:
    """(cookie value, session). Always a fresh cookie, so that none can be planted beforehand."""
    cookie, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(24)
    row = {
        "id": digest(cookie),
        "actor": actor.to_json(),
        "csrf": csrf,
        "created_at": at,
        "seen_at": at,
        "expires_at": at + lifetime,
    }
    tx.execute(insert(session), row)
    return cookie, Session(digest(cookie), actor, csrf)


def find_session(db: Database, cookie: str, *, now: datetime, idle: timedelta) -> Session | None:
    """The live session behind a cookie, or None when it is unknown, ended or idle too long."""
    with db.snapshot() as tx:
        row = tx.execute(select(session).where(session.c.id == digest(cookie))).one_or_none()
    if row is None or row.expires_at <= now or row.seen_at + idle <= now:
        return None
    if row.seen_at + _TOUCH_AFTER <= now:
        with db.transaction() as tx:
            tx.execute(update(session).where(session.c.id == row.id).values(seen_at=now))
    return Session(row.id, Actor.from_json(row.actor), row.csrf)


def end_session(tx: Connection, session_id: str) -> None:
    tx.execute(delete(session).where(session.c.id == session_id))


def end_stale_sessions(tx: Connection, *, now: datetime) -> None:
    tx.execute(delete(session).where(session.c.expires_at <= now))
