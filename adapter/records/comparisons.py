"""Comparisons kept: what was found between two photos, and the pictures of it as sealed Binaries.

They can always be made again, so they are forgotten as soon as one of the photos changes its patient: with the rows go
the keys of the pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, Row, delete, insert, or_, select

from adapter.db.engine import batches
from adapter.db.tables import binary, blob, comparison


@dataclass(frozen=True)
class Comparison:
    """Photo `right` seen in the frame of photo `left`, by a version of the engine; `result` is JSON."""

    id: str
    left_media: str
    right_media: str
    engine: str
    result: dict[str, Any]

    @property
    def security_context(self) -> str:
        """Of its pictures."""
        return f"Comparison/{self.id}"


def find_comparison(tx: Connection, left_media: str, right_media: str, engine: str) -> Comparison | None:
    column = comparison.c
    pair = (column.left_media == left_media, column.right_media == right_media, column.engine == engine)
    return _read(tx.execute(select(comparison).where(*pair)).one_or_none())


def find_comparison_by_id(tx: Connection, comparison_id: str) -> Comparison | None:
    return _read(tx.execute(select(comparison).where(comparison.c.id == comparison_id)).one_or_none())


def comparisons_among(tx: Connection, pairs: Sequence[tuple[str, str]]) -> list[Comparison]:
    """The latest of each pair (left, right) that was compared."""
    wanted, column = set(pairs), comparison.c
    found: dict[tuple[str, str], Row[Any]] = {}
    for some in batches({left for left, _ in pairs}):
        rows = tx.execute(select(comparison).where(column.left_media.in_(some)).order_by(column.created_at, column.id))
        found |= {pair: row for row in rows if (pair := (row.left_media, row.right_media)) in wanted}
    return [one for row in found.values() if (one := _read(row))]


def keep_comparison(tx: Connection, kept: Comparison, *, at: datetime) -> None:
    """Raises IntegrityError when the same pair was kept meanwhile."""
    row = {**vars(kept), "result": orjson.dumps(kept.result).decode(), "created_at": at}
    tx.execute(insert(comparison), row)


def forget_comparisons(tx: Connection, media_ids: Iterable[str]) -> None:
    """Those of any of the photos, with the keys of their pictures; the bytes are swept by `dermbridge scrub`."""
    ids = list(media_ids)
    column = comparison.c
    concerned = or_(column.left_media.in_(ids), column.right_media.in_(ids))
    gone = list(tx.execute(delete(comparison).where(concerned).returning(column.id)).scalars())
    if not gone:
        return
    pictures = binary.c.security_context.in_([f"Comparison/{one}" for one in gone])
    blobs = list(tx.execute(delete(binary).where(pictures).returning(binary.c.blob_id)).scalars())
    saved = select(binary.c.blob_id).where(binary.c.blob_id.in_(blobs))  # pictures of a comparison that somebody saved
    tx.execute(delete(blob).where(blob.c.id.in_(blobs), blob.c.id.not_in(saved)))


def _read(row: Row[Any] | None) -> Comparison | None:
    if row is None:
        return None
    return Comparison(row.id, row.left_media, row.right_media, row.engine, orjson.loads(row.result))
