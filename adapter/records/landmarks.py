"""Points that somebody marked in two photos so that they can be laid over each other: who, when, and until when.

Nothing else knows them, so they are kept when the comparison made from them is forgotten, and stay readable when they
are taken back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, insert, select, update

from adapter.db.tables import landmarks

Pair = tuple[tuple[float, float], tuple[float, float]]
"""(x, y) in the left and in the right photo, upright and at full resolution."""


@dataclass(frozen=True)
class Landmarks:
    """`placed_by` is the reference of who did it (Practitioner/x), `placed_by_display` their name."""

    id: str
    left_media: str
    right_media: str
    points: tuple[Pair, ...]
    placed_by: str
    placed_by_display: str
    placed_at: datetime

    def as_json(self) -> dict[str, Any]:
        """What a comparison made from them says about them."""
        points = [[list(ours), list(theirs)] for ours, theirs in self.points]
        return {"points": points, "by": self.placed_by_display, "at": self.placed_at.isoformat()}


def find_landmarks(tx: Connection, left_media: str, right_media: str) -> Landmarks | None:
    """Those that hold now, whichever of the two was the left one when they were placed."""
    for left, right in ((left_media, right_media), (right_media, left_media)):
        column = landmarks.c
        row = tx.execute(select(landmarks).where(*_pair(left, right), column.removed_at.is_(None))).one_or_none()
        if row is not None:
            points = [(tuple(ours), tuple(theirs)) for ours, theirs in orjson.loads(row.points)]
            ordered = points if left == left_media else [(theirs, ours) for ours, theirs in points]
            who = (row.placed_by, row.placed_by_display, row.placed_at)
            return Landmarks(row.id, left_media, right_media, tuple(ordered), *who)
    return None


def keep_landmarks(tx: Connection, placed: Landmarks) -> None:
    """Instead of those that held before."""
    remove_landmarks(tx, placed.left_media, placed.right_media, by=placed.placed_by, at=placed.placed_at)
    tx.execute(insert(landmarks), {**vars(placed), "points": orjson.dumps(placed.points).decode()})


def remove_landmarks(tx: Connection, left_media: str, right_media: str, *, by: str, at: datetime) -> bool:
    """Whether there were any."""
    gone = 0
    for pair in ((left_media, right_media), (right_media, left_media)):
        change = update(landmarks).where(*_pair(*pair), landmarks.c.removed_at.is_(None))
        gone += tx.execute(change.values(removed_by=by, removed_at=at)).rowcount
    return gone > 0


def _pair(left: str, right: str) -> tuple[Any, ...]:
    return landmarks.c.left_media == left, landmarks.c.right_media == right
