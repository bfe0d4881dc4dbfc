"""What a person found who looked at a destination that cannot be asked: the photo is there, or it is not.

The word of a person is no proof: such a delivery is `accepted`, never `confirmed`, and nobody knows under which number
the photo stands there, so it can be taken back by people only.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, Row, insert, select

from adapter import governance
from adapter.access.actor import Actor
from adapter.bridge import Bridge
from adapter.db.tables import delivery, delivery_attempt
from adapter.delivery.outbox import NEEDS_A_LOOK, SEEN, DeliveryState, get_delivery, mark, send_again
from adapter.errors import BadInput, Conflict, NotFound
from connectors.contract import CANNOT_LOOK, Receipt

S = DeliveryState
LONGEST: Final = 200


def needs_a_look(row: Row[Any]) -> bool:
    """Whether only a person can say if the photo arrived."""
    return row.state == S.FAILED and is_blind(row.reason)


def is_blind(reason: str | None) -> bool:
    """Whether a failure for this reason may have arrived all the same, so that nothing is sent again by itself."""
    return str(reason).startswith(CANNOT_LOOK)


def find_blind(tx: Connection, media_id: str, destination: str) -> str:
    """The delivery of a photo that waits for somebody to look, the oldest of several. Raises NotFound."""
    c = delivery.c
    waits = select(c.id).where(c.media_id == media_id, c.destination == destination, NEEDS_A_LOOK)
    found = tx.execute(waits.order_by(c.media_version).limit(1)).scalar_one_or_none()
    if found is None:
        raise NotFound(f"no delivery of photo {media_id} to {destination} waits for somebody to look")
    return str(found)


def tell_looked(
    tx: Connection, bridge: Bridge, actor: Actor, delivery_id: str, *, there: bool, because: str, by: str = ""
) -> None:
    """Somebody (`by`, else the actor) looked: it is there and stays `accepted`, or it is not and is sent again.

    Raises NotFound, BadInput without a reason, Conflict when nobody was asked to look.
    """
    row, at, who = get_delivery(tx, delivery_id), bridge.now(), by or actor.display
    if not because.strip() or len(because) > LONGEST:
        raise BadInput(f"say what you saw there, in at most {LONGEST} characters")
    if not needs_a_look(row):
        raise Conflict("this delivery does not wait for somebody to look; look at the list again")
    said = f"{who}: {because.strip()}"
    if there:
        receipt = Receipt(route=SEEN, received_at=at).to_json()
        mark(tx, row.id, S.ACCEPTED, at=at, receipt=receipt, accepted_at=at, reason=f"seen there by {said}")
    else:
        send_again(tx, bridge, row.id)
    outcome = "there" if there else "absent"
    looked = {"delivery_id": row.id, "action": "look", "outcome": outcome, "detail": said}
    tx.execute(insert(delivery_attempt), looked | {"started_at": at, "ended_at": at})
    governance.audit(
        tx,
        bridge,
        "update",
        actor,
        patient_id=row.patient,
        references=[f"Media/{row.media_id}/_history/{row.media_version}"],
        detail=f"delivery to {row.destination}: {'seen' if there else 'not'} there, says {said}",
    )
