"""Reading every photo on disk against its checksums, without keys, and tidying what a crash left behind."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import select

from adapter.db.engine import Database
from adapter.db.tables import blob
from adapter.errors import NotFound
from adapter.records.blob_store import BlobStore, LocalBlobStore
from adapter.records.vault import Vault

_STEP = 4 * 2**20
_PAGE = 500
ORPHAN_AGE = timedelta(hours=1)  # younger bytes may belong to a transaction that is still open


@dataclass
class Findings:
    """`problems` are (blob id, what is wrong); `removed` counts bytes no row owned."""

    checked: int = 0
    removed: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)


def scrub(db: Database, vault: Vault, *, now: datetime) -> Findings:
    """Compare the cipher text of every blob with its SHA-256, in pages, in constant memory."""
    findings, after = Findings(), ""
    while True:
        with db.snapshot() as tx:
            rows = tx.execute(
                select(blob.c.id, blob.c.cipher_size, blob.c.cipher_sha256)
                .where(blob.c.id > after)
                .order_by(blob.c.id)
                .limit(_PAGE)
            ).all()
        if not rows:
            break
        for row in rows:
            findings.checked += 1
            if problem := _problem(vault.store, row.id, row.cipher_size, row.cipher_sha256):
                findings.problems.append((row.id, problem))
        after = rows[-1].id
    findings.removed = _remove_orphans(db, vault.store, now - ORPHAN_AGE)
    return findings


def _problem(store: BlobStore, blob_id: str, size: int, sha256: str) -> str | None:
    digest = hashlib.sha256()
    try:
        for start in range(0, size, _STEP):
            digest.update(store.read_range(blob_id, start, min(start + _STEP, size)))
        if store.size(blob_id) != size:
            return "it has another length than when it was written"
    except NotFound:
        return "its bytes are missing; restore them from the backup"
    return None if digest.hexdigest() == sha256 else "its bytes were altered; restore them from the backup"


def _remove_orphans(db: Database, store: BlobStore, older_than: datetime) -> int:
    removed, after = 0, ""
    youngest = _id_at(older_than)
    while ids := [one for one in store.list_ids(after, _PAGE) if one < youngest]:
        with db.snapshot() as tx:
            owned = {row.id for row in tx.execute(select(blob.c.id).where(blob.c.id.in_(ids)))}
        for orphan in set(ids) - owned:
            store.delete(orphan)
            removed += 1
        after = ids[-1]
    if isinstance(store, LocalBlobStore):
        removed += len(store.sweep(older_than))
    return removed


def _id_at(at: datetime) -> str:
    """The smallest UUIDv7 of that millisecond: ids sort by time."""
    stamp = f"{int(at.timestamp() * 1000):012x}"
    return f"{stamp[:8]}-{stamp[8:]}"
