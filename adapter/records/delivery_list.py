"""Reading the ledger of deliveries for people: a page of it, and how each destination stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, select

from adapter.db.tables import delivery, delivery_attempt, work
from adapter.records.ids import first_id
from adapter.records.paging import Cursor, SortKey, fetch

OPEN_STATES = ("pending", "sending", "unknown", "accepted", "withheld", "held", "failed", "retracting")


_NEWEST_FIRST = (SortKey(delivery.c.id, True),)


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
    destinations: Sequence[str] = (),
    states: Sequence[str] = (),
    before: str | None = None,
    count: int = 50,
) -> tuple[list[Row[Any]], str | None]:
    """(rows newest first, id to continue before). Ids rise with the time of creation.

    A filter by destination and state is read combination by combination, each a range of one index; so both are named
    in full: every destination there is, when only a state was asked for.
    """
    conditions: list[ColumnElement[bool]] = [] if patient_ids is None else [delivery.c.patient.in_(patient_ids)]
    if patient_ids is not None:
        conditions += [delivery.c.destination.in_(destinations)] if destinations else []
        conditions += [delivery.c.state.in_(states)] if states else []
    branches = [
        and_(delivery.c.destination == destination, delivery.c.state == state)
        for destination, state in product(destinations, states)
        if patient_ids is None
    ]
    statement = select(delivery).where(*conditions, *branches[: len(branches) == 1])
    cursor = Cursor((before,)) if before else None
    rows, more = fetch(tx, statement, _NEWEST_FIRST, cursor, count=count, branches=branches)
    return rows, rows[-1].id if more else None


def standings(tx: Connection, destinations: Sequence[str]) -> list[Standing]:
    """Only what is not final is counted: that stays few, however long the ledger grows."""
    columns = (delivery.c.destination, delivery.c.state, func.count(), func.min(delivery.c.id))
    named = delivery.c.destination.in_(destinations)  # without it no index serves the states
    grouped = select(*columns).where(named, delivery.c.state.in_(OPEN_STATES)).group_by(*columns[:2])
    open_ones = tx.execute(grouped).all()
    created = select(delivery.c.id, delivery.c.created_at).where(delivery.c.id.in_([row[3] for row in open_ones]))
    oldest = {row[0]: row[1] for row in tx.execute(created)}
    return [Standing(row[0], str(row[1]), row[2], oldest[row[3]]) for row in open_ones]


def confirmed_since(tx: Connection, destinations: Sequence[str], since: datetime) -> dict[str, int]:
    """Per destination, how many deliveries begun since then are in the chart: a range of one index each."""
    columns = (delivery.c.destination, func.count())
    grouped = select(*columns).where(
        delivery.c.destination.in_(destinations), delivery.c.state == "confirmed", delivery.c.id >= first_id(since)
    )
    return {row[0]: row[1] for row in tx.execute(grouped.group_by(delivery.c.destination))}


def sends_of(tx: Connection, delivery_ids: Sequence[str]) -> dict[str, int]:
    """How often each was sent; looks and read-backs are no tries."""
    columns = (delivery_attempt.c.delivery_id, func.count())
    sent = delivery_attempt.c.delivery_id.in_(delivery_ids), delivery_attempt.c.action == "send"
    return {row[0]: row[1] for row in tx.execute(select(*columns).where(*sent).group_by(columns[0]))}


def next_tries(tx: Connection, delivery_ids: Sequence[str]) -> dict[str, datetime]:
    """When the work that waits for each delivery is due."""
    keys = {f"deliver:{one}": one for one in delivery_ids}
    statement = select(work.c.idempotency_key, work.c.due_at).where(
        work.c.idempotency_key.in_(keys), work.c.state == "waiting"
    )
    return {keys[row[0]]: row[1] for row in tx.execute(statement)}
