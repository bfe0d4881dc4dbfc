"""What waits for a destination that is back need not wait for its own time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, and_, or_, update

from adapter.db.tables import work


def hasten(tx: Connection, kind: str, destination: str, *, because: Sequence[str], at: datetime) -> int:
    """Make due now what waits for a destination for one of these reasons (how they begin); returns how many.

    Oldest first: what is due at one time is claimed in the order in which it was enqueued.
    """
    waits = and_(work.c.destination == destination, work.c.state == "waiting", work.c.kind == kind, work.c.due_at > at)
    reasons = or_(*(work.c.reason.startswith(each, autoescape=True) for each in because))
    return tx.execute(update(work).where(waits, reasons).values(due_at=at)).rowcount
