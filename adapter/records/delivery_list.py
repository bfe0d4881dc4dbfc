"""Reading the ledger of deliveries for people: a page of it, and how each destination stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, select

from adapter.db.tables import delivery, delivery_attempt, work

OPEN_STATES = ("pending", "sending", "unknown", "accepted", "withheld", "held", "failed", "retracting")


@dataclass(frozen=True)
class Standing:
    """How many deliveries of a destination are in a state that is not final, and since when the oldest is."""

    destination: str
    state: str
    count: int
    oldest_at: datetime


def page_of_deliveries(
    tx: Connection,
    *,
    patient_ids: frozenset[str] | None = None,
    destination: str | None = None,
    state: str | None = None,
    before: str | None = None,
    count: int = 50,
) -> tuple[list[Row[Any]], str | None]:
    """(rows newest first, id to continue before). Ids rise with the time of creation."""
    conditions: list[ColumnElement[bool]] = [] if patient_ids is None else [delivery.c.patient.in_(patient_ids)]
    conditions += [delivery.c.destination == destination] if destination else []
    conditions += [delivery.c.state == state] if state else []
    conditions += [delivery.c.id < before] if before else []
    rows = list(tx.execute(select(delivery).where(*conditions).order_by(delivery.c.id.desc()).limit(count + 1)))
    return rows[:count], rows[count - 1].id if len(rows) > count else None


def standings(tx: Connection) -> list[Standing]:
    """Only what is not final is counted: that stays few, however long the ledger grows."""
    columns = (delivery.c.destination, delivery.c.state, func.count(), func.min(delivery.c.created_at))
    grouped = select(*columns).where(delivery.c.state.in_(OPEN_STATES)).group_by(*columns[:2])
    return [Standing(row[0], str(row[1]), row[2], row[3]) for row in tx.execute(grouped)]


def attempts_of(tx: Connection, delivery_ids: Sequence[str]) -> dict[str, int]:
    columns = (delivery_attempt.c.delivery_id, func.count())
    grouped = select(*columns).where(delivery_attempt.c.delivery_id.in_(delivery_ids)).group_by(columns[0])
    return {row[0]: row[1] for row in tx.execute(grouped)}


def next_tries(tx: Connection, delivery_ids: Sequence[str]) -> dict[str, datetime]:
    """When the work that waits for each delivery is due."""
    keys = {f"deliver:{one}": one for one in delivery_ids}
    statement = select(work.c.idempotency_key, work.c.due_at).where(
        work.c.idempotency_key.in_(keys), work.c.state == "waiting"
    )
    return {keys[row[0]]: row[1] for row in tx.execute(statement)}
