"""The `launch` of an EHR launch: from which chart somebody opened an app (SMART App Launch, EHR launch).

Sealed, for minutes, for who opened it: the app reads nothing in it, and nobody else can use it. It lets nobody in: it
names a patient, whom the person must be able to open, and whom the app then need not ask for.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from datetime import timedelta

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from adapter.access.actor import Actor
from adapter.access.id_tokens import subject_of
from adapter.bridge import Bridge

LIFETIME = timedelta(minutes=10)
_PURPOSE = "app launches"


def launch_word(bridge: Bridge, actor: Actor, patient_id: str) -> str:
    """Base64url."""
    nonce, at = secrets.token_bytes(12), bridge.now().timestamp()
    told = orjson.dumps([subject_of(actor), patient_id, at])
    return base64.urlsafe_b64encode(nonce + _cipher(bridge).encrypt(nonce, told, None)).decode()


def find_opened_chart(bridge: Bridge, word: str, actor: Actor) -> str | None:
    """The patient's id; None when the word is too old, another person's or none of ours."""
    try:
        sealed = base64.urlsafe_b64decode(word)
        subject, patient_id, at = orjson.loads(_cipher(bridge).decrypt(sealed[:12], sealed[12:], None))
    except (binascii.Error, ValueError, InvalidTag):
        return None
    is_fresh = bridge.now().timestamp() < at + LIFETIME.total_seconds()
    return str(patient_id) if is_fresh and subject == subject_of(actor) else None


def _cipher(bridge: Bridge) -> AESGCM:
    return AESGCM(bridge.vault.derive_secret(_PURPOSE))
