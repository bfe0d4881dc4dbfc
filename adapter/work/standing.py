"""How the work stands: queue lengths by kind and state, and the dead letters; only unfinished work has rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select

from adapter.db.tables import work
from adapter.errors import NotFound


@dataclass(frozen=True)
class Queue:
    """`oldest_due_at`: since when the first of them could have been done."""

    kind: str
    state: str
    count: int
    oldest_due_at: datetime


def queues(tx: Connection) -> list[Queue]:
    """One line per kind and state (waiting, leased, dead) that has any."""
    columns = (work.c.kind, work.c.state, func.count(), func.min(work.c.due_at))
    rows = tx.execute(select(*columns).group_by(work.c.state, work.c.kind))
    return sorted((Queue(*row) for row in rows), key=lambda one: (one.kind, one.state))


def waiting(tx: Connection, kind: str, destination: str) -> int:
    """How much is neither begun nor dead."""
    here = (work.c.state == "waiting", work.c.kind == kind, work.c.destination == destination)
    return int(tx.execute(select(func.count()).where(*here)).scalar_one())


def dead_letters(tx: Connection, *, after: int = 0, count: int = 50) -> tuple[list[Row[Any]], int | None]:
    """(rows with id, kind, destination, attempts, reason, remedy, created_at, oldest first; id to continue after)."""
    wanted = select(work).where(work.c.state == "dead", work.c.id > after).order_by(work.c.id).limit(count + 1)
    rows = list(tx.execute(wanted))
    return rows[:count], rows[count - 1].id if len(rows) > count else None


def find_dead_reason(tx: Connection, idempotency_key: str) -> str | None:
    """Why this will not be done by itself; None when it may still be, or was."""
    of_key = (work.c.idempotency_key == idempotency_key, work.c.state == "dead")
    return tx.execute(select(work.c.reason).where(*of_key)).scalar_one_or_none()


def get_dead_letter(tx: Connection, work_id: int) -> Row[Any]:
    """Raises NotFound."""
    row = tx.execute(select(work).where(work.c.id == work_id, work.c.state == "dead")).one_or_none()
    if row is None:
        raise NotFound("this work is not dead any more; look at the list again")
    return row
