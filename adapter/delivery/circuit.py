"""A destination that is down is left alone for a while: one circuit for each, in the database, so that every worker and
every page sees the same.

Closed: no row. After `FAILURES` outages in a row it opens; while open, deliveries wait without being tried. When the
time is over one delivery goes ahead as a probe: its success closes the circuit, another outage opens it for longer.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, insert, select, update

from adapter.db.tables import circuit

FAILURES: Final = 5
SHORTEST: Final = timedelta(seconds=30)
LONGEST: Final = timedelta(minutes=15)
PROBE: Final = timedelta(seconds=60)  # how long others wait for the outcome of a probe


def wait_until(tx: Connection, destination: str, *, at: datetime) -> datetime | None:
    """When to come again; None: go ahead now, as the probe if the circuit was open."""
    row = find_circuit(tx, destination)
    if row is None or row.open_until is None:
        return None
    if row.open_until > at:
        return row.open_until  # type: ignore[no-any-return]
    c = circuit.c
    mine = tx.execute(
        update(circuit)
        .where(c.destination == destination, c.open_until == row.open_until)
        .values(open_until=at + PROBE)
    )
    return None if mine.rowcount == 1 else at + PROBE


def note_outage(tx: Connection, destination: str, reason: str, *, at: datetime) -> None:
    """The destination could not be reached, or broke off."""
    row = find_circuit(tx, destination)
    failures = row.failures + 1 if row else 1
    values = {"failures": failures, "reason": reason, "updated_at": at, "open_until": _open_until(failures, at)}
    if row is None:
        tx.execute(insert(circuit).values(destination=destination, **values))
    else:
        tx.execute(update(circuit).where(circuit.c.destination == destination).values(values))


def note_answer(tx: Connection, destination: str) -> None:
    """The destination answered, whatever it said."""
    tx.execute(delete(circuit).where(circuit.c.destination == destination))


def find_circuit(tx: Connection, destination: str) -> Row[Any] | None:
    """The row of a destination that had outages: failures, reason, open_until, updated_at."""
    return tx.execute(select(circuit).where(circuit.c.destination == destination)).one_or_none()


def circuits(tx: Connection) -> list[Row[Any]]:
    """Every destination with outages since it last answered."""
    return list(tx.execute(select(circuit).order_by(circuit.c.destination)))


def _open_until(failures: int, at: datetime) -> datetime | None:
    if failures < FAILURES:
        return None
    return at + min(SHORTEST * 2 ** min(failures - FAILURES, 10), LONGEST)
