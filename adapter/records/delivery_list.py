"""Reading the ledger of deliveries for people: a page of it, and how each destination stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, select

from adapter.db.tables import delivery, delivery_attempt, work
from adapter.records.ids import first_id
from adapter.records.paging import Cursor, SortKey, fetch

COUNTED = 10_000  # and "10,000 or more" beyond
TIMED = 200
CAUSES_OF = 1000
PACE_SPAN = timedelta(minutes=10)
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
    """What is not final, by destination and state; each counted up to `COUNTED`, by one range of an index."""
    c, standing = delivery.c, []
    for destination, state in product(destinations, OPEN_STATES):
        here = (c.destination == destination, c.state == state)
        if (count := _counted(tx, select(c.id).where(*here))) > 0:
            oldest = select(c.created_at).where(*here).order_by(c.id).limit(1)
            standing.append(Standing(destination, state, count, tx.execute(oldest).scalar_one()))
    return standing


def confirmed_since(tx: Connection, destinations: Sequence[str], since: datetime) -> dict[str, int]:
    """Per destination, how many deliveries begun since then are in the chart, up to `COUNTED`."""
    c, begun = delivery.c, delivery.c.id >= first_id(since)
    counts = {
        name: _counted(tx, select(c.id).where(c.destination == name, c.state == "confirmed", begun))
        for name in destinations
    }
    return {name: count for name, count in counts.items() if count}


def _counted(tx: Connection, wanted: Select[Any]) -> int:
    """How many, but no more than `COUNTED`: what a person is told must not cost more with every photo ever sent."""
    return int(tx.execute(select(func.count()).select_from(wanted.limit(COUNTED).subquery())).scalar_one())


@dataclass(frozen=True)
class Pace:
    """What a destination took lately: photos a minute over the last `PACE_SPAN`, and of its last confirmed ones the
    seconds from their order to the chart, half and nineteen of twenty of them (None: none yet)."""

    per_minute: float
    median_seconds: float | None
    p95_seconds: float | None


def pace_of(tx: Connection, destination: str, at: datetime) -> Pace:
    """Read from ix_delivery_accepted, newest first."""
    c, here = delivery.c, delivery.c.destination == destination
    lately = _counted(tx, select(c.id).where(here, c.accepted_at > at - PACE_SPAN))
    newest = select(c.created_at, c.confirmed_at).where(here, c.accepted_at.is_not(None))
    rows = tx.execute(newest.order_by(c.accepted_at.desc()).limit(TIMED)).all()
    took = sorted((row.confirmed_at - row.created_at).total_seconds() for row in rows if row.confirmed_at)
    per_minute = lately / (PACE_SPAN.total_seconds() / 60)
    return Pace(per_minute, took[len(took) // 2] if took else None, took[len(took) * 19 // 20] if took else None)


@dataclass(frozen=True)
class Cause:
    """Why deliveries failed, what to do, and for how many of the newest `CAUSES_OF`."""

    reason: str
    remedy: str
    count: int


def causes(tx: Connection, destination: str) -> list[Cause]:
    """Of what failed at a destination, the most frequent first."""
    c = delivery.c
    failed = select(c.reason, c.remedy).where(c.destination == destination, c.state == "failed")
    rows = tx.execute(failed.order_by(c.id.desc()).limit(CAUSES_OF))
    counted = Counter((row.reason or "", row.remedy or "") for row in rows)
    return [Cause(reason, remedy, count) for (reason, remedy), count in counted.most_common()]


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
