"""Signed heads: what the log was at a moment, in a statement of five lines that anybody can check (Ed25519, RFC 8032).

The private key is made on first use and kept in the database, wrapped under the key-encryption keys.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import Connection, insert, select

from adapter.bridge import Bridge
from adapter.db.tables import audit_key
from adapter.errors import BadInput
from mappings.fhir_time import fhir_instant


@dataclass(frozen=True)
class Head:
    """The first `tree_size` leaves, by their tree and their chain."""

    tree_size: int
    root_hash: bytes
    chain_hash: bytes
    signed_at: datetime
    key_id: str = ""
    signature: bytes = b""

    @property
    def statement(self) -> bytes:
        """What is signed."""
        hashes = (self.root_hash.hex(), self.chain_hash.hex())
        lines = ("DermBridge audit log 1", str(self.tree_size), *hashes, fhir_instant(self.signed_at))
        return "".join(f"{line}\n" for line in lines).encode()

    def as_json(self) -> dict[str, Any]:
        """As it is noted outside and exported."""
        return {
            "tree_size": self.tree_size,
            "root_hash": self.root_hash.hex(),
            "chain_hash": self.chain_hash.hex(),
            "signed_at": fhir_instant(self.signed_at),
            "key_id": self.key_id,
            "signature": base64.b64encode(self.signature).decode(),
        }


def read_head(values: Any) -> Head:
    """A head as it was noted. Raises BadInput."""
    try:
        return Head(
            int(values["tree_size"]),
            bytes.fromhex(values["root_hash"]),
            bytes.fromhex(values["chain_hash"]),
            datetime.fromisoformat(values["signed_at"]),
            str(values["key_id"]),
            base64.b64decode(values["signature"]),
        )
    except (KeyError, TypeError, ValueError):
        raise BadInput("this is no head of an audit log; `dermbridge audit head` prints one") from None


@dataclass(frozen=True)
class PublicKey:
    """`id` is the SHA-256 of the 32 bytes of the key, in hex."""

    id: str
    raw: bytes

    @property
    def pem(self) -> bytes:
        key = Ed25519PublicKey.from_public_bytes(self.raw)
        return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def has_signed(self, head: Head) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(head.signature, head.statement)
        except (InvalidSignature, ValueError):
            return False
        return True


def sign(tx: Connection, bridge: Bridge, head: Head) -> Head:
    """`head` with the signature of the newest key; the first time, of a new one."""
    key_id, key = _signing_key(tx, bridge)
    unsigned = Head(head.tree_size, head.root_hash, head.chain_hash, head.signed_at)
    return Head(**{**vars(unsigned), "key_id": key_id, "signature": key.sign(unsigned.statement)})


def public_keys(tx: Connection) -> dict[str, PublicKey]:
    rows = tx.execute(select(audit_key.c.public_key))
    return {one.id: one for one in (_public(row.public_key) for row in rows)}


def _public(raw: bytes) -> PublicKey:
    return PublicKey(hashlib.sha256(raw).hexdigest(), raw)


def _signing_key(tx: Connection, bridge: Bridge) -> tuple[str, Ed25519PrivateKey]:
    newest = select(audit_key).order_by(audit_key.c.created_at.desc()).limit(1)
    row = tx.execute(newest).one_or_none()
    if row is not None:
        return row.id, Ed25519PrivateKey.from_private_bytes(bridge.vault.unwrap_secret(row.wrapped_key, row.id))
    key = Ed25519PrivateKey.generate()
    public = _public(key.public_key().public_bytes_raw())
    values = {
        "id": public.id,
        "public_key": public.raw,
        "wrapped_key": bridge.vault.wrap_secret(key.private_bytes_raw(), public.id),
        "created_at": bridge.now(),
    }
    tx.execute(insert(audit_key), values)
    return public.id, key
