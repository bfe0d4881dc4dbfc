"""How many ADT messages wait for a person, and since when: for the engineer's page and for metrics."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, func, select

from adapter.db.tables import adt_message

WAITING = ("queued", "refused")


def waiting_messages(tx: Connection) -> list[tuple[str, int, datetime]]:
    """(state, messages, received_at of the oldest) for each state that waits for a person."""
    columns = (adt_message.c.state, func.count(), func.min(adt_message.c.received_at))
    counted = select(*columns).where(adt_message.c.state.in_(WAITING)).group_by(adt_message.c.state)
    return [(row[0], row[1], row[2]) for row in tx.execute(counted)]
