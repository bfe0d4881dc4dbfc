"""How the work loop does deliveries: in threads of each destination's own, none begun where it is left alone, and with
a word in the ledger when an error of ours interrupts one.
"""

from __future__ import annotations

from functools import partial

from sqlalchemy import Connection

from adapter.bridge import Bridge
from adapter.delivery.circuit import find_circuit
from adapter.delivery.deliver import deliver
from adapter.delivery.destinations import Destinations, known_profiles
from adapter.delivery.outbox import DeliveryState, explain, get_delivery, mark
from adapter.work import Lane, Work

S = DeliveryState


def delivery_lane(bridge: Bridge, destinations: Destinations) -> Lane:
    """The lane of kind "deliver". Each claim is a commit of its own, so it takes more than the threads do at once."""
    threads = bridge.settings.worker_threads
    return Lane(
        partial(deliver, bridge, destinations),
        threads=threads,
        claims=4 * threads,
        room=partial(room, bridge),
        at_once=partial(at_once, bridge),
        set_aside=partial(note_defect, bridge),
    )


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
