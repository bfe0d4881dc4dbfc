"""FHIR Binary as rows over blobs: a Binary is the whole of a blob or a clean view of it, never a second copy.

The right to a Binary is the right to its `security_context`, which the caller decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, select

from adapter.db.many_rows import insert_rows
from adapter.db.tables import binary
from adapter.errors import NotFound
from adapter.records.clean_view import CleanView, Keep
from adapter.records.sealing import OpenBlob
from adapter.records.vault import SealedBlob, Vault, iter_range

POSTED = "posted"  # by a client, part of no record of ours: never mistaken for the picture of the one it names


@dataclass(frozen=True)
class BinaryRow:
    """Measures are of the bytes served, not of the blob behind them. `clean_view` None: the whole blob."""

    id: str
    blob_id: str
    content_type: str
    size: int
    sha256: str
    security_context: str
    created_at: datetime
    clean_view: str | None = None
    rendition: str | None = None


@dataclass(frozen=True)
class OpenBinary:
    """Bytes ready to be sent: `iter(start, stop)` gives [start, stop) in pieces, also after the transaction."""

    content_type: str
    size: int
    iter: Callable[[int, int], Iterator[bytes]]

    def read(self) -> bytes:
        return b"".join(self.iter(0, self.size))


def whole_blob(
    sealed: SealedBlob, *, binary_id: str, content_type: str, security_context: str, at: datetime
) -> BinaryRow:
    """The row of a Binary that is all of a sealed blob."""
    return BinaryRow(binary_id, sealed.id, content_type, sealed.size, sealed.sha256, security_context, at)


_ROWS = select(*(binary.c[name] for name in BinaryRow.__dataclass_fields__))
_BY_ID = _ROWS.where(binary.c.id == bindparam("binary_id"))
_BY_IDS = _ROWS.where(binary.c.id.in_(bindparam("binary_ids", expanding=True)))
_OF_CONTEXT = _ROWS.where(binary.c.security_context == bindparam("context")).order_by(binary.c.id.desc()).limit(1)
_LATEST = _OF_CONTEXT.where(binary.c.rendition == bindparam("rendition"))
_LATEST_CLEAN = _OF_CONTEXT.where(binary.c.rendition.is_(None))


def create_binary(tx: Connection, row: BinaryRow) -> BinaryRow:
    """Store the row; its blob must be kept in the same transaction or before."""
    insert_rows(tx, binary, [vars(row)])
    return row


def get_binary(tx: Connection, binary_id: str) -> BinaryRow:
    """Raises NotFound."""
    row = tx.execute(_BY_ID, {"binary_id": binary_id}).one_or_none()
    if row is None:
        raise NotFound(f"there is no Binary/{binary_id}")
    return BinaryRow(**row._mapping)


def find_binaries(tx: Connection, binary_ids: Iterable[str]) -> dict[str, BinaryRow]:
    """Those of at most `engine.BATCH` ids that are there, by id."""
    rows = tx.execute(_BY_IDS, {"binary_ids": list(binary_ids)})
    return {row.id: BinaryRow(**row._mapping) for row in rows}


def find_rendition(tx: Connection, security_context: str, rendition: str | None) -> BinaryRow | None:
    """The latest Binary of that kind for a record; `rendition` None: the clean copy itself."""
    asked = {"context": security_context, "rendition": rendition}
    row = tx.execute(_LATEST_CLEAN if rendition is None else _LATEST, asked).one_or_none()
    return None if row is None else BinaryRow(**row._mapping)


def open_binary(tx: Connection, vault: Vault, row: BinaryRow) -> OpenBinary:
    """Raises NotFound when the bytes or their key were destroyed."""
    return opened_binary(vault.open(tx, row.blob_id), row)


def opened_binary(blob: OpenBlob, row: BinaryRow) -> OpenBinary:
    """The Binary as a view of its blob."""
    if row.clean_view is None:
        return OpenBinary(row.content_type, row.size, lambda start, stop: iter_range(blob, start, stop))
    view = CleanView.from_json(row.clean_view)

    def clean(start: int, stop: int) -> Iterator[bytes]:
        for segment in view.ranges(start, stop):
            if isinstance(segment, Keep):
                yield from iter_range(blob, segment.offset, segment.offset + segment.length)
            else:
                yield segment.read(b"")

    return OpenBinary(row.content_type, view.size, clean)
