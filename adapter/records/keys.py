"""The three levels of keys: key-encryption keys wrap patient keys, patient keys wrap the data key of each object.

A wrapped key is bytes fit for a database column, all numbers big-endian:

    under a key-encryption key   0x01, version (4 bytes), nonce (12), AES-256-GCM of the key (32 + tag 16) = 65 bytes
    under a patient key          0x02,                    nonce (12), AES-256-GCM of the key (32 + tag 16) = 61 bytes

The associated data is what stands before the nonce, then the context in UTF-8: the patient key's id, or the object's
id. So a wrapped key moved to another row does not unwrap. Nonces are random; one key may wrap 2^32 times
(NIST SP 800-38D section 8.3). Nothing here logs a key, and no repr shows one.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from adapter.errors import DermBridgeError
from adapter.records.key_source import KeySource, find_key_source

KEY_SIZE = 32
NONCE_SIZE = 12
_RING_PREFIX = struct.Struct(">BI")
_RING_FORMAT = 1
_PATIENT_PREFIX = b"\x02"


class UnwrapFailed(DermBridgeError):
    """A wrapped key does not open: it was altered, stands in the wrong row, or its wrapping key is not here."""


class KeyWrapper(Protocol):
    """What a KMS or a vault must offer to take the place of `KeyRing`."""

    def wrap(self, key: bytes, context: str) -> bytes: ...

    def unwrap(self, wrapped: bytes, context: str) -> bytes:
        """Raises UnwrapFailed."""
        ...


class KeyRing:
    """The versioned key-encryption keys; the newest wraps, all unwrap."""

    def __init__(self, source: KeySource) -> None:
        self._source = source
        self._use(source.load())

    def __repr__(self) -> str:
        return f"<KeyRing versions {sorted(self._ciphers)}, keys hidden>"

    @property
    def version(self) -> int:
        """Of the key that wraps now."""
        return max(self._ciphers)

    def wrap(self, key: bytes, context: str) -> bytes:
        version = self.version
        return _wrap(self._ciphers[version], _RING_PREFIX.pack(_RING_FORMAT, version), key, context)

    def unwrap(self, wrapped: bytes, context: str) -> bytes:
        version = wrapped_version(wrapped)
        if version not in self._ciphers:
            self._use(self._source.load())  # another process may have rotated
        if version not in self._ciphers:
            raise UnwrapFailed(
                f"Key-encryption key version {version} is not in {self._source.where}; restore it from the backup "
                "of the keys."
            )
        return _unwrap(self._ciphers[version], _RING_PREFIX.size, wrapped, context)

    def rotate(self) -> int:
        """Add a new version, durable before it is used, and give its number.

        Then re-wrap every patient key whose `wrapped_version` is older; the objects stay as they are. Raises
        Misconfigured when the keys come from the environment, where only an operator can add one.
        """
        self._use(self._source.add())
        return self.version

    def derive_secret(self, purpose: str) -> bytes:
        """32 bytes that every process with these keys derives alike, until a rotation; for short-lived seals."""
        return HKDF(hashes.SHA256(), KEY_SIZE, salt=None, info=purpose.encode()).derive(self._newest)

    def _use(self, keys: dict[int, bytes]) -> None:
        self._ciphers = {version: AESGCM(key) for version, key in keys.items()}
        self._newest = keys[max(keys)]


def open_key_ring(data_dir: Path, *, data_exists: bool, environ: Mapping[str, str]) -> KeyRing:
    """The ring of this installation; see `find_key_source` for where its keys come from.

    Raises Misconfigured when the key file is open to others, unreadable, or missing while `data_exists`.
    """
    return KeyRing(find_key_source(data_dir, data_exists=data_exists, environ=environ))


class PatientKey:
    """The key of one patient; wraps the data keys of that patient's objects."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self._cipher = AESGCM(key)

    def __repr__(self) -> str:
        return "<PatientKey hidden>"

    def wrap(self, key: bytes, context: str) -> bytes:
        return _wrap(self._cipher, _PATIENT_PREFIX, key, context)

    def unwrap(self, wrapped: bytes, context: str) -> bytes:
        return _unwrap(self._cipher, len(_PATIENT_PREFIX), wrapped, context)


def new_patient_key() -> PatientKey:
    """A random key; keep only `ring.wrap(patient_key.key, patient_key_id)`."""
    return PatientKey(secrets.token_bytes(KEY_SIZE))


def wrapped_version(wrapped: bytes) -> int:
    """The version of the key-encryption key that wrapped this; tells which rows a rotation has yet to re-wrap."""
    if len(wrapped) < _RING_PREFIX.size or wrapped[0] != _RING_FORMAT:
        raise UnwrapFailed("This is not a key wrapped under a key-encryption key; restore its database row.")
    version: int = _RING_PREFIX.unpack_from(wrapped)[1]
    return version


def _wrap(cipher: AESGCM, prefix: bytes, key: bytes, context: str) -> bytes:
    if len(key) != KEY_SIZE:
        raise ValueError(f"Only keys of {KEY_SIZE} bytes are wrapped.")
    nonce = secrets.token_bytes(NONCE_SIZE)
    return prefix + nonce + cipher.encrypt(nonce, key, prefix + context.encode())


def _unwrap(cipher: AESGCM, prefix_size: int, wrapped: bytes, context: str) -> bytes:
    body = prefix_size + NONCE_SIZE
    try:
        return cipher.decrypt(wrapped[prefix_size:body], wrapped[body:], wrapped[:prefix_size] + context.encode())
    except (InvalidTag, ValueError):  # ValueError: cut so short that no nonce is left
        raise UnwrapFailed(
            f"The wrapped key of {context} does not open: it was altered, belongs to another row, or was wrapped "
            "under another key. Restore the row, or the keys that were in use with it."
        ) from None
