"""A destination that is down is left alone for a while: one circuit for each, in the database, so that every worker and
every page sees the same.

Closed: no row. After `FAILURES` outages in a row it opens; while open, deliveries wait without being tried. When the
time is over one delivery goes ahead as a probe: its success closes the circuit, another outage opens it for longer.
"""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, delete, func, select, update

from adapter.db.engine import insert_or
from adapter.db.tables import circuit

LEFT_ALONE: Final = "the destination is left alone"  # how the reasons of what waits begin
STOPPED: Final = "the destination is stopped"
FAILURES: Final = 5
SHORTEST: Final = timedelta(seconds=30)
LONGEST: Final = timedelta(minutes=15)
PROBE: Final = timedelta(seconds=60)  # how long others wait for the outcome of a probe
HELD_LOOK: Final = timedelta(minutes=15)  # how often what waits for a stopped destination is looked at


def wait_until(tx: Connection, row: Row[Any], *, at: datetime) -> datetime | None:
    """When to come again; None: go ahead now, as the probe if the circuit (a row of `find_circuit`) was open."""
    if row.held is not None:
        return at + HELD_LOOK
    open_until: datetime | None = row.open_until
    if open_until is None or open_until > at:
        return open_until
    c = circuit.c
    still_open = (c.destination == row.destination, c.open_until == open_until)
    mine = tx.execute(update(circuit).where(*still_open).values(open_until=at + PROBE))
    return None if mine.rowcount == 1 else at + PROBE


def note_outage(tx: Connection, destination: str, reason: str, *, at: datetime) -> None:
    """The destination could not be reached, or broke off."""
    c = circuit.c
    first = {"destination": destination, "failures": 1, "reason": reason, "began_at": at, "updated_at": at}
    began_at = func.coalesce(c.began_at, bindparam("now", at, c.began_at.type))
    again = {"failures": c.failures + 1, "reason": reason, "began_at": began_at, "updated_at": at}
    upsert = insert_or(tx.dialect.name, circuit).values(first)
    counted = upsert.on_conflict_do_update(index_elements=[c.destination], set_=again).returning(c.failures)
    failures: int = tx.execute(counted).scalar_one()
    if failures >= FAILURES:
        wait = min(SHORTEST * 2 ** min(failures - FAILURES, 10), LONGEST)
        tx.execute(update(circuit).where(c.destination == destination).values(open_until=at + wait))


def note_answer(tx: Connection, destination: str) -> None:
    """The destination answered, whatever it said: the circuit is closed, but what a person stopped stays stopped."""
    mine = circuit.c.destination == destination
    tx.execute(delete(circuit).where(mine, circuit.c.held.is_(None)))
    tx.execute(update(circuit).where(mine).values(failures=0, open_until=None, reason=None, began_at=None))


def set_held(tx: Connection, destination: str, because: str | None, *, at: datetime) -> None:
    """Stop a destination, or (None) let it go on."""
    c = circuit.c
    values = {"destination": destination, "failures": 0, "held": because, "updated_at": at}
    upsert = insert_or(tx.dialect.name, circuit).values(values)
    again = {"held": because, "updated_at": at}
    tx.execute(upsert.on_conflict_do_update(index_elements=[c.destination], set_=again))
    tx.execute(delete(circuit).where(c.destination == destination, c.held.is_(None), c.failures == 0))


_OF_DESTINATION = select(circuit).where(circuit.c.destination == bindparam("asked"))


def find_circuit(tx: Connection, destination: str) -> Row[Any] | None:
    """The row of a destination that had outages or was stopped: failures, reason, began_at, open_until, held."""
    return tx.execute(_OF_DESTINATION, {"asked": destination}).one_or_none()


def circuits(tx: Connection) -> list[Row[Any]]:
    """Every destination with outages since it last answered."""
    return list(tx.execute(select(circuit).order_by(circuit.c.destination)))


def how_it_stands(row: Row[Any] | None, zone: tzinfo) -> str:
    """How a destination (a row of `find_circuit`) stands, for people."""
    if row is None:
        return "no outages"
    until = row.open_until and row.open_until.astimezone(zone)
    told = (
        f"stopped: {row.held}" if row.held else "",
        f"outages in a row: {row.failures}" if row.failures else "",
        f"left alone until {until:%H:%M:%S}" if until else "",
    )
    return ", ".join(filter(None, told))
