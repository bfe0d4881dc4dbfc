"""What was sent to a destination lately, counted in the database so that all workers share its allowance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import and_, delete, or_, select

from adapter.db.engine import Database, insert_or
from adapter.db.tables import allowance
from connectors.contract import Grant, Rule, Tally
from connectors.pace import grant

PAUSE: Final = (0, 0)  # span and number of the row whose `used` is the second until which nobody shall ask


class SharedTally(Tally):
    """The tally of one route of one destination. Rows older than any rule go as others come: a few per rule."""

    def __init__(self, db: Database, destination: str) -> None:
        self._db = db
        self._destination = destination

    def take(self, rules: Sequence[Rule], now: float, weight: int, wanted: int) -> Grant:
        """Count it in one short transaction."""
        a = allowance.c
        mine = a.destination == self._destination
        with self._db.transaction() as tx:
            self._db.lock(tx, f"allowance:{self._destination}")
            rows = tx.execute(select(a.span, a.number, a.used).where(mine)).all()
            slots = {(row.span, row.number): row.used for row in rows}
            paused_until = slots.pop(PAUSE, 0)
            if now < paused_until:
                return Grant(0, paused_until - now)
            given = grant(rules, slots, now, weight, wanted)
            if given.granted:
                oldest = {rule.span: now - rule.seconds - rule.span for rule in rules}
                stale = [and_(a.span == span, a.number < since // span) for span, since in oldest.items()]
                tx.execute(delete(allowance).where(mine, or_(*stale)))
                for span in oldest:
                    self._add(tx, (span, int(now // span)), given.granted)
        return given

    def pause(self, until: float) -> None:
        with self._db.transaction() as tx:
            row = {"destination": self._destination, "span": PAUSE[0], "number": PAUSE[1], "used": int(until) + 1}
            upsert = insert_or(tx.dialect.name, allowance).values(row)
            keys = [allowance.c.destination, allowance.c.span, allowance.c.number]
            tx.execute(upsert.on_conflict_do_update(index_elements=keys, set_={"used": row["used"]}))

    def _add(self, tx: Any, slot: tuple[int, int], count: int) -> None:
        row = {"destination": self._destination, "span": slot[0], "number": slot[1], "used": count}
        upsert = insert_or(tx.dialect.name, allowance).values(row)
        keys = [allowance.c.destination, allowance.c.span, allowance.c.number]
        tx.execute(upsert.on_conflict_do_update(index_elements=keys, set_={"used": allowance.c.used + count}))
