"""A destination stopped by a person and gone on with, and what goes in line again: after mending, or since a time.

While the EHR is down for maintenance, everything to it waits in order; when it is back, the oldest goes first, as fast
as `limits` of the profile allow.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, and_, not_, or_, select

from adapter import governance
from adapter.access.actor import Actor
from adapter.bridge import Bridge
from adapter.db.tables import delivery
from adapter.delivery.circuit import LEFT_ALONE, STOPPED, find_circuit, set_held
from adapter.delivery.destinations import Destinations
from adapter.delivery.outbox import NEEDS_A_LOOK, DeliveryState, look_again, send_again
from adapter.errors import BadInput, Conflict
from adapter.work import hasten, waiting

S = DeliveryState
REPLAYED_AT_ONCE: Final = 1000  # in one transaction


def stop_destination(tx: Connection, bridge: Bridge, actor: Actor, name: str, *, because: str) -> None:
    """Nothing more goes there until `resume_destination`; what is under way ends. Raises NotFound, Conflict."""
    Destinations(bridge).profile(name)
    set_held(tx, name, because.strip() or "by a person", at=bridge.now())
    governance.audit(tx, bridge, "configuration", actor, detail=f"deliveries to {name} stopped")


def resume_destination(tx: Connection, bridge: Bridge, actor: Actor, name: str) -> int:
    """Go on, oldest first; returns how many were waiting. Raises NotFound, Conflict when it is not stopped."""
    Destinations(bridge).profile(name)
    row = find_circuit(tx, name)
    if row is None or row.held is None:
        raise Conflict(f"deliveries to {name} are not stopped")
    set_held(tx, name, None, at=bridge.now())
    governance.audit(tx, bridge, "configuration", actor, detail=f"deliveries to {name} go on")
    hasten(tx, "deliver", name, because=(LEFT_ALONE, STOPPED), at=bridge.now())
    return waiting(tx, "deliver", name)


def replay(
    tx: Connection,
    bridge: Bridge,
    actor: Actor,
    name: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = REPLAYED_AT_ONCE,
) -> int:
    """Put deliveries of a destination in line again; returns how many, at most `limit`.

    Without `since` those that failed, but for those that only a person can look for (`looked`). With it also all that
    the destination accepted from then (until `until`), as after it was set back to a backup: each is looked for first
    and sent only where it is not there. Where nothing can be looked for, a person is told what to look for instead.
    Raises NotFound, and BadInput for an `until` alone or a stretch of time that has not begun.
    """
    Destinations(bridge).profile(name)
    if until is not None and since is None:
        raise BadInput("say since when as well; without it, what failed is sent again whenever that was")
    if since is not None and since > min(until or bridge.now(), bridge.now()):
        raise BadInput(
            f"{since.isoformat(timespec='minutes')} is after the end, or still to come; give an earlier time"
        )
    c, here = delivery.c, delivery.c.destination == name
    failed = and_(c.state == S.FAILED, not_(NEEDS_A_LOOK))
    if since is not None:
        last = until or bridge.now()
        accepted = and_(c.accepted_at.between(since, last), c.state.in_((S.ACCEPTED, S.CONFIRMED)))
        failed = or_(and_(failed, c.updated_at.between(since, last)), accepted)
    rows = tx.execute(select(delivery).where(here, failed).order_by(c.id).limit(limit)).all()
    for row in rows:
        _again(tx, bridge, row)
    if rows:
        told = f" since {since.isoformat(timespec='minutes')}" if since else ""
        governance.audit(tx, bridge, "configuration", actor, detail=f"{len(rows)} deliveries to {name} replayed{told}")
    return len(rows)


def _again(tx: Connection, bridge: Bridge, row: Row[Any]) -> None:
    if row.state == S.FAILED:
        send_again(tx, bridge, row.id)
    else:
        look_again(tx, bridge, row)
