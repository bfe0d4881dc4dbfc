"""A session lasts as long as the EHR's: its refresh token is kept sealed and asked for again when its time is over.

Scope `online_access`: when the user signs off in the EHR, the EHR refuses, and the session here ends as well. Refresh
tokens rotate, so each is used once: whoever claims the row asks, everybody else goes on meanwhile.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, update

from adapter.access.oauth import exchange, post_as
from adapter.access.sessions import end_session
from adapter.access.smart import EhrGrant, get_ehr, lifetime_of, registration_of
from adapter.bridge import Bridge
from adapter.db.tables import session
from adapter.errors import Forbidden, Misconfigured, Unavailable

_PURPOSE = "ehr grants"
_CLAIMED_FOR = timedelta(seconds=30)
_RETRY_AFTER = timedelta(minutes=1)


def seal(bridge: Bridge, grant: EhrGrant) -> bytes:
    """For the session's row: neither a copy of the database nor a backup lets anybody into the EHR."""
    nonce = secrets.token_bytes(12)
    return nonce + _cipher(bridge).encrypt(nonce, orjson.dumps(asdict(grant)), _PURPOSE.encode())


def unseal(bridge: Bridge, sealed: bytes) -> EhrGrant | None:
    """None when it was sealed with another key."""
    try:
        values: dict[str, Any] = orjson.loads(_cipher(bridge).decrypt(sealed[:12], sealed[12:], _PURPOSE.encode()))
    except InvalidTag:
        return None
    return EhrGrant(**{**values, "expires_at": datetime.fromisoformat(values["expires_at"])})


def keep_alive(
    bridge: Bridge, http: httpx.Client, session_id: str, sealed: bytes, *, ended: Callable[[Connection], None]
) -> bool:
    """Whether the EHR still stands behind this session; False when it has just been ended for that.

    `ended` is called in that transaction, to tell it in the audit log.
    """
    grant = unseal(bridge, sealed)
    if grant is None or grant.expires_at > bridge.now():
        return True
    claimed = seal(bridge, replace(grant, expires_at=bridge.now() + _CLAIMED_FOR))
    if not _swap(bridge, session_id, sealed, claimed):
        return True
    try:
        renewed = _refresh(bridge, http, grant)
    except Unavailable:
        renewed = replace(grant, expires_at=bridge.now() + _RETRY_AFTER)
    except Forbidden:
        with bridge.db.transaction() as tx:
            end_session(tx, session_id)
            ended(tx)
        return False
    _swap(bridge, session_id, claimed, seal(bridge, renewed))
    return True


def revoke(bridge: Bridge, http: httpx.Client, sealed: bytes | None) -> None:
    """Logging out tells the EHR that the refresh token is of no use any more (RFC 7009); it need not be reachable."""
    grant = unseal(bridge, sealed) if sealed is not None else None
    if grant is None or grant.revocation_endpoint is None:
        return
    registration = registration_of(bridge, get_ehr(bridge, grant.iss))
    form = {"token": grant.refresh_token, "token_type_hint": "refresh_token"}
    with suppress(httpx.HTTPError, Misconfigured):
        post_as(http, registration, grant.revocation_endpoint, form, audience=grant.token_endpoint, now=bridge.now())


def _refresh(bridge: Bridge, http: httpx.Client, grant: EhrGrant) -> EhrGrant:
    registration = registration_of(bridge, get_ehr(bridge, grant.iss))
    form = {"grant_type": "refresh_token", "refresh_token": grant.refresh_token}
    answer = exchange(http, registration, {"token_endpoint": grant.token_endpoint}, form, bridge.now())
    rotated = answer.get("refresh_token")
    return replace(
        grant,
        refresh_token=rotated if isinstance(rotated, str) else grant.refresh_token,
        expires_at=bridge.now() + lifetime_of(answer),
    )


def _swap(bridge: Bridge, session_id: str, old: bytes, new: bytes) -> bool:
    """Whether the grant was still `old`, and is now `new`."""
    with bridge.db.transaction() as tx:
        same = session.c.id == session_id, session.c.ehr_grant == old
        return tx.execute(update(session).where(*same).values(ehr_grant=new)).rowcount == 1


def _cipher(bridge: Bridge) -> AESGCM:
    return AESGCM(bridge.vault.derive_secret(_PURPOSE)[:32])
