"""Photos at rest: sealed bytes in the blob store, their wrapped keys and measures in the database.

Bytes are made durable first (`seal`), then the rows that own them commit with everything else (`keep`); a crash between
the two leaves an orphan that `dermbridge scrub` removes. Key hierarchy: docs/blob-format.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from adapter.db.engine import batches
from adapter.db.many_rows import insert_rows
from adapter.db.tables import blob, patient_key
from adapter.errors import NotFound, Unavailable
from adapter.records.blob_store import BlobStore, StoredBlob
from adapter.records.ids import new_id
from adapter.records.keys import KeyRing, PatientKey, new_patient_key
from adapter.records.sealing import OpenBlob, open_sealed, seal


@dataclass(frozen=True)
class SealedBlob:
    """Bytes that are durable in the store but not yet owned by a row."""

    id: str
    data_key: bytes
    size: int
    sha256: str

    def __repr__(self) -> str:
        return f"SealedBlob({self.id}, {self.size} bytes)"


class Sealing:
    """Bytes on their way to the disk, beside whatever else is done with them meanwhile."""

    def __init__(self, vault: Vault, data: bytes, threads: Executor) -> None:
        self._vault, self._id, self._size = vault, new_id(), len(data)
        self._written = threads.submit(vault.write, data, self._id)
        self.is_taken = False

    def wait(self) -> None:
        """Until the bytes are durable. Raises Unavailable."""
        self._written.result()

    def take(self, sha256: str) -> SealedBlob:
        """For a row to own; from now on only `scrub` deletes them, since nobody knows whether a commit came through."""
        self.is_taken = True
        return SealedBlob(self._id, self._written.result(), self._size, sha256)

    def discard(self) -> None:
        wait([self._written])
        with suppress(Unavailable):  # then they are an orphan, which scrub removes
            self._vault.store.delete(self._id)


class Vault:
    """Blob store, key ring and their two tables as one thing."""

    def __init__(self, store: BlobStore, keys: KeyRing) -> None:
        self.store = store
        self._keys = keys

    def seal(self, data: bytes, *, sha256: str | None = None) -> SealedBlob:
        """Encrypt and write `data` durably. `sha256` (hex) spares a pass over it, when the caller knows it."""
        blob_id = new_id()
        key = self.write(data, blob_id)
        return SealedBlob(blob_id, key, len(data), sha256 or hashlib.sha256(data).hexdigest())

    def write(self, data: bytes, blob_id: str) -> bytes:
        """Encrypt and write `data` durably; its data key."""
        sealed = seal(data, blob_id)
        self.store.write(blob_id, sealed)
        return sealed.data_key

    @contextmanager
    def sealing(self, data: bytes, threads: Executor) -> Iterator[Sealing]:
        """Seal `data` in one of `threads`; deleted again unless they are taken within."""
        begun = Sealing(self, data, threads)
        try:
            yield begun
        finally:
            if not begun.is_taken:
                begun.discard()

    def keep(
        self, tx: Connection, sealed: SealedBlob, *, content_type: str, patient_id: str | None, at: datetime
    ) -> str:
        """Own sealed bytes in this transaction, under the patient's key (a key of its own while nobody is known)."""
        key_id, key = self._patient_key(tx, patient_id, at)
        row = {
            "id": sealed.id,
            "patient_key_id": key_id,
            "wrapped_key": key.wrap(sealed.data_key, sealed.id),
            "content_type": content_type,
            "size": sealed.size,
            "sha256": sealed.sha256,
            "created_at": at,
        }
        insert_rows(tx, blob, [row])
        return sealed.id

    def open(self, tx: Connection, blob_id: str) -> OpenBlob:
        """Read access to the clear bytes, any range. Raises NotFound when the blob or its key was destroyed."""
        row = tx.execute(_WRAPPED_OF, {"asked": blob_id}).one_or_none()
        if row is None:
            raise NotFound(f"the bytes of {blob_id} are gone: their key was destroyed or they never existed")
        return self._opened(row)

    def openings(self, tx: Connection, blob_ids: Iterable[str]) -> dict[str, Callable[[], OpenBlob]]:
        """How to open each of at most `engine.BATCH` blobs later, without a database; destroyed ones are left out."""
        rows = tx.execute(_WRAPPED_OF_ALL, {"asked": list(blob_ids)})
        return {row.blob_id: partial(self._opened, row) for row in rows}

    def rekey(self, tx: Connection, blob_ids: Iterable[str], *, patient_id: str | None, at: datetime) -> None:
        """Put blobs under another patient's key (of their own for nobody); the bytes stay, destroyed ones stay so."""
        keys: dict[str, PatientKey] = {}
        key_id, key = self._patient_key(tx, patient_id, at)
        move = update(blob).where(blob.c.id == bindparam("rekeyed")).values(patient_key_id=key_id)
        for some in batches(blob_ids):
            rewrapped = []
            for row in tx.execute(_WRAPPED.where(blob.c.id.in_(some))):
                if row.id not in keys:
                    keys[row.id] = PatientKey(self._keys.unwrap(row.patient_wrapped, row.id))
                data_key = keys[row.id].unwrap(row.wrapped_key, row.blob_id)
                rewrapped.append({"rekeyed": row.blob_id, "wrapped_key": key.wrap(data_key, row.blob_id)})
            if rewrapped:
                tx.execute(move, rewrapped)

    def _opened(self, row: Any) -> OpenBlob:
        """`row` of `_WRAPPED`."""
        patient_key = PatientKey(self._keys.unwrap(row.patient_wrapped, row.id))
        data_key = patient_key.unwrap(row.wrapped_key, row.blob_id)
        return open_sealed(StoredBlob(self.store, row.blob_id), data_key, row.blob_id)

    def _patient_key(self, tx: Connection, patient_id: str | None, at: datetime) -> tuple[str, PatientKey]:
        if patient_id is not None:
            row = tx.execute(_FIRST_KEY, {"of": patient_id}).one_or_none()
            if row is not None:
                return row.id, PatientKey(self._keys.unwrap(row.wrapped_key, row.id))
        key_id, key = new_id(), new_patient_key()
        row_values = {
            "id": key_id,
            "patient": patient_id,
            "wrapped_key": self._keys.wrap(key.key, key_id),
            "created_at": at,
        }
        insert_rows(tx, patient_key, [row_values])
        return key_id, key

    def wrap_secret(self, secret: bytes, context: str) -> bytes:
        """32 bytes of ours, such as a signing key, fit for a database column."""
        return self._keys.wrap(secret, context)

    def unwrap_secret(self, wrapped: bytes, context: str) -> bytes:
        """Raises UnwrapFailed."""
        return self._keys.unwrap(wrapped, context)

    def derive_secret(self, purpose: str) -> bytes:
        return self._keys.derive_secret(purpose)


_FIRST_KEY = (
    select(patient_key.c.id, patient_key.c.wrapped_key)
    .where(patient_key.c.patient == bindparam("of"))
    .order_by(patient_key.c.id)
    .limit(1)
)
_WRAPPED = select(
    blob.c.id.label("blob_id"), blob.c.wrapped_key, patient_key.c.id, patient_key.c.wrapped_key.label("patient_wrapped")
).join(patient_key, patient_key.c.id == blob.c.patient_key_id)
_WRAPPED_OF = _WRAPPED.where(blob.c.id == bindparam("asked"))
_WRAPPED_OF_ALL = _WRAPPED.where(blob.c.id.in_(bindparam("asked", expanding=True)))


def iter_range(opened: OpenBlob, start: int, stop: int, step: int = 256 * 1024) -> Iterator[bytes]:
    """The bytes [start, stop) in pieces, for streaming answers in bounded memory."""
    while start < stop:
        end = min((start // step + 1) * step, stop)  # no chunk is decrypted for two pieces
        yield opened.read(start, end)
        start = end
