"""How the work loop does deliveries: in threads of each destination's own, a few at a time where it answers quickly,
none begun where it is left alone, and with a word in the ledger when an error of ours interrupts one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from sqlalchemy import Connection

from adapter.bridge import Bridge
from adapter.delivery.circuit import find_circuit
from adapter.delivery.deliver import QUICK_SECONDS, deliver, deliver_together
from adapter.delivery.destinations import Destinations, known_profiles
from adapter.delivery.outbox import DeliveryState, explain, get_delivery, mark
from adapter.work import Lane, Work

S = DeliveryState
AT_MOST: Final = 8  # in one round


def delivery_lane(bridge: Bridge, destinations: Destinations) -> Lane:
    """The lane of kind "deliver". Each claim is a commit of its own, so it takes more than the threads do at once."""
    threads, rounds = bridge.settings.worker_threads, Rounds(bridge, destinations)
    return Lane(
        partial(deliver, bridge, destinations),
        threads=threads,
        claims=AT_MOST * threads,
        together=rounds.deliver,
        at_a_time=rounds.at_a_time,
        room=partial(room, bridge),
        at_once=partial(at_once, bridge),
        set_aside=partial(note_defect, bridge),
    )


class Rounds:
    """Deliveries that share their commits: as many as a destination takes in `QUICK_SECONDS`.

    Where each takes longer than that, every delivery is a round of its own, as many at once as there are threads.
    """

    def __init__(self, bridge: Bridge, destinations: Destinations) -> None:
        self._bridge, self._destinations = bridge, destinations
        self._seconds: dict[str, float] = {}  # of one delivery in the last round, by destination

    def at_a_time(self, destination: str) -> int:
        each = self._seconds.get(destination, QUICK_SECONDS / 2)
        return max(1, min(AT_MOST, int(QUICK_SECONDS / each)))

    def deliver(self, items: Sequence[Work]) -> Sequence[Work]:
        """In as many rounds as it takes: what one did not begin is the next."""
        left = items
        while left:
            begun_at, given = time.monotonic(), len(left)
            left = deliver_together(self._bridge, self._destinations, left)
            self._seconds[items[0].destination] = (time.monotonic() - begun_at) / (given - len(left))
        return left


def room(bridge: Bridge, destination: str) -> int | None:
    """How many deliveries may be begun: none while it is left alone or stopped, then one to try it, else any number.

    So what waits there is not even looked at, however much it is.
    """
    with bridge.db.snapshot() as tx:
        row = find_circuit(tx, destination)
    if row is None or (row.held is None and row.open_until is None):
        return None
    return 1 if row.held is None and row.open_until <= bridge.now() else 0


def at_once(bridge: Bridge, destination: str) -> int | None:
    """How many deliveries there may be under way there from all workers together, where the profile says."""
    profile = known_profiles(bridge.settings).get(destination)
    return profile.limits.at_once if profile else None


def note_defect(bridge: Bridge, tx: Connection, work: Work, reason: str, remedy: str | None) -> None:
    """Set aside after an error of ours. What was being sent may be there: it is looked for before it is sent again."""
    row = get_delivery(tx, work.payload["delivery"])
    told = {"reason": reason, "remedy": remedy or "nothing to do yet: it is tried again"}
    if row.state == S.SENDING:
        mark(tx, row.id, S.UNKNOWN, at=bridge.now(), **told)
    elif remedy and row.state == S.PENDING:
        mark(tx, row.id, S.FAILED, at=bridge.now(), **told)
    else:
        explain(tx, row.id, **told)
