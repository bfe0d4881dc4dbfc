"""How the log stands: what is sealed, what waits for its seal and since when, and how far each repository was told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from adapter.db.tables import audit_event, audit_feed, audit_tail
from adapter.governance.signing import Head
from adapter.governance.tree import find_head

MANY = 10_000  # counted no further


@dataclass(frozen=True)
class Standing:
    """`waiting` events (at most MANY counted) have no signed head yet, the oldest `waiting_since`; `feeds`: name ->
    events not yet told."""

    head: Head | None
    waiting: int
    waiting_since: datetime | None
    feeds: dict[str, int]


def standing(tx: Connection) -> Standing:
    some = select(audit_tail.c.event_id).limit(MANY).subquery()
    waiting = tx.execute(select(func.count()).select_from(some)).scalar_one()
    oldest = select(func.min(audit_tail.c.event_id)).scalar_subquery()
    since = tx.execute(select(audit_event.c.date).where(audit_event.c.id == oldest)).scalar_one_or_none()
    head = find_head(tx)
    size = head.tree_size if head else 0
    feeds = {row.name: size - row.next_seq for row in tx.execute(select(audit_feed).order_by(audit_feed.c.name))}
    return Standing(head, waiting, since, feeds)
