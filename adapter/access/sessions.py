"""Server-side sessions: the browser holds a random cookie, the database its SHA-256 and the actor.

Each chart that is open has a session and a cookie of its own, so that two charts in two tabs never mix. Idle and
absolute ends are enforced here (45 CFR 164.312(a)(2)(iii), automatic logoff), and so is the end of an emergency.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import orjson
from sqlalchemy import Connection, Row, delete, insert, select, update

from adapter.access.actor import Actor
from adapter.access.ehr_style import Style
from adapter.access.tokens import digest
from adapter.db.engine import Database
from adapter.db.tables import handoff, session
from adapter.errors import NotFound

COOKIE = "dermbridge-session"
MOST_CHARTS = 8  # sessions of one browser; opening another chart ends the one opened first
NOBODY = ""  # a `patient_id` that no record has: the session reaches no patient
_TOUCH_AFTER = timedelta(seconds=60)  # so that reading pages does not write once per request


@dataclass(frozen=True)
class Session:
    """A signed-in browser; `csrf` must come back with everything it changes."""

    id: str
    actor: Actor
    csrf: str
    ehr_grant: bytes | None = field(default=None, repr=False)
    style: Style | None = None


@dataclass(frozen=True)
class LiveSession:
    """A session as its owner or an administrator sees it from outside; what `id` names cannot be signed in with."""

    id: str
    actor: Actor
    created_at: datetime
    seen_at: datetime
    ehr_grant: bytes | None = field(default=None, repr=False)


def on_host(name: str, *, https: bool) -> str:
    """`__Host-` binds a cookie to this host and to https, so that no other host of the domain can plant one (RFC
    6265bis section 4.1.3.2)."""
    return f"__Host-{name}" if https else name


def cookie_name(actor: Actor, *, https: bool) -> str:
    """One cookie per chart."""
    chart = f"-{digest(f'{actor.ehr}|{actor.patient_id}')[:12]}" if actor.patient_id else ""
    return on_host(f"{COOKIE}{chart}", https=https)


def is_session_cookie(name: str, *, https: bool) -> bool:
    return name.startswith(on_host(COOKIE, https=https))


def start_session(
    tx: Connection,
    actor: Actor,
    *,
    at: datetime,
    lifetime: timedelta,
    ehr_grant: bytes | None = None,
    style: Style | None = None,
    glass_of: str | None = None,
) -> tuple[str, Session]:
    """(cookie value, session). Always a fresh cookie, so that none can be planted beforehand."""
    cookie, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(24)
    row = {
        "id": digest(cookie),
        "actor": actor.to_json(),
        "actor_id": actor.id,
        "csrf": csrf,
        "created_at": at,
        "seen_at": at,
        "expires_at": at + lifetime,
        "ehr_grant": ehr_grant,
        "style": orjson.dumps(style).decode() if style else None,
        "glass_of": glass_of,
    }
    tx.execute(insert(session), row)
    return cookie, Session(digest(cookie), actor, csrf, ehr_grant, style)


def find_session(db: Database, cookie: str, *, now: datetime, idle: timedelta, touch: bool = True) -> Session | None:
    """The live session behind a cookie, or None when it is unknown, ended or idle too long."""
    return next(iter(find_sessions(db, [cookie], now=now, idle=idle, touch=touch)), None)


def find_sessions(
    db: Database, cookies: Collection[str], *, now: datetime, idle: timedelta, touch: bool = True
) -> list[Session]:
    """The live sessions behind a browser's cookies, the newest first.

    `touch`: this request shows that somebody is there; a page that asks by itself does not.
    """
    with db.snapshot() as tx:
        ids = [digest(cookie) for cookie in cookies]
        rows = tx.execute(select(session).where(session.c.id.in_(ids))).all()
    live = [row for row in rows if row.expires_at > now and row.seen_at + idle > now]
    stale = [row.id for row in live if touch and row.seen_at + _TOUCH_AFTER <= now]
    if stale:
        with db.transaction() as tx:
            tx.execute(update(session).where(session.c.id.in_(stale)).values(seen_at=now))
    return [_session(row, now) for row in sorted(live, key=lambda row: row.created_at, reverse=True)]


def _session(row: Row[tuple[object, ...]], now: datetime) -> Session:
    actor = Actor.from_json(row.actor)
    if actor.emergency_until is not None and actor.emergency_until <= now:
        actor = after_emergency(actor)
    return Session(row.id, actor, row.csrf, row.ehr_grant, orjson.loads(row.style) if row.style else None)


def after_emergency(actor: Actor) -> Actor:
    """The same person without what breaking the glass opened: whom no EHR vouched for reaches no patient again."""
    patient_id = actor.patient_id if actor.ehr else NOBODY
    return replace(actor, emergency=None, emergency_until=None, patient_id=patient_id)


def live_sessions(
    tx: Connection, *, now: datetime, idle: timedelta, actor_id: str | None, limit: int
) -> list[LiveSession]:
    """Those in use, the newest first: of one person, or of everybody."""
    live = [session.c.expires_at > now, session.c.seen_at > now - idle]
    whose = [session.c.actor_id == actor_id] if actor_id is not None else []
    rows = tx.execute(select(session).where(*live, *whose).order_by(session.c.created_at.desc()).limit(limit))
    return [_live(row) for row in rows]


def get_live(tx: Connection, session_id: str, *, now: datetime) -> LiveSession:
    """Raises NotFound when it has ended."""
    row = tx.execute(select(session).where(session.c.id == session_id, session.c.expires_at > now)).one_or_none()
    if row is None:
        raise NotFound("there is no such session; it may have ended by itself")
    return _live(row)


def _live(row: Row[tuple[object, ...]]) -> LiveSession:
    return LiveSession(row.id, Actor.from_json(row.actor), row.created_at, row.seen_at, row.ehr_grant)


def change_actor(tx: Connection, session_id: str, actor: Actor) -> None:
    """What the person of a session may do from now on."""
    tx.execute(update(session).where(session.c.id == session_id).values(actor=actor.to_json()))


def end_session(tx: Connection, session_id: str) -> None:
    """With the phones that were handed over under its broken glass."""
    tx.execute(delete(session).where(session.c.id == session_id))
    end_phones_under_glass(tx, session_id)


def end_phones_under_glass(tx: Connection, session_id: str) -> None:
    """Those already opened, and the links to others."""
    for table in (session, handoff):
        tx.execute(delete(table).where(table.c.glass_of == session_id))
