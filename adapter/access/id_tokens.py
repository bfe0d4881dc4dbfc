"""id_tokens for apps (OpenID Connect Core section 2), signed RS256 with a key that every process of ours shares.

The key is made on first use and kept in the database, sealed under a key that the key-encryption keys wrap.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from joserfc import jwt
from joserfc.jwk import RSAKey
from sqlalchemy import Connection, insert, select

from adapter.access.actor import Actor
from adapter.access.app_grants import AppGrant
from adapter.access.tokens import digest
from adapter.bridge import Bridge
from adapter.db.tables import id_token_key

ALGORITHM = "RS256"
LIFETIME = timedelta(minutes=5)
_NEWEST = select(id_token_key).order_by(id_token_key.c.created_at.desc()).limit(1)


def subject_of(actor: Actor) -> str:
    """Who somebody is, the same for every app and never another's; also the id of their Practitioner here."""
    return digest(actor.id)[:32]


def fhir_user(bridge: Bridge, actor: Actor) -> str:
    """On our own server, so that no app takes our token elsewhere to read it."""
    return f"{bridge.settings.base_url}/fhir/Practitioner/{subject_of(actor)}"


def id_token(bridge: Bridge, grant: AppGrant) -> str:
    """Who granted it, for the app alone."""
    at = bridge.now()
    claims: dict[str, Any] = {
        "iss": bridge.settings.base_url,
        "sub": subject_of(grant.actor),
        "aud": grant.client_id,
        "iat": int(at.timestamp()),
        "exp": int((at + LIFETIME).timestamp()),
    }
    claims |= {"nonce": grant.request["nonce"]} if grant.request.get("nonce") else {}
    claims |= {"fhirUser": fhir_user(bridge, grant.actor)} if "fhirUser" in grant.scopes else {}
    key = _signing_key(bridge)
    return jwt.encode({"alg": ALGORITHM, "kid": key.kid}, claims, key, algorithms=[ALGORITHM])


def published_keys(bridge: Bridge) -> list[dict[str, Any]]:
    """Entries of our key set; none before the first id_token."""
    with bridge.db.snapshot() as tx:
        key = _find_key(tx, bridge)
    return [key.as_dict(private=False) | {"use": "sig", "alg": ALGORITHM}] if key else []


def _signing_key(bridge: Bridge) -> RSAKey:
    with bridge.db.snapshot() as tx:
        if key := _find_key(tx, bridge):
            return key
    made = RSAKey.generate_key(2048)
    key_id, sealing = made.thumbprint(), secrets.token_bytes(32)
    nonce, pem = secrets.token_bytes(12), made.as_pem(private=True)
    with bridge.db.transaction() as tx:
        bridge.db.lock(tx, "id_token_key")
        if key := _find_key(tx, bridge):  # another process was first
            return key
        row = {
            "id": key_id,
            "wrapped_key": bridge.vault.wrap_secret(sealing, key_id),
            "sealed": nonce + AESGCM(sealing).encrypt(nonce, pem, key_id.encode()),
            "created_at": bridge.now(),
        }
        tx.execute(insert(id_token_key), row)
    return RSAKey.import_key(pem, {"kid": key_id})


def _find_key(tx: Connection, bridge: Bridge) -> RSAKey | None:
    row = tx.execute(_NEWEST).one_or_none()
    if row is None:
        return None
    cipher = AESGCM(bridge.vault.unwrap_secret(row.wrapped_key, row.id))
    return RSAKey.import_key(cipher.decrypt(row.sealed[:12], row.sealed[12:], row.id.encode()), {"kid": row.id})
