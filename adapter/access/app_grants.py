"""What a person granted to an app: one row from the authorization code to the last refresh token.

The code works once, for a minute; each refresh token once, for the next one. Whoever comes with one that was used
before ends the grant with all its tokens, since one of the two is a thief (RFC 9700 sections 2.1.1 and 4.14). Unless it
is offline, a grant ends with the session it was given in. Codes and tokens are kept as their SHA-256.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Connection, Row, insert, select, update

from adapter.access.actor import Actor
from adapter.access.tokens import digest, grant_in_force
from adapter.db.tables import app_grant
from adapter.errors import NotFound
from adapter.records import new_id

CODE_LIFETIME = timedelta(minutes=1)
_REFRESH_PREFIX = "dbr_"


@dataclass(frozen=True)
class AppGrant:
    """`actor` is the person, confined to the patient of the launch, without scopes of their own; `scope` as granted.

    `request` is what the code must come back to: redirect_uri, code_challenge, nonce.
    """

    id: str
    client_id: str
    actor: Actor
    scope: str
    session_id: str
    is_offline: bool
    request: dict[str, Any]
    created_at: datetime
    expires_at: datetime

    @property
    def scopes(self) -> frozenset[str]:
        return frozenset(self.scope.split())


def give_code(
    tx: Connection,
    *,
    client_id: str,
    actor: Actor,
    scope: str,
    session_id: str,
    is_offline: bool,
    request: dict[str, Any],
    at: datetime,
    expires_at: datetime,
) -> str:
    """The authorization code of a new grant."""
    code = secrets.token_urlsafe(32)
    row = {
        "id": new_id(),
        "client_id": client_id,
        "actor": actor.to_json(),
        "actor_id": actor.id,
        "session_id": session_id,
        "is_offline": is_offline,
        "scope": scope,
        "request": orjson.dumps(request).decode(),
        "code_sha256": digest(code),
        "created_at": at,
        "expires_at": expires_at,
    }
    tx.execute(insert(app_grant), row)
    return code


def take_code(tx: Connection, code: str, *, at: datetime) -> tuple[AppGrant | None, AppGrant | None]:
    """(the grant whose code this is, the grant that has just ended because its code came again)."""
    mine = app_grant.c.code_sha256 == digest(code)
    taken = update(app_grant).where(mine, app_grant.c.code_used_at.is_(None), grant_in_force(at))
    fresh = taken.where(app_grant.c.created_at > at - CODE_LIFETIME).values(code_used_at=at)
    if tx.execute(fresh).rowcount == 1:
        return _grant(tx.execute(select(app_grant).where(mine)).one()), None
    return None, _end(tx, at, mine, app_grant.c.code_used_at.is_not(None))


def new_refresh_token(tx: Connection, grant_id: str) -> str:
    """The first; `rotate` gives those that follow."""
    token = f"{_REFRESH_PREFIX}{grant_id}.{secrets.token_urlsafe(32)}"
    tx.execute(update(app_grant).where(app_grant.c.id == grant_id).values(refresh_sha256=digest(token)))
    return token


def rotate(
    tx: Connection, token: str, *, client_id: str, at: datetime
) -> tuple[tuple[AppGrant, str] | None, AppGrant | None]:
    """((grant, next refresh token), None), or (None, the grant that has just ended: it was used before)."""
    grant_id = _grant_id_of(token)
    mine = app_grant.c.id == grant_id, app_grant.c.client_id == client_id, app_grant.c.refresh_sha256.is_not(None)
    following = f"{_REFRESH_PREFIX}{grant_id}.{secrets.token_urlsafe(32)}"
    is_current = app_grant.c.refresh_sha256 == digest(token)
    fresh = update(app_grant).where(*mine, is_current, grant_in_force(at))
    if tx.execute(fresh.values(refresh_sha256=digest(following))).rowcount == 1:
        return (_grant(tx.execute(select(app_grant).where(*mine)).one()), following), None
    return None, _end(tx, at, *mine, ~is_current)


def leave_visit(tx: Connection, grant: AppGrant) -> AppGrant:
    """The grant without the visit of its launch, from now on."""
    actor = replace(grant.actor, encounter_id=None)
    tx.execute(update(app_grant).where(app_grant.c.id == grant.id).values(actor=actor.to_json()))
    return replace(grant, actor=actor)


def find_refreshable(tx: Connection, token: str, *, now: datetime) -> AppGrant | None:
    """The grant whose refresh token in force this is."""
    this = app_grant.c.refresh_sha256 == digest(token), app_grant.c.id == _grant_id_of(token)
    row = tx.execute(select(app_grant).where(*this, grant_in_force(now))).one_or_none()
    return _grant(row) if row else None


def client_of(tx: Connection, token: str) -> str | None:
    """Whose refresh token this is or was, by the grant that it names; it proves nothing."""
    return tx.execute(select(app_grant.c.client_id).where(app_grant.c.id == _grant_id_of(token))).scalar()


def find_app_grant(tx: Connection, grant_id: str) -> AppGrant | None:
    """In force or not."""
    row = tx.execute(select(app_grant).where(app_grant.c.id == grant_id)).one_or_none()
    return _grant(row) if row else None


def get_live_grant(tx: Connection, grant_id: str, *, now: datetime) -> AppGrant:
    """Raises NotFound when it has ended."""
    row = tx.execute(select(app_grant).where(app_grant.c.id == grant_id, grant_in_force(now))).one_or_none()
    if row is None:
        raise NotFound("this app has no access any more; it may have ended by itself")
    return _grant(row)


def live_grants(tx: Connection, *, now: datetime, actor_id: str | None, limit: int) -> list[AppGrant]:
    """Those by which an app can act now, the newest first: of one person, or of everybody."""
    whose = [app_grant.c.actor_id == actor_id] if actor_id is not None else []
    used = app_grant.c.code_used_at.is_not(None)
    found = select(app_grant).where(used, grant_in_force(now), *whose).order_by(app_grant.c.id.desc()).limit(limit)
    return [_grant(row) for row in tx.execute(found)]


def end_grant(tx: Connection, grant_id: str, *, at: datetime) -> None:
    """All its tokens are of no use from now on."""
    _end(tx, at, app_grant.c.id == grant_id)


def end_grants_of_session(tx: Connection, session_id: str, *, at: datetime) -> None:
    """When somebody ends a session on purpose, apps that would go on without it end as well."""
    mine = app_grant.c.session_id == session_id, app_grant.c.ended_at.is_(None)
    tx.execute(update(app_grant).where(*mine).values(ended_at=at))


def end_grants_under_glass(tx: Connection, session_id: str, until: datetime, *, at: datetime) -> None:
    """When the glass is mended before its time, what ends with it (app_launch.launched) ends now."""
    mine = app_grant.c.session_id == session_id, app_grant.c.ended_at.is_(None)
    tx.execute(update(app_grant).where(*mine, app_grant.c.expires_at <= until).values(ended_at=at))


def _end(tx: Connection, at: datetime, *which: Any) -> AppGrant | None:
    """The one grant that this ended; None when there is none such in force."""
    row = tx.execute(select(app_grant).where(*which, app_grant.c.ended_at.is_(None))).one_or_none()
    if row is None:
        return None
    tx.execute(update(app_grant).where(app_grant.c.id == row.id).values(ended_at=at))
    return _grant(row)


def _grant_id_of(token: str) -> str:
    return token.removeprefix(_REFRESH_PREFIX).partition(".")[0][:36]


def _grant(row: Row[Any]) -> AppGrant:
    return AppGrant(
        row.id,
        row.client_id,
        Actor.from_json(row.actor),
        row.scope,
        row.session_id,
        row.is_offline,
        orjson.loads(row.request),
        row.created_at,
        row.expires_at,
    )
