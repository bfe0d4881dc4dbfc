"""Bearer tokens, of machines and of apps that act for a person: a random secret shown once, kept only as its SHA-256,
with scopes and an end. An app's is good while what the person granted is (access.app_grants)."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    exists,
    insert,
    or_,
    select,
    update,
)

from adapter.access.actor import Actor
from adapter.access.policy import still_granted
from adapter.access.scopes import RIGHT, parse_scopes
from adapter.db.tables import access_token, app_grant, session
from adapter.errors import BadInput, NotFound
from adapter.records import new_id

PREFIX = "dbt_"


def digest(secret: str) -> str:
    """How any secret of ours is looked up: never stored, never compared in the clear."""
    return hashlib.sha256(secret.encode()).hexdigest()


def grant_in_force(now: datetime | BindParameter[datetime]) -> ColumnElement[bool]:
    """Whether what a person granted to an app holds: not ended, and its session neither, unless it is offline."""
    signed_in = exists().where(session.c.id == app_grant.c.session_id, session.c.expires_at > now)
    ended = app_grant.c.ended_at.is_not(None) | (app_grant.c.expires_at <= now)
    return and_(~ended, or_(app_grant.c.is_offline, signed_in))


_BY_SECRET: Select[Any] = (
    select(
        *access_token.c,
        app_grant.c.actor,
        grant_in_force(bindparam("now", type_=app_grant.c.expires_at.type)).label("is_granted"),
    )
    .outerjoin(app_grant, app_grant.c.id == access_token.c.grant_id)
    .where(access_token.c.secret_sha256 == bindparam("digest"))
)


def issue_token(
    tx: Connection,
    *,
    name: str,
    scope: str,
    at: datetime,
    lifetime: timedelta | None = None,
    client_id: str | None = None,
) -> tuple[str, str]:
    """(token id, secret). The secret cannot be read again. Raises BadInput for a scope no machine may have."""
    scopes = parse_scopes(scope)
    if foreign := [one for one in sorted(scopes) if not one.startswith(("system/", "right/"))]:
        raise BadInput(f"'{foreign[0]}' is a scope of people in a chart; write for example system/Media.cr")
    return _insert(tx, name, scopes, at, lifetime, client_id=client_id)


def issue_app_token(
    tx: Connection,
    *,
    name: str,
    scopes: frozenset[str],
    at: datetime,
    lifetime: timedelta,
    client_id: str,
    grant_id: str,
) -> str:
    """The secret of a token by which an app acts for the person of that grant."""
    return _insert(tx, name, scopes, at, lifetime, client_id=client_id, grant_id=grant_id)[1]


def _insert(
    tx: Connection, name: str, scopes: frozenset[str], at: datetime, lifetime: timedelta | None, **owner: str | None
) -> tuple[str, str]:
    token_id, secret = new_id(), PREFIX + secrets.token_urlsafe(32)
    row = {
        "id": token_id,
        "secret_sha256": digest(secret),
        "name": name[:100],
        **owner,
        "scope": " ".join(sorted(scopes)),
        "created_at": at,
        "expires_at": at + lifetime if lifetime else None,
    }
    tx.execute(insert(access_token), row)
    return token_id, secret


def revoke_token(tx: Connection, token_id: str, *, at: datetime) -> None:
    """Raises NotFound when there is no such token in force."""
    changed = tx.execute(
        update(access_token)
        .where(access_token.c.id == token_id, access_token.c.revoked_at.is_(None))
        .values(revoked_at=at)
    )
    if changed.rowcount != 1:
        raise NotFound(f"there is no token {token_id} in force; `dermbridge token list` shows them")


def tokens_in_force(tx: Connection, *, now: datetime) -> list[dict[str, Any]]:
    """Every token that still opens something, the oldest first; never a secret."""
    table = access_token.c
    alive = table.revoked_at.is_(None), or_(table.expires_at.is_(None), table.expires_at > now)
    granted = or_(table.grant_id.is_(None), grant_in_force(now))
    shown = table.id, table.name, table.client_id, table.scope, table.created_at, table.expires_at
    found = select(*shown).outerjoin(app_grant, app_grant.c.id == table.grant_id).where(*alive, granted)
    return [dict(row._mapping) for row in tx.execute(found.order_by(table.created_at))]


def find_token_row(tx: Connection, secret: str, *, now: datetime) -> Row[Any] | None:
    """The token in force with this secret; None when it is unknown, expired or revoked, or its grant has ended."""
    row = tx.execute(_BY_SECRET, {"digest": digest(secret), "now": now}).one_or_none()
    if row is None or row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
        return None
    return row if row.grant_id is None or row.is_granted else None


def find_token_actor(tx: Connection, secret: str, *, now: datetime) -> Actor | None:
    """Who acts with a bearer secret, or None when it is not in force: a machine, or a person through an app."""
    row = find_token_row(tx, secret, now=now)
    if row is None:
        return None
    if row.grant_id is not None:
        person = Actor.from_json(row.actor)
        return replace(person, scopes=still_granted(row.scope, person.role), token_id=row.id)
    return Actor(
        kind="machine",
        id=row.client_id or f"Device/{row.id}",
        display=row.name,
        role="machine",
        scopes=frozenset(one for one in row.scope.split() if not RIGHT.match(one)),
        rights=frozenset(found[1] for one in row.scope.split() if (found := RIGHT.match(one))),
        token_id=row.id,
    )
