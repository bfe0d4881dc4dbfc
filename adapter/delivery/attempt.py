"""One attempt of a delivery: the step under way, and what the ledgers keep of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection

from adapter.bridge import Bridge
from adapter.db.many_rows import insert_rows
from adapter.db.tables import delivery_attempt
from adapter.delivery.circuit import LEFT_ALONE, note_answer
from adapter.delivery.orders import Order
from adapter.delivery.outbox import DeliveryState, begin, mark
from adapter.work import Work, hasten
from connectors.contract import Receipt

S = DeliveryState
LEAVING = frozenset({S.PENDING, S.SENDING, S.UNKNOWN})
T = TypeVar("T")


@dataclass
class Attempt:
    """The step under way, for the record of attempts."""

    bridge: Bridge
    work: Work
    order: Order
    was_down: bool = False  # there were outages since the destination last answered
    action: str = "open"
    started_at: datetime | None = None
    ended_at: datetime | None = None
    begun: bool = False  # the ledger says that it is being sent
    taken_back: bool = False  # unseen, in case it had arrived

    def step(self, action: str, call: Callable[[], T]) -> T:
        self.action, self.started_at, self.ended_at = action, self.bridge.now(), None
        found = call()
        self.ended_at = self.bridge.now()
        return found

    def note(self, tx: Connection, outcome: str, detail: str | None = None) -> None:
        insert_rows(tx, delivery_attempt, [self.told(outcome, detail)])

    def told(self, outcome: str, detail: str | None = None) -> dict[str, Any]:
        """A row of delivery_attempt."""
        ended_at = self.ended_at or self.bridge.now()
        return {
            "delivery_id": self.order.row.id,
            "action": self.action,
            "started_at": self.started_at or ended_at,
            "ended_at": ended_at,
            "outcome": outcome,
            "detail": detail,
        }

    def answered(self, tx: Connection) -> None:
        if self.was_down:
            note_answer(tx, self.order.row.destination)
            hasten(tx, "deliver", self.order.row.destination, because=(LEFT_ALONE,), at=self.bridge.now())

    @property
    def leaves(self) -> bool:
        """Whether it is to be sent, or may have been; else there is a receipt for it already."""
        return self.order.state in LEAVING

    @property
    def is_ready(self) -> bool:
        """Whether it may be tried now: what is to leave must be known to, before it does."""
        return self.begun or not self.leaves

    def begin(self, tx: Connection) -> bool:
        """Say that it is being sent, if it is still ours and as it was found; `begun` once that is durable."""
        return self.leaves and begin(tx, self.order.row.id, self.order.state, self.work, at=self.bridge.now())

    def mark(self, tx: Connection, state: DeliveryState, **values: Any) -> None:
        mark(tx, self.order.row.id, state, at=self.bridge.now(), **values)


Arrived = list[tuple[Attempt, Receipt]]
