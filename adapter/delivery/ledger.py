"""What pages and commands show of the deliveries. Every read is bounded by what it returns, not by the archive."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, or_, select

from adapter.bridge import Bridge
from adapter.db.tables import delivery, delivery_attempt
from adapter.delivery.outbox import DeliveryState, destination_names

S = DeliveryState
UNSENT = (S.PENDING, S.SENDING, S.UNKNOWN, S.WITHHELD, S.HELD, S.FAILED)
COUNTED = 1000  # a count stops here: `COUNTED` means that many or more

After = tuple[datetime, str]


@dataclass(frozen=True)
class Page:
    """Newest first; `next_after` asks for the following page, None when there is none."""

    rows: list[Row[Any]]
    next_after: After | None


@dataclass(frozen=True)
class DestinationCount:
    """Deliveries of one destination by state (at most `COUNTED` each), and when its oldest unsent one was made."""

    destination: str
    counts: dict[str, int]
    oldest_unsent: datetime | None


def list_deliveries(
    tx: Connection,
    bridge: Bridge,
    *,
    destination: str | None = None,
    state: str | None = None,
    after: After | None = None,
    limit: int = 50,
) -> Page:
    """Deliveries by creation time, newest first, of one destination and one state or of any."""
    if destination is None and state is None:
        rows = _newest(tx, [], after, limit + 1)
    else:  # one index range for each pair, merged
        pairs = [
            (d, s)
            for d in ([destination] if destination else destination_names(bridge))
            for s in ([state] if state else S)
        ]
        found = [
            row
            for d, s in pairs
            for row in _newest(tx, [delivery.c.destination == d, delivery.c.state == s], after, limit + 1)
        ]
        rows = sorted(found, key=lambda row: (row.created_at, row.id), reverse=True)[: limit + 1]
    last = rows[limit - 1] if len(rows) > limit else None
    return Page(rows[:limit], (last.created_at, last.id) if last else None)


def _newest(tx: Connection, conditions: list[ColumnElement[bool]], after: After | None, limit: int) -> list[Row[Any]]:
    c = delivery.c
    if after is not None:
        at, delivery_id = after
        conditions = [
            *conditions,
            c.created_at <= at,
            or_(c.created_at < at, and_(c.created_at == at, c.id < delivery_id)),
        ]
    ordered = select(delivery).where(*conditions).order_by(c.created_at.desc(), c.id.desc())
    return list(tx.execute(ordered.limit(limit)))


def count_deliveries(tx: Connection, bridge: Bridge) -> list[DestinationCount]:
    """One entry for each configured destination."""
    return [
        DestinationCount(name, {s.value: n for s in S if (n := _count(tx, name, s))}, _oldest_unsent(tx, name))
        for name in destination_names(bridge)
    ]


def _count(tx: Connection, destination: str, state: DeliveryState) -> int:
    some = select(delivery.c.id).where(delivery.c.destination == destination, delivery.c.state == state).limit(COUNTED)
    return int(tx.execute(select(func.count()).select_from(some.subquery())).scalar_one())


def _oldest_unsent(tx: Connection, destination: str) -> datetime | None:
    c = delivery.c
    firsts = [
        tx.execute(
            select(c.created_at).where(c.destination == destination, c.state == s).order_by(c.created_at).limit(1)
        ).scalar_one_or_none()
        for s in UNSENT
    ]
    return min((first for first in firsts if first is not None), default=None)


def attempts_of(tx: Connection, delivery_id: str) -> list[Row[Any]]:
    """What was tried for one delivery, oldest first."""
    c = delivery_attempt.c
    return list(tx.execute(select(delivery_attempt).where(c.delivery_id == delivery_id).order_by(c.id)))
