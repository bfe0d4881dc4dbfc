"""Opening every photo on disk with its key, as a reader would, and tidying what a crash left behind.

Authenticated decryption (AES-GCM) sees any change of a byte, and proves what a checksum cannot: the keys fit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import select

from adapter.db.engine import Database
from adapter.db.tables import blob
from adapter.errors import NotFound
from adapter.records.blob_store import BlobStore, LocalBlobStore
from adapter.records.keys import UnwrapFailed
from adapter.records.sealing import DamagedBlob
from adapter.records.vault import Vault

_PAGE = 500
ORPHAN_AGE = timedelta(hours=1)  # younger bytes may belong to a transaction that is still open


@dataclass
class Findings:
    """`problems` are (blob id, what is wrong); `removed` counts bytes no row owned."""

    checked: int = 0
    removed: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)


def scrub(db: Database, vault: Vault, *, now: datetime) -> Findings:
    """Open every blob and read it to its end, in pages, in constant memory."""
    findings, after = Findings(), ""
    while True:
        with db.snapshot() as tx:
            rows = tx.execute(
                select(blob.c.id, blob.c.size).where(blob.c.id > after).order_by(blob.c.id).limit(_PAGE)
            ).all()
        if not rows:
            break
        for row in rows:
            findings.checked += 1
            if problem := _problem(db, vault, row.id, row.size):
                findings.problems.append((row.id, problem))
        after = rows[-1].id
    findings.removed = _remove_orphans(db, vault.store, now - ORPHAN_AGE)
    return findings


def _problem(db: Database, vault: Vault, blob_id: str, size: int) -> str | None:
    try:
        with db.snapshot() as tx:
            opened = vault.open(tx, blob_id)
        found = sum(map(len, opened.iter_chunks()))
    except NotFound:  # or destroyed on purpose since this page was read
        with db.snapshot() as tx:
            is_owned = tx.execute(select(blob.c.id).where(blob.c.id == blob_id)).first() is not None
        return "its bytes are missing; restore them from the backup" if is_owned else None
    except DamagedBlob:
        return "its bytes were altered; restore them from the backup"
    except UnwrapFailed:
        return "its key does not open; restore its rows (blob, patient_key) or the key file from the backup"
    return None if found == size else "it has another length than when it was written; restore it from the backup"


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
