"""The photos whose patient is not settled, oldest first. They have an index of their own, so a look never grows with
the archive."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, func, select

from adapter.db.tables import WAITING, media
from adapter.records import Stored, find_where
from adapter.records.extraction import token_value
from mappings.terms import IDENTITY_STATE

STATES = ("unidentified", "quarantined", "awaiting-patient")
COUNTED = 1000
"""Counting stops here: nobody needs to know more of a worklist than that it is long."""


def unmatched_photos(tx: Connection, states: Sequence[str], *, after: str | None, limit: int) -> list[Stored]:
    """In the order in which they came (ids rise with time), from the one after `after`."""
    later = [media.c.id > after] if after else []
    found = [
        one
        for state in states
        for one in find_where(
            tx, "Media", WAITING, media.c.identity_state == _token(state), *later, order_by=media.c.id, limit=limit
        )
    ]
    return sorted(found, key=lambda one: one.id)[:limit]


def count_unmatched(tx: Connection) -> dict[str, int]:
    """State -> photos, at most `COUNTED` each."""
    counts = {}
    for state in STATES:
        some = select(media.c.id).where(WAITING, media.c.identity_state == _token(state), media.c.deleted.is_(False))
        counts[state] = tx.execute(select(func.count()).select_from(some.limit(COUNTED).subquery())).scalar_one()
    return counts


def _token(state: str) -> str:
    return token_value(state, IDENTITY_STATE)
